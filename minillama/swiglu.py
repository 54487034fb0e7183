"""SwiGLU: the gated feed-forward layer (paper, section 2.2).

Chapter: notebooks/06_swiglu.ipynb
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def ffn_hidden_dim(dim: int, multiple_of: int = 256) -> int:
    """F, the feed-forward width: 2/3 of 4 * dim, rounded up.

    SwiGLU has three matrices where ReLU has two; 2/3 of the width keeps the
    number of parameters. The release rounds up to `multiple_of` for the
    hardware's sake: 4,096 -> 10,922 -> 11,008.

    Args:
        dim: D, the width of the residual stream.
        multiple_of: the result is a multiple of this.

    Chapter: notebooks/06_swiglu.ipynb
    """
    two_thirds = 2 * (4 * dim) // 3
    return -(-two_thirds // multiple_of) * multiple_of


class SwiGLU(nn.Module):
    """Gated feed-forward layer without biases (Shazeer 2020).

    y = w_down(silu(w_gate x) * w_up x)

    Args:
        dim: D, the width of the residual stream.
        hidden_dim: F, the width inside.

    Shapes:
        x: (..., D) -> (..., D).

    Chapter: notebooks/06_swiglu.ipynb
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w_gate = nn.Linear(dim, hidden_dim, bias=False)
        self.w_up = nn.Linear(dim, hidden_dim, bias=False)
        self.w_down = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Apply the layer to the last axis of x."""
        return self.w_down(F.silu(self.w_gate(x)) * self.w_up(x))
