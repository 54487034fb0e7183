"""minillama/data/quality.py against textbook Kneser-Ney, and as a law.

The oracle below counts with dictionaries, straight from Chen and Goodman's
definition, and shares no line with the package. Properties: a distribution
sums to one after any context; the two ways of asking agree; bits per byte is
the definition.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data.quality import KneserNey, _discounts

V = 6
SEQUENCES = st.lists(
    st.lists(st.integers(1, V - 1), min_size=1, max_size=12)
    .map(lambda tokens: [0, *tokens]),  # 0 is BOS
    min_size=1, max_size=8)


class Textbook:
    """Interpolated modified Kneser-Ney with dictionaries, order n."""

    def __init__(self, sequences: list[list[int]], order: int) -> None:
        self.order = order
        raw = [Counter() for _ in range(order + 1)]
        for s in sequences:
            for n in range(1, order + 1):
                for i in range(len(s) - n + 1):
                    if not (n == 1 and i == 0):
                        raw[n][tuple(s[i:i + n])] += 1
        self.counts = [Counter() for _ in range(order + 1)]
        self.counts[order] = raw[order]
        for n in range(1, order):
            for gram in raw[n + 1]:
                self.counts[n][gram[1:]] += 1
            for gram, count in raw[n].items():
                if gram[0] == 0:
                    self.counts[n][gram] = count
        self.discount = [self._discount(c) for c in self.counts]

    @staticmethod
    def _discount(counts: Counter) -> list[float]:
        n = Counter(counts.values())
        if not (n[1] and n[2] and n[3]):
            return [0.0, 0.5, 1.0, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        d = [0.0] + [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
        return [v if 0 < v <= k else (0, 0.5, 1.0, 1.5)[k]
                for k, v in enumerate(d)]

    def p(self, token: int, context: tuple[int, ...]) -> float:
        """p(token | context), by recursion to 1/V."""
        context = context[max(0, len(context) - self.order + 1):]
        below = (1 / V if not context else self.p(token, context[1:]))
        n = len(context) + 1
        followers = {w: self.counts[n][(*context, w)] for w in range(V)}
        total = sum(followers.values())
        if total == 0:
            return below
        d = [self.discount[n][min(c, 3)] for c in followers.values()]
        return (followers[token] - d[token] + sum(d) * below) / total


@pytest.mark.oracle
@settings(max_examples=60, deadline=None)
@given(train=SEQUENCES, test=SEQUENCES, order=st.integers(1, 4))
def test_equals_the_textbook(train, test, order):
    """Every probability of every token, seen contexts and unseen ones."""
    model = KneserNey.train(train, V, order)
    order = min(order, max(map(len, train)))
    book = Textbook(train, order)
    want = [math.log(book.p(s[i], tuple(s[:i])))
            for s in test for i in range(1, len(s))]
    np.testing.assert_allclose(model.log_probs(test), want, rtol=1e-9)


def after(model, context):
    """ln p of every token after a context."""
    return model.log_probs([[*context, w] for w in range(V)])[
        len(context) - 1::len(context)]


@settings(max_examples=60, deadline=None)
@given(train=SEQUENCES, order=st.integers(1, 5),
       context=st.lists(st.integers(0, V - 1), min_size=1, max_size=6))
def test_sums_to_one(train, order, context):
    """After any context, the V probabilities sum to one."""
    model = KneserNey.train(train, V, order)
    p = np.exp(after(model, context))
    assert p.min() > 0
    assert p.sum() == pytest.approx(1, abs=1e-12)


def test_discounts_by_hand():
    """Counts of counts 4, 2, 1, 1: Y = 4/8, D = 1/2, 5/4, 1."""
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 0])
    np.testing.assert_allclose(_discounts(counts), [0, 0.5, 1.25, 1.0])


def test_san_francisco():
    """A word with one predecessor is unlikely elsewhere, however frequent.

    3 follows only 2, often; 4 follows three different tokens, once each.
    After the unseen context 5 Kneser-Ney prefers 4, raw counts prefer 3.
    """
    train = [[0, 2, 3], [0, 2, 3], [0, 2, 3], [0, 2, 3],
             [0, 1, 4], [0, 4], [0, 2, 4], [0, 5]]
    p = after(KneserNey.train(train, V, 2), [5])
    assert p[4] > p[3]


def test_ngrams_are_those_of_the_text():
    """The stored rows are the different n-grams, each once."""
    train = [[0, 1, 2, 1, 2], [0, 2, 1]]
    model = KneserNey.train(train, V, 3)
    want = {tuple(s[i:i + 3]) for s in train for i in range(len(s) - 2)}
    rows = [tuple(row) for row in model.ngrams(3).tolist()]
    assert len(rows) == len(want) and set(rows) == want


def test_bits_per_byte_by_definition():
    """Sum of -log2 p over the bytes, and uniform where nothing is known."""
    train = [[0, 1, 2, 3], [0, 1, 2, 4]]
    model = KneserNey.train(train, V, 2)
    want = -sum(math.log2(Textbook(train, 2).p(w, (h,)))
                for h, w in ((0, 1), (1, 2), (2, 4))) / 7
    assert model.bits_per_byte([[0, 1, 2, 4]], 7) == pytest.approx(want)


def test_more_context_helps_on_a_text_with_structure():
    """A cycle is certain with one token of context, uncertain with none."""
    cycle = [[0, *([1, 2, 3, 4, 5] * 20)]]
    bits = [KneserNey.train(cycle, V, n).bits_per_byte(cycle, 100)
            for n in (1, 2)]
    assert bits[0] > 2.2 and bits[1] < 0.3


@pytest.mark.parametrize("sequences, order, says", [
    ([], 2, "at least one"), ([[0]], 2, "no token to predict"),
    ([[0, V]], 2, f"vocab_size={V + 1}"), ([[0, 1]], 0, "order=0"),
])
def test_refuses_with_what_would_work(sequences, order, says):
    """Nothing to learn from, ids outside V, no order."""
    with pytest.raises(ValueError, match=says):
        KneserNey.train(sequences, V, order)
