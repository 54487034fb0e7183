"""Attention by tiles: the same result, and the big matrix never stored.

The T x S matrix of scores is computed in square tiles. Each row of tiles is
swept once with the online softmax (Milakov and Gimelshein 2018), which keeps
a running maximum, a running sum and a running output, so that no tile is
needed again. The backward pass computes every tile anew from q, k and one
number a row, the log-sum-exp (Dao et al. 2022). This is the idea behind the
xformers operator of the paper (section 2.4), written to be read; PyTorch's
fused kernel runs it on the chip.

Chapter: notebooks/08_attention.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

TILE = 128
"""Rows and columns of a tile unless told otherwise."""


class Tile(NamedTuple):
    """One square of the score matrix: rows of queries, columns of keys."""

    rows: slice
    """Which queries."""
    columns: slice
    """Which keys."""
    shift: int | None
    """Row i of the tile sees columns up to i + shift; None: all of them."""


def tiles(queries: int, keys: int, tile: int, causal: bool) -> Iterator[Tile]:
    """The tiles that hold at least one visible score, row by row.

    Query t stands at position t + (keys - queries). Tiles that lie wholly
    above the diagonal are left out: with as many queries as keys, n tiles a
    side and a causal mask, n (n + 1) / 2 of n^2 remain.
    """
    offset = keys - queries
    for first in range(0, queries, tile):
        last = min(first + tile, queries)
        for left in range(0, keys, tile):
            right = min(left + tile, keys)
            if causal and left > last - 1 + offset:
                break
            # Whole when even the first row sees the last column.
            whole = not causal or right - 1 <= first + offset
            yield Tile(slice(first, last), slice(left, right),
                       None if whole else first + offset - left)


def attend_tiled(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    *,
    causal: bool,
    tile: int = TILE,
) -> Float[Tensor, "B H T K"]:
    """Attention whose memory grows with T, not with T times S.

    Args:
        q: queries; the last T of the S positions.
        k: keys, as many heads as q.
        v: values.
        causal: whether query t sees keys up to its own position only.
        tile: rows and columns of a tile; changes speed and memory alone.

    Returns:
        (B, H, T, K) in the dtype of q.

    Raises:
        ValueError: if tile is below 1.

    Source: Dao et al. 2022, algorithms 1 and 4.
    Chapter: notebooks/08_attention.ipynb
    """
    if tile < 1:
        raise ValueError(f"tile={tile} must be at least 1; try {TILE}")
    return TiledAttention.apply(q, k, v, causal, tile)


class TiledAttention(torch.autograd.Function):
    """Forward and backward by tiles.

    Kept for the backward pass: q, k, v, the output and one log-sum-exp a
    row. Computed in at least float32.

    Chapter: notebooks/08_attention.ipynb
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, tile: int
    ) -> Tensor:
        """The output, row of tiles after row of tiles."""
        # Autocast would send the products of float32 tiles through 16 bits.
        with torch.autocast(q.device.type, enabled=False):
            out, log_sum = forward_tiles(q, k, v, causal, tile)
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, log_sum)
        ctx.causal, ctx.tile = causal, tile
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v; each tile is computed once more."""
        q, k, v, out, log_sum = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            grads = backward_tiles(
                q, k, v, out, log_sum, grad, ctx.causal, ctx.tile)
        return (*(g.to(x.dtype) for g, x in zip(grads, (q, k, v))), None, None)


def forward_tiles(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    causal: bool,
    tile: int,
) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T 1"]]:
    """Output and log-sum-exp of every row, by the online softmax.

    With m the largest score so far, s the sum of e^(score - m) and o the sum
    of e^(score - m) v, a new tile of scores c changes them to

        m' = max(m, max c)
        s' = e^(m - m') s + sum e^(c - m')
        o' = e^(m - m') o + e^(c - m') v

    and at the end the output is o / s, the log-sum-exp m + ln s.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    out = q.new_zeros(q.shape, dtype=wide)
    total = q.new_zeros((*q.shape[:-1], 1), dtype=wide)
    largest = torch.full_like(total, -math.inf)
    for part in tiles(q.shape[2], k.shape[2], tile, causal):
        rows = part.rows
        scores = tile_scores(q, k, part, wide)
        before = largest[:, :, rows]
        now = torch.maximum(before, scores.amax(-1, keepdim=True))
        shrink = (before - now).exp()
        weights = (scores - now).exp()
        largest[:, :, rows] = now
        total[:, :, rows] = shrink * total[:, :, rows] + weights.sum(
            -1, keepdim=True)
        out[:, :, rows] = shrink * out[:, :, rows] + (
            weights @ v[:, :, part.columns].to(wide))
    return out / total, largest + total.log()


def tile_scores(q: Tensor, k: Tensor, part: Tile, wide: torch.dtype) -> Tensor:
    """q k^T / sqrt(K) on one tile, minus infinity where it is hidden."""
    scores = q[:, :, part.rows].to(wide) @ k[:, :, part.columns].to(
        wide).transpose(-2, -1) / math.sqrt(q.shape[-1])
    if part.shift is None:
        return scores
    ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device)
    return scores.masked_fill(~ones.tril(part.shift), -math.inf)


def backward_tiles(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_sum: Tensor,
    grad: Tensor,
    causal: bool,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from the gradient of the output.

    On each tile the weights are p = e^(score - log-sum-exp) again, and

        dv += p^T do;  dp = do v^T;  dc = p (dp - rowsum(do o))
        dq += dc k / sqrt(K);  dk += dc^T q / sqrt(K)

    The row sum stands for sum_j p_j dp_j, the softmax's coupling of a whole
    row, which no single tile could know.
    """
    wide = log_sum.dtype
    grad, scale = grad.to(wide), 1 / math.sqrt(q.shape[-1])
    coupling = (grad * out.to(wide)).sum(-1, keepdim=True)  # (B, H, T, 1)
    dq, dk, dv = (torch.zeros_like(x, dtype=wide) for x in (q, k, v))
    for part in tiles(q.shape[2], k.shape[2], tile, causal):
        rows, columns = part.rows, part.columns
        do = grad[:, :, rows]
        p = (tile_scores(q, k, part, wide) - log_sum[:, :, rows]).exp()
        dp = do @ v[:, :, columns].to(wide).transpose(-2, -1)
        dc = p * (dp - coupling[:, :, rows]) * scale
        dv[:, :, columns] += p.transpose(-2, -1) @ do
        dq[:, :, rows] += dc @ k[:, :, columns].to(wide)
        dk[:, :, columns] += dc.transpose(-2, -1) @ q[:, :, rows].to(wide)
    return dq, dk, dv
