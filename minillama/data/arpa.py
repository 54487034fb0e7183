r"""N-gram models as text files: the ARPA format, written, read and asked.

A section for each length n holds a line for each n-gram: log10 of its
probability, its words, and log10 of its back-off weight. To score a word, take
the longest n-gram that ends in it; for each word of context that had to be
given up on the way there, a back-off weight is added.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minillama.data.ccnet import normalise_for_model
from minillama.data.quality import KneserNey, Order

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
_LN10 = math.log(10)
_NEVER = -99.0


def write(model: KneserNey, words: Sequence[str], path: Path) -> None:
    r"""Write a model for KenLM, or anything else that reads ARPA.

    Args:
        model: trained on sequences `<s>`, tokens, `</s>`.
        words: of each id its word, without spaces; the three of above among
            them.
        path: the file.

    Chapter: notebooks/01_web_data.ipynb
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        for n, order in enumerate(model.orders, start=1):
            file.write(f"ngram {n}={len(order.keys)}\n")
        for n, order in enumerate(model.orders, start=1):
            file.write(f"\n\\{n}-grams:\n")
            for gram, log_prob, log_backoff in zip(
                    model.ngrams(n).tolist(), order.log_prob / _LN10,
                    order.log_backoff / _LN10, strict=True):
                text = " ".join(words[token] for token in gram)
                if text == BOS:  # It is given, never predicted.
                    log_prob = _NEVER
                last = n == len(model.orders)
                file.write(f"{log_prob:.7f}\t{text}" + (
                    "\n" if last else f"\t{log_backoff:.7f}\n"))
        file.write("\n\\end\\\n")


def read(path: Path) -> tuple[dict[str, int], KneserNey]:
    """Words with their ids, and the model, from an ARPA file.

    A file without `<unk>` gets it at 10^-100, as with KenLM.

    Raises:
        ValueError: if the file is not in this format, or an n-gram stands in
            it without its context.

    Chapter: notebooks/01_web_data.ipynb
    """
    sections: list[list[list[str]]] = []
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.startswith("\\"):
                if line.rstrip().endswith("-grams:"):
                    sections.append([])
            elif sections and line.strip():
                sections[-1].append(line.rstrip("\n").split("\t"))
    try:
        words = {row[1]: i for i, row in enumerate(sections[0])}
        if UNKNOWN not in words:
            words[UNKNOWN] = len(words)
            sections[0].append(["-100", UNKNOWN])
        model = KneserNey([], len(words))
        for rows in sections:
            model.orders.append(_order(model, words, rows))
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(
            f"language_model={str(path)!r} is not a complete ARPA file "
            f"({error}); write one with minillama.data.arpa.write") from error
    return words, model


def _order(
    model: KneserNey, words: dict[str, int], rows: list[list[str]]
) -> Order:
    """One section, sorted as `KneserNey` looks things up."""
    grams = np.array([[words[w] for w in row[1].split(" ")] for row in rows])
    context = np.zeros(len(rows), np.int64)
    if grams.shape[1] > 1:
        context = grams[:, 0]
    for order, token in zip(model.orders[1:], grams.T[1:-1]):
        context = model._find(order, context, token)
    if (context < 0).any():
        raise ValueError(f"{rows[int(context.argmin())][1]!r} without context")
    keys = context * len(words) + grams[:, -1]
    sort = np.argsort(keys)
    numbers = np.array([[float(row[0]), float((row + [0])[2])]
                        for row in rows]) * _LN10
    return Order(keys[sort], numbers[sort, 0], numbers[sort, 1])


class PagePerplexity:
    """How surprised the language model is by a page, per token.

    10^(-sum of log10 p / number of tokens), over the pieces of all lines and
    the end of each line, rounded to one decimal: CCNet's measure. Lines are
    read as `normalise_for_model` leaves them. KenLM is asked where it is
    installed, else the tables of `read`, which say the same.

    Args:
        pieces: a SentencePiece model.
        arpa: an n-gram model over its pieces.
        kenlm: False: do not ask KenLM; None: ask it if it is there.

    Chapter: notebooks/01_web_data.ipynb
    """

    def __init__(
        self, pieces: Path, arpa: Path, *, kenlm: bool | None = None
    ) -> None:
        from sentencepiece import SentencePieceProcessor

        self._pieces = SentencePieceProcessor(model_file=str(pieces))
        self._kenlm = None
        if kenlm is not False:
            try:
                from kenlm import Model

                self._kenlm = Model(str(arpa))
                return
            except ImportError:
                pass
        self._words, self._model = read(arpa)

    def __call__(self, text: str) -> float:
        """The perplexity of a page."""
        lines = [self._pieces.encode(normalise_for_model(line), out_type=str)
                 for line in text.split("\n")]
        total = sum(map(len, lines)) + len(lines)
        return round(10 ** (-self.log10(lines) / total), 1)

    def log10(self, lines: Sequence[Sequence[str]]) -> float:
        """log10 p of lines of pieces, the ends of lines included."""
        if self._kenlm is not None:
            return sum(self._kenlm.score(" ".join(line)) for line in lines)
        unknown = self._words[UNKNOWN]
        return float(self._model.log_probs(
            [self._words.get(piece, unknown) for piece in (BOS, *line, EOS)]
            for line in lines).sum()) / _LN10
