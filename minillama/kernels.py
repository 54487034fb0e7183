"""Which kernel computes attention: the choice, shared heads, xformers.

A fused kernel is picky. The same call runs FlashAttention on an A100, another
kernel in half precision on a T4, and the formula with its big matrix where
neither fits. What may run where is decided here; `attention.py` holds the
mathematics, `profiling.kernels` says afterwards what ran.

Chapter: notebooks/12_efficiency.ipynb
"""

from __future__ import annotations

import importlib.util
import logging

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend


def takes_shared_heads(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    causal: bool,
) -> bool:
    """Whether a fused kernel reads one key head for several query heads.

    PyTorch is asked which kernel it would take with `enable_gqa`. If that is
    the formula, which stores the T x S scores (as on a T4, or in fp32 on any
    GPU), keys and values are better repeated first, so that a fused kernel
    takes them. The same where the mask is not the plain triangle, and where
    nobody can be asked: under torch.compile, and for fake tensors.
    """
    triangle = causal and q.shape[2] == k.shape[2]
    if not triangle or torch.compiler.is_compiling() or type(q) is not Tensor:
        return False
    choice = torch._fused_sdp_choice(q, k, v, is_causal=True, enable_gqa=True)
    return choice not in (SDPBackend.MATH.value, SDPBackend.ERROR.value)


def attend_xformers(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    *,
    causal: bool,
) -> Float[Tensor, "B H T K"]:
    """The operator that LLaMA was trained with: xformers' (section 2.4).

    Raises:
        ValueError: without xformers, or off a GPU it has a kernel for.

    Source: xformers' `memory_efficient_attention`, shapes (B, T, H, K).
    Chapter: notebooks/12_efficiency.ipynb
    """
    if importlib.util.find_spec("xformers") is None:
        raise ValueError(
            "backend='xformers' needs the package xformers, which is not "
            'installed; try backend="auto", or pip install '
            '"minillama[xformers]" on a machine with an NVIDIA GPU')
    if not q.is_cuda:
        raise ValueError(
            f"backend='xformers' has no kernel for device={q.device.type!r}, "
            "only for NVIDIA GPUs; try backend='auto'")
    # It complains in the log about every extra that is missing.
    logging.getLogger("xformers").setLevel(logging.ERROR)
    from xformers.ops import LowerTriangularMask, fmha

    mask = None
    if causal and q.shape[2] > 1:  # the last query may see every key
        mask = (LowerTriangularMask() if q.shape[2] == k.shape[2] else
                fmha.attn_bias.LowerTriangularFromBottomRightMask())
    try:
        out = fmha.memory_efficient_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), attn_bias=mask)
    except NotImplementedError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"backend='xformers' has no kernel here ({reason}); try "
            "backend='auto'") from error
    return out.transpose(1, 2)
