"""What learners answer in chapter 8, and the sentence they should get."""

from __future__ import annotations

import math

import torch


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


def _mask(queries, keys):
    ones = torch.ones(queries, keys, dtype=torch.bool)
    return ones.tril(keys - queries)


def _attention(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[-1])
    hidden = ~_mask(len(q), len(k))
    return scores.masked_fill(hidden, -math.inf).softmax(-1) @ v


def _mask_after(q, k, v):
    weights = (q @ k.T / math.sqrt(q.shape[-1])).softmax(-1)
    return weights.masked_fill(~_mask(len(q), len(k)), 0) @ v


def _mask_with_zero(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[-1])
    return scores.masked_fill(~_mask(len(q), len(k)), 0).softmax(-1) @ v


def _merge(first, second, shrink_o=True):
    (m1, s1, o1), (m2, s2, o2) = first, second
    m = max(m1, m2)
    a, b = math.exp(m1 - m), math.exp(m2 - m)
    o = a * o1 + b * o2 if shrink_o else o1 + o2
    return m, a * s1 + b * s2, o


def _merge_finished(first, second):
    m, s, o = _merge(first, second)
    return m, s, o / s


def _visited(queries, keys, tile):
    count = 0
    for first in range(0, queries, tile):
        last = min(first + tile, queries) - 1  # its last query
        count += (last + keys - queries) // tile + 1
    return count


def _visited_floor(queries, keys, tile):
    count = 0
    for row in range(queries // tile):
        last = (row + 1) * tile - 1
        count += min((last + keys - queries) // tile + 1, keys // tile)
    return count


def _up(a, b):
    return -(-a // b)


RIGHT = {
    "08-attention-1": _fixed(
        lambda q, keys: (keys @ q / math.sqrt(len(q))).softmax(0)),
    "08-attention-2": _fixed(_mask),
    "08-attention-3": _fixed(_attention),
    "08-attention-4": _fixed(_merge),
    "08-attention-5": _fixed(
        lambda n, g: [head // (n // g) for head in range(n)]),
    "08-attention-6": _fixed(_visited),
}

WRONG = {
    "08-attention-1": [
        (_fixed(lambda q, keys: (keys @ q).softmax(0)), "not divided"),
        (_fixed(lambda q, keys: (keys @ q / len(q)).softmax(0)),
         "square root is enough"),
        (_fixed(lambda q, keys: keys @ q / math.sqrt(len(q))),
         "these are the scores"),
        (_fixed(lambda q, keys: (keys @ q / math.sqrt(len(q))).sigmoid()),
         "compete"),
    ],
    "08-attention-2": [
        (_fixed(lambda t, s: torch.ones(t, s).tril()), "LAST positions"),
        (_fixed(lambda t, s: ~_mask(t, s)), "wrong way round"),
        (_fixed(lambda t, s: torch.ones(t, s).tril(s - t - 1)),
         "its own position"),
        (_fixed(lambda t, s: torch.ones(t, s)), "the future"),
    ],
    "08-attention-3": [
        (_fixed(lambda q, k, v: (q @ k.T / 2).softmax(-1) @ v),
         "mask is missing"),
        (_fixed(_mask_after), "after the softmax"),
        (_fixed(_mask_with_zero), "minus infinity"),
        (_fixed(lambda q, k, v: _attention(2 * q, k, v)), "not divided"),
        (_fixed(lambda q, k, v: _attention(q, k, k)), "over the values"),
    ],
    "08-attention-4": [
        (_fixed(lambda a, b: (max(a[0], b[0]), a[1] + b[1], a[2] + b[2])),
         "shrink them"),
        (_fixed(lambda a, b: _merge(a, b, shrink_o=False)),
         "output is not"),
        (_fixed(_merge_finished), "before the division"),
        (_fixed(lambda a, b: [x + y for x, y in zip(a, b)]),
         "not the sum"),
    ],
    "08-attention-5": [
        (_fixed(lambda n, g: [head % g for head in range(n)]), "in turn"),
        (_fixed(lambda n, g: [min(head, g - 1) for head in range(n)]),
         "evenly"),
        (_fixed(lambda n, g: [0] * n), "multi-query"),
    ],
    "08-attention-6": [
        (_fixed(lambda q, k, t: _up(q, t) * _up(k, t)), "all tiles"),
        (_fixed(lambda q, k, t: _up(q, t) * (_up(q, t) + 1) // 2),
         "without a cache"),
        (_fixed(_visited_floor), "round up"),
        (_fixed(lambda q, k, t: q * (q + 1) // 2), "cells"),
    ],
}
