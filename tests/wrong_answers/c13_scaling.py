"""What learners answer in chapter 13, and the sentence they should get."""

from __future__ import annotations

import math

import torch


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


def _place(rank, shards, tensor):
    copy, rest = divmod(rank, shards * tensor)
    return (copy, *divmod(rest, tensor))


def _parts(x, a, b, n, inside=torch.relu):
    width = a.shape[1] // n
    return torch.stack([inside(x @ c) @ r for c, r in zip(
        a.split(width, 1), b.split(width, 0))])


def _received(kind, size, gpus):
    return (2 if kind == "all-reduce" else 1) * size * (gpus - 1) / gpus


def _norm(ranks, share=lambda s, n: s / n):
    return math.sqrt(sum(share(float(g.square().sum()), n)
                         for rank in ranks for g, n in rank))


def _resting(parameters, copies, shards, tensor):
    return 12 * parameters / shards / tensor


RIGHT = {
    "13-scaling-1": _fixed(_place),
    "13-scaling-2": _fixed(_parts),
    "13-scaling-3": _fixed(_received),
    "13-scaling-4": _fixed(_norm),
    "13-scaling-5": _fixed(_resting),
}

WRONG = {
    "13-scaling-1": [
        (_fixed(lambda r, s, t: _place(r, s, t)[::-1]), "order is copy"),
        (_fixed(lambda r, s, t: (r // (s * t), r % (s * t) % s,
                                 r % (s * t) // s)), "neighbours share"),
        (_fixed(lambda r, s, t: (r // (s * t), r // t, r % t)),
         "within one copy"),
    ],
    "13-scaling-2": [
        (_fixed(lambda x, a, b, n: _parts(x, a, b, n).sum(0)),
         "this is the sum"),
        (_fixed(lambda x, a, b, n: _parts(x, a, b, n, lambda y: y)),
         "relu is missing"),
        (_fixed(lambda x, a, b, n: _parts(x, a, b, n, lambda y: y).relu()),
         "before the second"),
        (_fixed(lambda x, a, b, n: _parts(x, a, b, n).flip(0)),
         "wrong order"),
        (_fixed(lambda x, a, b, n: torch.stack(
            [(x @ a).relu() @ b / n] * n)), "alone"),
    ],
    "13-scaling-3": [
        (_fixed(lambda k, s, n: _received(
            "all-gather" if k == "all-reduce" else "all-reduce", s, n)),
         "twice the bytes"),
        (_fixed(lambda k, s, n: s * (n - 1)), "a gpus-th"),
        (_fixed(lambda k, s, n: _received(k, s, n) * n / (n - 1)),
         "one round less"),
        (_fixed(lambda k, s, n: _received(k, s, n) * n),
         "all receive|a gpus-th"),
    ],
    "13-scaling-4": [
        (_fixed(lambda r: _norm(r, lambda s, n: s)), "counted twice"),
        (_fixed(lambda r: _norm(r[:1], lambda s, n: s)), "rank 0"),
        (_fixed(lambda r: sum(_norm([one]) for one in r)), "do not add up"),
        (_fixed(lambda r: _norm(r) ** 2), "root"),
        (_fixed(lambda r: _norm(r, lambda s, n: s * n)), "do not multiply"),
    ],
    "13-scaling-5": [
        (_fixed(lambda p, c, s, t: _resting(p, c, s, t) / c), "the same"),
        (_fixed(lambda p, c, s, t: _resting(p, c, s, t) / 3),
         "two more numbers"),
        (_fixed(lambda p, c, s, t: _resting(p, c, s, t) * t), "matrices out"),
        (_fixed(lambda p, c, s, t: _resting(p, c, s, t) * s), "a part each"),
        (_fixed(lambda p, c, s, t: _resting(p, c, s, t) * 4 / 3), "gone"),
    ],
}
