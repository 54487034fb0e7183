"""RoPE: turn queries and keys by their position (paper, section 2.2).

Neighbouring components (0, 1), (2, 3), ... form the pairs, as in the released
LLaMA code. Hugging Face pairs component j with j + K/2; only
`minillama.weights` knows how to go from one to the other.

Chapter: notebooks/07_rope.ipynb
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from minillama.config import RopeScaling


def frequencies(
    head_dim: int, theta: float = 10000.0, scaling: RopeScaling | None = None
) -> Float[Tensor, "half"]:
    """theta_j = theta^(-2j / K) for j = 0 .. K/2 - 1, in float64.

    Args:
        head_dim: K, even.
        theta: base of the frequencies; 10,000 in LLaMA.
        scaling: stretching of later Llamas, or None.

    Returns:
        (K/2,) radians per position.

    Raises:
        ValueError: if head_dim is odd or not positive.

    Chapter: notebooks/07_rope.ipynb
    """
    if head_dim < 2 or head_dim % 2:
        raise ValueError(
            f"head_dim={head_dim} must be even, because RoPE turns pairs; "
            f"try {max(2, head_dim + 1)}")
    # MPS has no float64: the table is always made on the CPU.
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu")
    freqs = theta ** (-exponent / head_dim)
    if scaling is None:
        return freqs
    if scaling.kind == "linear":
        return freqs / scaling.factor
    # llama3: slow waves are stretched, fast ones kept, those between mixed.
    turns = scaling.original_max_seq_len * freqs / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return freqs * (keep + (1 - keep) / scaling.factor)


def angles(
    head_dim: int,
    length: int,
    theta: float = 10000.0,
    scaling: RopeScaling | None = None,
    *,
    start: int = 0,
) -> Float[Tensor, "T half"]:
    """The angle m * theta_j of every position m and pair j.

    Args:
        head_dim: K, even.
        length: T, the number of positions.
        theta: base of the frequencies.
        scaling: stretching of later Llamas, or None.
        start: the first position.

    Returns:
        (T, K/2) radians, float64 on the CPU.

    Chapter: notebooks/07_rope.ipynb
    """
    positions = torch.arange(
        start, start + length, dtype=torch.float64, device="cpu")
    return torch.outer(positions, frequencies(head_dim, theta, scaling))


def rotate(
    x: Float[Tensor, "*B T K"],
    cos: Float[Tensor, "T half"],
    sin: Float[Tensor, "T half"],
) -> Float[Tensor, "*B T K"]:
    """Turn each pair of x, given the cosines and sines of its angles.

    A pair (a, b) is the complex number a + ib, and turning it is one
    multiplication by cos + i sin: on a CPU several times faster than the
    four real products and two sums, each of which walks through memory.
    torch.compile fuses those six into one walk, and knows no complex numbers.
    Computed in at least float32, returned in the dtype of x.
    """
    wide = x.to(torch.promote_types(x.dtype, cos.dtype))
    pairs = wide.unflatten(-1, (-1, 2))  # (..., T, K/2, 2)
    if torch.compiler.is_compiling() or not _complex_in_memory(wide):
        a, b = pairs.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:
        turned = torch.view_as_real(
            torch.view_as_complex(pairs) * torch.complex(cos, sin))
    return turned.flatten(-2).to(x.dtype)


def _complex_in_memory(x: Tensor) -> bool:
    """Whether the pairs of x lie as complex numbers do; a slice may not."""
    return (x.stride(-1) == 1 and x.storage_offset() % 2 == 0
            and all(stride % 2 == 0 for stride in x.stride()[:-1]))


def apply(
    x: Float[Tensor, "*B T K"], angles: Float[Tensor, "T half"]
) -> Float[Tensor, "*B T K"]:
    """Turn pair j of the vector at position m by the angle m * theta_j.

    (x_2j, x_2j+1) -> (x_2j cos a - x_2j+1 sin a, x_2j sin a + x_2j+1 cos a),
    equation 34 of Su et al. 2021. Lengths are kept, and the dot product of a
    turned query and a turned key depends on the difference of their positions
    alone.

    Args:
        x: queries or keys.
        angles: from `angles(K, T)`.

    Returns:
        (..., T, K) in the dtype of x; float64 is computed in float64, all
        else in float32.

    Chapter: notebooks/07_rope.ipynb
    """
    return rotate(x, *tables(angles, x))


def tables(
    angles: Float[Tensor, "T half"], like: Tensor
) -> tuple[Float[Tensor, "T half"], Float[Tensor, "T half"]]:
    """Cosines and sines, on the device and of the type of `like`."""
    wide = torch.promote_types(like.dtype, torch.float32)
    return (angles.cos().to(like.device, wide),
            angles.sin().to(like.device, wide))
