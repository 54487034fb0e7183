"""RMSNorm: divide a vector by its root mean square (paper, section 2.2).

Chapter: notebooks/05_rmsnorm.ipynb
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019).

    y = x / sqrt(mean(x^2) + eps) * weight, over the last axis. The statistics
    are computed in at least float32; the weight is applied after the result
    has been cast back to the input's type, as in the released code.

    Args:
        dim: D, the size of the last axis.
        eps: added to the mean square; keeps a zero vector finite.

    Shapes:
        x: (..., D) -> (..., D), in the dtype of x.

    Chapter: notebooks/05_rmsnorm.ipynb
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Normalise the last axis of x."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean_square = wide.square().mean(dim=-1, keepdim=True)
        normed = wide * torch.rsqrt(mean_square + self.eps)
        return normed.to(x.dtype) * self.weight
