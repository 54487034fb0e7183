"""What learners answer in chapter 14, and the sentence they should get."""

from __future__ import annotations

import math


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


def _rates(choices, nats):
    return [n / len(c) for n, c in zip(nats, choices)]


def _move(context, continuation):
    bare = context.rstrip(" ")
    return bare, context[len(bare):] + continuation


RIGHT = {
    "14-evaluation-1": _fixed(lambda choices, nats: max(
        range(len(nats)), key=lambda i: _rates(choices, nats)[i])),
    "14-evaluation-2": _fixed(lambda nats, alone: [
        a - b for a, b in zip(nats, alone)]),
    "14-evaluation-3": _fixed(lambda n, c, k: 1 - math.prod(
        (n - c - i) / (n - i) for i in range(k))),
    "14-evaluation-4": _fixed(_move),
    "14-evaluation-5": _fixed(lambda scores, counts: sum(
        s * c for s, c in zip(scores, counts)) / sum(counts)),
    "14-evaluation-6": _fixed(lambda p, points: math.ceil(
        p * (1 - p) * (196 / points) ** 2)),
}
WRONG = {
    "14-evaluation-1": [
        (_fixed(lambda choices, nats: nats.index(max(nats))), "short"),
        (_fixed(lambda choices, nats: _rates(choices, nats).index(
            min(_rates(choices, nats)))), "nearest to 0"),
        (_fixed(lambda choices, nats: max(_rates(choices, nats))), "index"),
    ],
    "14-evaluation-2": [
        (_fixed(lambda nats, alone: [b - a for a, b in zip(nats, alone)]),
         "sign"),
        (_fixed(lambda nats, alone: [a / b for a, b in zip(nats, alone)]),
         "subtracted"),
        (_fixed(lambda nats, alone: [math.exp(a - b)
                                     for a, b in zip(nats, alone)]),
         "logarithm"),
    ],
    "14-evaluation-3": [
        (_fixed(lambda n, c, k: 1 - (1 - c / n) ** k), "replacement"),
        (_fixed(lambda n, c, k: c / n), "pass@1"),
        (_fixed(lambda n, c, k: math.comb(n - c, k) / math.comb(n, k)),
         "none of the k"),
    ],
    "14-evaluation-4": [
        (_fixed(lambda a, b: (a, b)), "still ends"),
        (_fixed(lambda a, b: (a.rstrip(), b)), "lost or added"),
        (_fixed(lambda a, b: (a[:3], a[3:] + b)), "only the spaces"),
    ],
    "14-evaluation-5": [
        (_fixed(lambda scores, counts: sum(scores) / len(scores)),
         "mean of means"),
        (_fixed(lambda scores, counts: sum(
            s * c for s, c in zip(scores, counts))), "sum; divide"),
        (_fixed(lambda scores, counts: sum(
            s * c for s, c in zip(scores, counts)) / len(scores)),
         "not the subjects"),
    ],
    "14-evaluation-6": [
        (_fixed(lambda p, points: math.ceil(
            196 * math.sqrt(p * (1 - p)) / points)), "square it"),
        (_fixed(lambda p, points: math.ceil(
            p * (1 - p) * (100 / points) ** 2)), "1.96"),
        (_fixed(lambda p, points: math.ceil(p * (196 / points) ** 2)),
         "variance"),
    ],
}
