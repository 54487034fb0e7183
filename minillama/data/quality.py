"""A Kneser-Ney n-gram model: how well do the last few tokens tell the next?

The smoothing is interpolated modified Kneser-Ney (Kneser and Ney 1995; Chen
and Goodman 1999), the best there was before neural networks, and still what
web-scale filters score documents with. Every n-gram is stored once, with its
log probability and, as a context, its back-off weight: the columns of an ARPA
file.

Chapter: notebooks/09_model.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True)
class Order:
    """All n-grams of one length n, sorted by (context, last token).

    An n-gram is the number of its first n - 1 tokens in the order below,
    times V, plus its last token: exact, and one whole number.
    """

    keys: Int64[np.ndarray, "N"]
    """Context number * V + last token."""
    log_prob: Float64[np.ndarray, "N"]
    """ln p(last token | context)."""
    log_backoff: Float64[np.ndarray, "N"]
    """ln of the weight left for tokens never seen after this n-gram."""


class KneserNey:
    """p(w | h) from counts, discounted and mixed with shorter contexts.

    p(w | h) = (a(hw) - D(a(hw))) / a(h) + gamma(h) p(w | h'), where h' is h
    without its oldest token. For the longest n-grams a is the count; for
    shorter ones it is the number of different tokens seen before hw, because
    a shorter context is asked only where the longer one is new. gamma(h) is
    the mass that the discounts D freed. The unigrams mix with 1/V, so that
    every token has a probability and they sum to one.

    Args:
        orders: unigrams first, from `train`.
        vocab_size: V.

    Chapter: notebooks/09_model.ipynb
    """

    def __init__(self, orders: Sequence[Order], vocab_size: int) -> None:
        self.orders = list(orders)
        self.vocab_size = vocab_size

    @classmethod
    def train(
        cls,
        sequences: Iterable[Sequence[int]],
        vocab_size: int,
        order: int = 5,
    ) -> KneserNey:
        """Count and smooth all n-grams up to a length.

        Args:
            sequences: token ids, each sequence with BOS in front; the first
                token is given, never predicted. Nothing crosses a border.
            vocab_size: V; ids are 0 to V - 1.
            order: the longest n-gram; 1 is the unigram model. If no sequence
                is that long, the longest there is.

        Raises:
            ValueError: if there is nothing to predict, an id is outside the
                vocabulary, or the order is below 1.

        Chapter: notebooks/09_model.ipynb
        """
        tokens, place = _flatten(sequences, vocab_size)
        if order < 1:
            raise ValueError(f"order={order} must be at least 1; try 5")
        if not (place > 0).any():
            raise ValueError(
                "sequences: there is no token to predict; give at least one "
                "sequence of two tokens")
        keys, numbers = _number_ngrams(tokens, place, vocab_size, order)
        order = len(keys)
        model = cls([], vocab_size)
        shorter = np.full(vocab_size, -math.log(vocab_size))
        for n in range(1, order + 1):
            counts = _adjusted(n, order, keys, numbers, place)
            log_prob, gamma = _smooth(keys[n - 1], counts, vocab_size, shorter)
            if n > 1:
                model.orders[-1].log_backoff[:len(gamma)] = gamma
            model.orders.append(
                Order(keys[n - 1], log_prob, np.zeros(len(log_prob))))
            if n < order:
                # For every longer n-gram, the probability of its suffix.
                suffix = _first_of_each(numbers[n], numbers[n - 1])
                shorter = log_prob[suffix]
        return model

    def log_probs(
        self, sequences: Iterable[Sequence[int]]
    ) -> Float64[np.ndarray, "T"]:
        """ln p of every token but the first of each sequence, in order.

        Returns:
            (T,) natural logarithms, T summed over the sequences.

        Raises:
            ValueError: if an id is outside the vocabulary.

        Chapter: notebooks/09_model.ipynb
        """
        tokens, place = _flatten(sequences, self.vocab_size)
        number = tokens
        total = self.orders[0].log_prob[tokens]
        for n, order in enumerate(self.orders[1:], start=2):
            context = np.where(place >= n - 1, np.roll(number, 1), -1)
            number = self._find(order, context, tokens)
            below = self.orders[n - 2].log_backoff[context]
            total = np.where(
                number >= 0, order.log_prob[number],
                total + np.where(context >= 0, below, 0.0))
        return total[place > 0]

    def bits_per_byte(
        self, sequences: Iterable[Sequence[int]], n_bytes: int
    ) -> float:
        """-log2 p of the sequences, shared out over the bytes of their text.

        Args:
            sequences: token ids with BOS in front.
            n_bytes: of the text; `Tokenizer.count_bytes` knows it.
        """
        return -float(self.log_probs(sequences).sum()) / math.log(2) / n_bytes

    def ngrams(self, n: int) -> Int64[np.ndarray, "N n"]:
        """The n-grams of one length as rows of token ids."""
        number = np.arange(len(self.orders[n - 1].keys), dtype=np.int64)
        columns = []
        for order in reversed(self.orders[:n]):
            number, token = np.divmod(order.keys[number], self.vocab_size)
            columns.append(token)
        return np.stack(columns[::-1], axis=1)

    def _find(
        self,
        order: Order,
        context: Int64[np.ndarray, "T"],
        tokens: Int64[np.ndarray, "T"],
    ) -> Int64[np.ndarray, "T"]:
        """Numbers of the n-grams (context, token), -1 where there is none."""
        key = context * self.vocab_size + tokens
        at = np.searchsorted(order.keys, key).clip(max=len(order.keys) - 1)
        return np.where((context >= 0) & (order.keys[at] == key), at, -1)


def _flatten(
    sequences: Iterable[Sequence[int]], vocab_size: int
) -> tuple[Int64[np.ndarray, "T"], Int64[np.ndarray, "T"]]:
    """All tokens in a row, and the place of each in its own sequence."""
    parts = [np.asarray(s, dtype=np.int64) for s in sequences]
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    tokens = np.concatenate(parts)
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        raise ValueError(
            f"sequences: ids run from {tokens.min()} to {tokens.max()}, but "
            f"vocab_size={vocab_size}; try vocab_size={tokens.max() + 1}")
    return tokens, np.concatenate(
        [np.arange(len(part), dtype=np.int64) for part in parts])


def _number_ngrams(
    tokens: Int64[np.ndarray, "T"],
    place: Int64[np.ndarray, "T"],
    vocab_size: int,
    order: int,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Number the different n-grams of each length.

    Returns:
        Per n the sorted keys (see `Order`), and for every position of the
        text the number of the n-gram that ends there, -1 where the sequence
        is too young for one.
    """
    keys = [np.arange(vocab_size, dtype=np.int64)]
    numbers = [tokens]
    for n in range(2, order + 1):
        here = place >= n - 1
        if not here.any():  # Every sequence is shorter than n.
            break
        key = (np.roll(numbers[-1], 1) * vocab_size + tokens)[here]
        different, number = np.unique(key, return_inverse=True)
        keys.append(different)
        numbers.append(np.full(len(tokens), -1, dtype=np.int64))
        numbers[-1][here] = number
    return keys, numbers


def _first_of_each(
    number: Int64[np.ndarray, "T"], value: Int64[np.ndarray, "T"]
) -> Int64[np.ndarray, "N"]:
    """For each number 0..N-1, the value at a place where it stands."""
    out = np.empty(number.max(initial=-1) + 1, dtype=np.int64)
    out[number[number >= 0]] = value[number >= 0]
    return out


def _adjusted(
    n: int,
    order: int,
    keys: list[np.ndarray],
    numbers: list[np.ndarray],
    place: Int64[np.ndarray, "T"],
) -> Int64[np.ndarray, "N"]:
    """Counts for the longest n-grams, numbers of left neighbours below.

    An n-gram at the start of a sequence has no left neighbour; each time it
    stands there counts as one of its own.
    """
    size, number = len(keys[n - 1]), numbers[n - 1]
    if n == order:
        return np.bincount(number[place >= max(n - 1, 1)], minlength=size)
    neighbours = np.bincount(
        _first_of_each(numbers[n], number), minlength=size)
    if n == 1:  # The first token is never predicted.
        return neighbours
    return neighbours + np.bincount(number[place == n - 1], minlength=size)


def _discounts(counts: Int64[np.ndarray, "N"]) -> Float64[np.ndarray, "4"]:
    """D(0) = 0, D(1), D(2), D(3 and more): Chen and Goodman, equation 26."""
    n1, n2, n3, n4 = np.bincount(counts, minlength=5)[1:5]
    fallback = np.array([0.0, 0.5, 1.0, 1.5])
    if not (n1 and n2 and n3):
        return fallback
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2,
                      3 - 4 * y * n4 / n3])
    # Tiny texts have odd counts of counts: a discount must leave something.
    fits = (found > 0) & (found <= np.arange(4))
    return np.where(fits, found, fallback)


def _smooth(
    keys: Int64[np.ndarray, "N"],
    counts: Int64[np.ndarray, "N"],
    vocab_size: int,
    shorter: Float64[np.ndarray, "N"],
) -> tuple[Float64[np.ndarray, "N"], Float64[np.ndarray, "C"]]:
    """ln p of every n-gram and ln gamma of every context, of one length.

    Args:
        keys: the n-grams.
        counts: their adjusted counts a.
        vocab_size: V.
        shorter: ln p of each n-gram's last token under the shorter context.
    """
    context = keys // vocab_size
    discount = _discounts(counts)[counts.clip(max=3)]
    total = np.bincount(context, counts)
    freed = np.bincount(context, discount)
    # A context that nothing follows leaves all its mass to the shorter one.
    gamma = np.divide(freed, total, out=np.ones(len(total)), where=total > 0)
    kept = (counts - discount) / np.maximum(total, 1)[context]
    return (np.log(kept + gamma[context] * np.exp(shorter)), np.log(gamma))
