"""Causal attention: who may look at whom (paper, section 2.2).

Shapes by the book's legend: B batch, H query heads, G key/value heads, T query
positions, S key positions, K head size. With a cache S > T, and the queries
are the last T of the S positions.

Chapter: notebooks/08_attention.ipynb
"""

from __future__ import annotations

import functools
import math
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from minillama.kernels import attend_xformers, takes_shared_heads

Backend = Literal["auto", "eager", "tiled", "sdpa", "xformers"]


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    causal: bool = True,
    backend: Backend = "auto",
) -> Float[Tensor, "B H T K"]:
    """softmax(q k^T / sqrt(K)) v, each query blind to later keys.

    Args:
        q: queries; the last T of the S positions.
        k: keys; G divides H, and H / G query heads share one key head.
        v: values.
        causal: whether query t sees keys up to its own position only.
        backend: `eager` writes the formula out and stores the T x S matrix;
            `tiled` never stores it (`minillama/tiled.py`); `sdpa` calls
            PyTorch's fused kernel; `xformers` the operator of the paper, an
            optional package for NVIDIA GPUs; `auto` is `sdpa`.

    Returns:
        (B, H, T, K) in the dtype of q.

    Raises:
        ValueError: for an unknown or absent backend, head counts that do not
            divide, or more queries than keys under a causal mask.

    Source: Vaswani et al. 2017, equation 1.
    Chapter: notebooks/08_attention.ipynb
    """
    heads, groups = q.shape[1], k.shape[1]
    if heads % groups:
        raise ValueError(
            f"n_heads={heads} is not a multiple of n_kv_heads={groups}; "
            f"try n_kv_heads={math.gcd(heads, groups)}")
    if causal and q.shape[2] > k.shape[2]:
        raise ValueError(
            f"{q.shape[2]} queries but {k.shape[2]} keys: causal queries are "
            "the last of the key positions; pass at least as many keys")
    if backend == "auto":
        backend = "sdpa"
    if groups < heads and not (backend == "sdpa" and takes_shared_heads(
            q, k, v, causal=causal)):
        k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
    if backend == "eager":
        return attend_eager(q, k, v, causal=causal)
    if backend == "tiled":
        from minillama.tiled import attend_tiled
        return attend_tiled(q, k, v, causal=causal)
    if backend == "sdpa":
        return attend_sdpa(q, k, v, causal=causal)
    if backend == "xformers":
        return attend_xformers(q, k, v, causal=causal)
    raise ValueError(
        f"backend={backend!r} is unknown; try one of {get_args(Backend)}")


def causal_mask(
    queries: int, keys: int, device: torch.device | None = None
) -> Bool[Tensor, "T S"]:
    """True where query t may see key s: s <= t + (keys - queries)."""
    ones = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return ones.tril(diagonal=keys - queries)


def attend_eager(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    *,
    causal: bool,
) -> Float[Tensor, "B H T K"]:
    """The formula as it stands: scores, mask, softmax, weighted sum."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    if causal:
        visible = causal_mask(q.shape[2], k.shape[2], q.device)
        scores = scores.masked_fill(~visible, -math.inf)
    wide = torch.promote_types(q.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide)
    return weights.to(q.dtype) @ v


def attend_sdpa(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    causal: bool,
) -> Float[Tensor, "B H T K"]:
    """PyTorch's fused kernel, which never stores the T x S matrix."""
    queries, keys = q.shape[2], k.shape[2]
    kernel = functools.partial(F.scaled_dot_product_attention, q, k, v,
                               enable_gqa=k.shape[1] < q.shape[1])
    if not causal or queries == 1:  # one query, the last, may see every key
        return kernel()
    if queries == keys:
        return kernel(is_causal=True)
    # is_causal aligns the mask to the first key; ours ends at the last one.
    return kernel(attn_mask=causal_mask(queries, keys, q.device))
