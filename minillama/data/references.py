"""Would Wikipedia cite this page? The classifier that LLaMA adds to CCNet.

Positives are pages whose address stands in a `<ref>` of a Wikipedia dump,
negatives are random pages of the same crawl. The classifier is linear, on
words and pairs of words, hashed.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

import bz2
import html
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

_FEATURES = 2**18
_MAX_ARTICLE = 8 * 2**20
_REF = re.compile(r"<ref\b[^<>]*(?<!/)>(.*?)</ref", re.S | re.I)
_ADDRESS = re.compile(r"https?://[^\s<>|\[\]{}\"]+", re.I)


def address_key(url: str) -> str:
    """An address without what differs between two links to one page."""
    key = url.strip().lower().replace("&amp;", "&")
    key = re.sub(r"^https?://(www\.)?", "", key)
    return key.partition("#")[0].rstrip("/.,;)")


def cited_addresses(dump: Path) -> Iterator[str]:
    """Keys of the addresses in the references of a dump, article by article.

    Args:
        dump: `pages-articles` XML, bz2 or plain. It is read line by line;
            of an article the first 8 MB count, and a dump that is cut off
            gives what was in it.

    Chapter: notebooks/01_web_data.ipynb
    """
    with bz2.open(dump, "rb") if dump.suffix == ".bz2" else open(
            dump, "rb") as file:
        article, size = [], 0
        try:
            while line := file.readline(2**20):
                size += len(line)
                if size <= _MAX_ARTICLE:
                    article.append(line)
                if b"</page>" in line:
                    yield from _addresses(b"".join(article))
                    article, size = [], 0
        except (OSError, EOFError):
            pass
        yield from _addresses(b"".join(article))


def _addresses(article: bytes) -> Iterator[str]:
    """Keys of the addresses in the references of one article."""
    text = html.unescape(article.decode("utf-8", "replace"))
    for ref in _REF.findall(text):
        yield from map(address_key, _ADDRESS.findall(ref))


class CitedPages:
    """A logistic regression: text to the probability of being cited.

    Args:
        weights: of each hashed feature.
        bias: of the sum.

    Chapter: notebooks/01_web_data.ipynb
    """

    def __init__(self, weights: Float64[np.ndarray, "F"], bias: float) -> None:
        self.weights, self.bias = weights, bias

    @classmethod
    def train(
        cls, cited: Sequence[str], others: Sequence[str], seed: int = 0
    ) -> CitedPages:
        """Learn from pages of both kinds.

        Raises:
            ValueError: if one kind is missing.
        """
        from sklearn.linear_model import SGDClassifier

        if not cited or not others:
            raise ValueError(
                f"{len(cited)} cited pages and {len(others)} others: both "
                "kinds are needed; give a larger crawl, or a dump that "
                "cites it")
        model = SGDClassifier(loss="log_loss", random_state=seed)
        model.fit(_features([*cited, *others]),
                  [1] * len(cited) + [0] * len(others))
        return cls(model.coef_[0], float(model.intercept_[0]))

    def scores(self, texts: Sequence[str]) -> Float64[np.ndarray, "N"]:
        """The probability of each text."""
        logits = _features(texts) @ self.weights + self.bias
        return 1 / (1 + np.exp(-logits))

    def __call__(self, text: str) -> float:
        """The probability of one text."""
        return float(self.scores([text])[0])

    def save(self, path: Path) -> None:
        """Write weights and bias into an .npz file."""
        np.savez_compressed(path, weights=self.weights, bias=self.bias)

    @classmethod
    def load(cls, path: Path) -> CitedPages:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(stored["weights"], float(stored["bias"]))


def _features(texts: Sequence[str]):
    """Counts of words and of pairs of words, hashed, of length one a text."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(ngram_range=(1, 2), alternate_sign=False,
                             n_features=_FEATURES).transform(texts)


def area_under_curve(
    cited: Float64[np.ndarray, "M"], others: Float64[np.ndarray, "N"]
) -> tuple[float, float, float]:
    """How often a cited page scores above another one, and 95 % of doubt.

    The area under the ROC curve is that share of all pairs, a draw counting
    half. The interval is DeLong's (1988).

    Returns:
        The area, and the interval's lower and upper end.
    """
    above = (cited[:, None] > others) + 0.5 * (cited[:, None] == others)
    area = float(above.mean())
    parts = ((above.mean(axis), len(scores)) for axis, scores in (
        (1, cited), (0, others)))
    spread = 1.96 * math.sqrt(sum(
        part.var(ddof=1) / size for part, size in parts))
    return area, max(0.0, area - spread), min(1.0, area + spread)
