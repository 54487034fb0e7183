"""Exercises of chapter 13: ranks, matrices in parts, rings, norms, memory.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import math
from typing import Any

import torch

from minillama.checks import answer, compare, exercise


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=draw))


def _box(draw: torch.Generator) -> dict[str, Any]:
    while True:  # until the rank tells the axes apart
        shards, tensor = _whole(draw, 3, 8), _whole(draw, 2, 6)
        copy, shard, part = (
            _whole(draw, 1, 5), _whole(draw, 1, shards),
            _whole(draw, 0, tensor))
        rest = shard * tensor + part
        if copy != part and (rest % shards, rest // shards) != (shard, part):
            break
    return {"rank": copy * shards * tensor + rest, "shards": shards,
            "tensor": tensor}


@exercise("13-scaling-1", given=_box)
def place(mine: Any, rank: int, shards: int, tensor: int) -> str | None:
    """A function (rank, shards, tensor) -> (copy, shard, part)."""
    copy, rest = divmod(rank, shards * tensor)
    shard, part = divmod(rest, tensor)
    return compare(
        answer(mine, rank, shards, tensor),
        (copy, shard, part),
        ((part, shard, copy), "the order is copy, shard, part of a matrix"),
        ((copy, rest % shards, rest // shards), "neighbours share matrices: "
         "the part changes fastest, the shard after it"),
        ((copy, rank // tensor, part), "take the copies off first; the shard "
         "counts within one copy"),
    )


def _product(draw: torch.Generator) -> dict[str, Any]:
    return {"x": torch.randn(3, 4, generator=draw),
            "a": torch.randn(4, 6, generator=draw),
            "b": torch.randn(6, 5, generator=draw), "parts": 2}


@exercise("13-scaling-2", given=_product)
def partial_sums(mine: Any, x: torch.Tensor, a: torch.Tensor,
                 b: torch.Tensor, parts: int) -> str | None:
    """A function (x, a, b, parts) -> (parts, T, D): what each rank adds."""
    width = a.shape[1] // parts
    columns, rows = a.split(width, 1), b.split(width, 0)
    right = torch.stack([(x @ c).relu() @ r for c, r in zip(columns, rows)])
    whole = (x @ a).relu() @ b
    late = torch.stack([x @ c @ r for c, r in zip(columns, rows)])
    return compare(
        answer(mine, x, a, b, parts),
        right,
        (right.sum(0), "this is the sum; return what each rank adds to it"),
        (late, "the relu is missing; between columns and rows it stays where "
         "it was"),
        (late.relu(), "the relu comes before the second matrix: a sum of "
         "relus is not the relu of a sum"),
        (right.flip(0), "the parts are in the wrong order: rank 0 has the "
         "first columns"),
        (torch.stack([whole / parts] * parts), "each rank sees its own part "
         "of the matrices alone, not a share of the result"),
    )


def _ring(draw: torch.Generator) -> dict[str, Any]:
    kind = ("all-gather", "reduce-scatter", "all-reduce")[_whole(draw, 0, 3)]
    size = _whole(draw, 3, 9)
    return {"kind": kind, "size": size * 1000 * _whole(draw, 2, 9),
            "gpus": size}


@exercise("13-scaling-3", given=_ring)
def received(mine: Any, kind: str, size: int, gpus: int) -> str | None:
    """A function (kind, size, gpus) -> bytes that one GPU receives."""
    once = size * (gpus - 1) / gpus
    right = 2 * once if kind == "all-reduce" else once
    return compare(
        answer(mine, kind, size, gpus),
        right,
        (once if kind == "all-reduce" else 2 * once, "an all-reduce is a "
         "reduce-scatter and an all-gather: twice the bytes of either"),
        (size * (gpus - 1), "each piece is a gpus-th of the whole, and so is "
         "what comes in a round"),
        (right * gpus / (gpus - 1), "its own piece nobody has to send it: "
         "one round less than there are GPUs"),
        (right * gpus, "that is what all receive together"),
    )


def _held(draw: torch.Generator) -> dict[str, Any]:
    shards = [torch.randn(4, generator=draw) for _ in range(2)]
    common = torch.randn(3, generator=draw)
    return {"ranks": [[(part, 1), (common, 2)] for part in shards]}


@exercise("13-scaling-4", given=_held)
def norm(mine: Any, ranks: list) -> str | None:
    """A function ranks -> norm; a rank is a list of (gradient, holders)."""
    squares = [[(g.square().sum().item(), n) for g, n in rank]
               for rank in ranks]
    fair = math.sqrt(sum(s / n for rank in squares for s, n in rank))
    every = math.sqrt(sum(s for rank in squares for s, _ in rank))
    first = math.sqrt(sum(s for s, _ in squares[0]))
    apart = sum(math.sqrt(sum(s / n for s, n in rank)) for rank in squares)
    return compare(
        answer(mine, ranks),
        fair,
        (every, "what two ranks hold alike was counted twice"),
        (first, "this is the norm of what rank 0 holds"),
        (apart, "norms do not add up; their squares do"),
        (fair ** 2, "the root is missing"),
        (math.sqrt(sum(s * n for rank in squares for s, n in rank)),
         "divide by the number of holders, do not multiply"),
    )


def _model(draw: torch.Generator) -> dict[str, Any]:
    return {"parameters": _whole(draw, 7, 70) * 10**9,
            "copies": (5, 7)[_whole(draw, 0, 2)], "shards": 32, "tensor": 8}


@exercise("13-scaling-5", given=_model)
def resting(mine: Any, parameters: int, copies: int, shards: int,
            tensor: int) -> str | None:
    """A function (parameters, copies, shards, tensor) -> bytes at rest."""
    right = 12 * parameters / (shards * tensor)
    return compare(
        answer(mine, parameters, copies, shards, tensor),
        right,
        (right / copies, "copies hold the same; only shards and tensor "
         "parallelism make a part smaller"),
        (right / 3, "AdamW keeps two more numbers for every weight"),
        (right * 2 / 3, "AdamW keeps two means, of the gradient and of its "
         "square"),
        (right * tensor, "tensor parallelism deals the matrices out too"),
        (right * shards, "shards hold a part each"),
        (right / 2, "at rest everything is in 32 bits, four bytes a number"),
        (right * 4 / 3, "gradients are gone between steps"),
    )
