"""Exercises of chapter 8: weights, mask, attention, tiles, shared heads.

Chapter: notebooks/08_attention.ipynb
"""

from __future__ import annotations

import math
from typing import Any

import torch

from minillama.attention import attend_eager, causal_mask
from minillama.checks import answer, compare, exercise
from minillama.tiled import tiles


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=draw))


def _row(draw: torch.Generator) -> dict[str, Any]:
    return {"q": 2 * torch.randn(8, generator=draw),
            "keys": torch.randn(5, 8, generator=draw)}


@exercise("08-attention-1", given=_row)
def weights(mine: Any, q: torch.Tensor, keys: torch.Tensor) -> str | None:
    """A function (q, keys) -> the weights of one query on all keys."""
    dots = keys @ q
    return compare(
        answer(mine, q, keys),
        (dots / math.sqrt(8)).softmax(0),
        (dots.softmax(0), "the scores are not divided by the square root of "
         "the head size"),
        ((dots / 8).softmax(0), "the scores are divided by the head size; "
         "its square root is enough"),
        (dots / math.sqrt(8), "these are the scores; the softmax makes them "
         "weights"),
        ((dots / math.sqrt(8)).exp(), "the powers must be divided by their "
         "sum, so that the weights sum to one"),
        ((dots / math.sqrt(8)).sigmoid(), "a sigmoid judges each key alone; "
         "the softmax lets the keys compete"),
    )


def _lengths(draw: torch.Generator) -> dict[str, Any]:
    queries = _whole(draw, 3, 12)
    return {"queries": queries, "keys": queries + _whole(draw, 2, 9)}


@exercise("08-attention-2", given=_lengths)
def mask(mine: Any, queries: int, keys: int) -> str | None:
    """A function (queries, keys) -> (T, S) tensor, True where t may look."""
    right = causal_mask(queries, keys)
    ones = torch.ones(queries, keys, dtype=torch.bool)
    return compare(
        answer(mine, queries, keys).to(torch.float64),
        right,
        (ones.tril(), "this counts from the first key; the queries are the "
         "LAST positions, so query 0 already sees keys - queries + 1 keys"),
        (~right, "True and False are the wrong way round"),
        (ones.tril(keys - queries - 1), "a query may look at its own "
         "position too"),
        (ones, "this lets every query see the future"),
        (right.flip(0), "the rows are upside down: later queries see more"),
    )


def _three(draw: torch.Generator) -> dict[str, Any]:
    q, k, v = torch.randn(3, 6, 4, generator=draw)
    return {"q": q, "k": k, "v": v}


@exercise("08-attention-3", given=_three)
def attention(
    mine: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> str | None:
    """A function (q, k, v) -> (T, K): causal attention of one head."""
    visible = causal_mask(6, 6)
    scores = q @ k.T / 2  # the root of K = 4
    hidden = scores.masked_fill(~visible, -math.inf)
    return compare(
        answer(mine, q, k, v),
        attend_eager(q[None, None], k[None, None], v[None, None],
                     causal=True)[0, 0],
        (scores.softmax(-1) @ v, "the mask is missing: every query sees the "
         "future"),
        (scores.softmax(-1) * visible @ v, "the mask comes after the "
         "softmax, so the rows no longer sum to one; hide scores before it"),
        ((scores * visible).softmax(-1) @ v, "a hidden score must be minus "
         "infinity; 0 still has the power e^0 = 1"),
        ((2 * hidden).softmax(-1) @ v, "the scores are not divided by the "
         "square root of the head size"),
        (hidden.softmax(-2).nan_to_num() @ v, "the softmax runs down the "
         "columns; each query's row must sum to one"),
        (hidden.softmax(-1) @ k, "the weighted sum is over the values, not "
         "the keys"),
    )


def _halves(draw: torch.Generator) -> dict[str, Any]:
    scores = 3 * torch.randn(2, 4, generator=draw)
    values = torch.randn(2, 4, generator=draw)
    # The second half holds the larger score in half of the variants only.
    m = scores.amax(1)
    w = (scores - m[:, None]).exp()
    return {"first": (m[0].item(), w[0].sum().item(),
                      (w[0] * values[0]).sum().item()),
            "second": (m[1].item(), w[1].sum().item(),
                       (w[1] * values[1]).sum().item())}


@exercise("08-attention-4", given=_halves)
def merge(mine: Any, first: tuple, second: tuple) -> str | None:
    """A function (first, second) -> (m, s, o) of both parts together."""
    (m1, s1, o1), (m2, s2, o2) = first, second
    m = max(m1, m2)
    a, b = math.exp(m1 - m), math.exp(m2 - m)
    return compare(
        answer(mine, first, second),
        [m, a * s1 + b * s2, a * o1 + b * o2],
        ([m, s1 + s2, o1 + o2], "both parts were measured from their own "
         "largest score; shrink them to the common one before adding"),
        ([m, a * s1 + b * s2, o1 + o2], "the sum is shrunk, but the output "
         "is not"),
        ([m1 + m2, s1 + s2, o1 + o2], "the largest of both is the larger "
         "one, not the sum"),
        ([m, s1 / a + s2 / b, o1 / a + o2 / b], "this stretches where it "
         "should shrink: the factor is e^(own largest - common largest)"),
        ([m, a * s1 + b * s2, (a * o1 + b * o2) / (a * s1 + b * s2)],
         "o is the sum before the division by s, so that a third part can "
         "still be added"),
    )


def _groups(draw: torch.Generator) -> dict[str, Any]:
    kv_heads = _whole(draw, 2, 9)
    return {"n_heads": kv_heads * _whole(draw, 2, 9), "n_kv_heads": kv_heads}


@exercise("08-attention-5", given=_groups)
def shared(mine: Any, n_heads: int, n_kv_heads: int) -> str | None:
    """A function (n_heads, n_kv_heads) -> per query head its key head."""
    share = n_heads // n_kv_heads
    return compare(
        answer(mine, n_heads, n_kv_heads),
        [head // share for head in range(n_heads)],
        ([head % n_kv_heads for head in range(n_heads)], "this deals the "
         "heads out in turn, as `repeat` does; neighbours share a key head, "
         "as with `repeat_interleave`"),
        ([0] * n_heads, "with one key head for all this is multi-query "
         "attention; here there are several, and each serves one group"),
        ([min(head, n_kv_heads - 1) for head in range(n_heads)],
         "the last key head would serve nearly all; share them out evenly"),
        ([min(head // n_kv_heads, n_kv_heads - 1)
          for head in range(n_heads)],
         "divide by the size of a group, n_heads / n_kv_heads, not by the "
         "number of groups"),
        ([head // n_kv_heads for head in range(n_heads)],
         "divide by the size of a group, n_heads / n_kv_heads, not by the "
         "number of groups"),
        tolerance=0.0,
    )


def _tiling(draw: torch.Generator) -> dict[str, Any]:
    tile = _whole(draw, 4, 9)
    queries = tile * _whole(draw, 3, 6) + _whole(draw, 1, 4)
    return {"queries": queries, "keys": queries + 2 * tile + 1, "tile": tile}


@exercise("08-attention-6", given=_tiling)
def visited(mine: Any, queries: int, keys: int, tile: int) -> str | None:
    """A function (queries, keys, tile) -> tiles that are computed."""
    rows, columns = math.ceil(queries / tile), math.ceil(keys / tile)
    whole_rows, whole_columns = queries // tile, keys // tile
    floor = sum(min(whole_columns, ((r + 1) * tile - 1 + keys - queries)
                    // tile + 1) for r in range(whole_rows))
    return compare(
        answer(mine, queries, keys, tile),
        sum(1 for _ in tiles(queries, keys, tile, True)),
        (rows * columns, "these are all tiles; those wholly above the "
         "diagonal are left out"),
        (rows * (rows + 1) // 2, "this is right without a cache; the queries "
         "are the last positions, and look at all earlier keys too"),
        (whole_rows * (whole_rows + 1) // 2, "the last row of tiles is "
         "narrower, but it is there: round up"),
        (floor, "the last row of tiles is narrower, but it is there: round "
         "up"),
        (queries * (queries + 1) // 2, "these are cells of the triangle, not "
         "tiles"),
        tolerance=0.0,
    )
