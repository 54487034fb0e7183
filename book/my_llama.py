"""Your own LLaMA, judged by the tests of the book.

Copy this file to wherever you like, replace a body, and run

    python run.py test --mine my_llama.py

Delete what you have not written yet: a name that is missing is skipped. The
letters are those of the notation page: B batch, T time, D model, H heads, K
head size, F feed-forward, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root mean square normalisation with a parameter `weight` of shape (D,).

    Chapter: notebooks/05_rmsnorm.ipynb
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        raise NotImplementedError("RMSNorm is yours to write")

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), in the dtype of x."""
        raise NotImplementedError("RMSNorm is yours to write")


class SwiGLU(nn.Module):
    """Feed-forward layer; linear layers `w_gate`, `w_up`, `w_down`.

    Chapter: notebooks/06_swiglu.ipynb
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        raise NotImplementedError("SwiGLU is yours to write")

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        raise NotImplementedError("SwiGLU is yours to write")


def rope(x: Tensor, angles: Tensor) -> Tensor:
    """Turn neighbouring pairs of x, (..., T, K), by the angles, (T, K/2).

    Chapter: notebooks/07_rope.ipynb
    """
    raise NotImplementedError("rope is yours to write")


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True) -> Tensor:
    """softmax(q k^T / sqrt(K)) v for q (B, H, T, K), k and v (B, G, S, K).

    G divides H: later Llamas let H / G queries share one key. With fewer
    queries than keys (T < S) the queries are the last ones.

    Chapter: notebooks/08_attention.ipynb
    """
    raise NotImplementedError("attend is yours to write")


class Transformer(nn.Module):
    """The whole model, from token ids to logits.

    It is made from a `minillama.config.ModelConfig`, and its parameters have
    the names of `minillama.model.Transformer`, so that weights can be loaded
    from there.

    Chapter: notebooks/09_model.ipynb
    """

    def __init__(self, config: object) -> None:
        super().__init__()
        raise NotImplementedError("Transformer is yours to write")

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, V) logits."""
        raise NotImplementedError("Transformer is yours to write")
