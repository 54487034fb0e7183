"""Which language is a text in? fastText's linear classifier knows 176.

Its model averages embeddings of words and of pieces of words, and one linear
layer tells the languages apart (Joulin et al. 2017). The small model,
`lid.176.ftz`, has 938,013 bytes.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

from pathlib import Path

from minillama.files import DATA, needs


class LanguageId:
    """fastText's guess, asked as CCNet asks it.

    Args:
        path: of `lid.176.ftz` or `lid.176.bin`.

    Raises:
        ValueError: if there is no model, or nothing to load it with.

    Chapter: notebooks/01_web_data.ipynb
    """

    def __init__(self, path: Path) -> None:
        with needs(f"telling languages apart needs fasttext-predict; {DATA}"):
            import fasttext
        try:
            self._model = fasttext.load_model(str(path))
        except ValueError as error:
            raise ValueError(
                f"language_model={str(path)!r} is no fastText model; give "
                "the path of lid.176.ftz") from error

    def __call__(self, text: str) -> tuple[str, float]:
        """The likeliest language and its probability, to two decimals.

        Line ends are deleted, not replaced by spaces, and the probability is
        rounded before it is compared with any threshold: so does CCNet.
        """
        line = text.replace("\n", "").encode("utf-8", "replace").decode()
        labels, scores = self._model.predict(line, k=1)
        if not labels:
            return "", 0.0
        return labels[0].removeprefix("__label__"), round(scores[0], 2)
