"""AdamW, its schedule and its clipping (paper, section 2.3).

The trainer uses PyTorch's fused AdamW; the class here is for reading, and a
test holds the two equal.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017).

    m <- beta1 m + (1 - beta1) g          mean gradient
    v <- beta2 v + (1 - beta2) g^2        mean squared gradient
    p <- p - lr weight_decay p            decay, not part of the gradient
    p <- p - lr m^ / (sqrt(v^) + eps)     m^ = m / (1 - beta1^t), v^ likewise

    Args:
        params: parameters or groups, as for any PyTorch optimiser.
        lr: learning rate.
        betas: (0.9, 0.95) in the paper, where PyTorch's default is 0.999.
        eps: not stated in the paper; 1e-8 is customary.
        weight_decay: 0.1 in the paper.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Update every parameter that has a gradient."""
        assert closure is None, "the trainer computes the loss itself"
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        (beta1, beta2), lr = group["betas"], group["lr"]
        m = state["m"].mul_(beta1).add_(g, alpha=1 - beta1)
        v = state["v"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        m_hat = m / (1 - beta1 ** state["step"])
        v_hat = v / (1 - beta2 ** state["step"])
        p.mul_(1 - lr * group["weight_decay"])
        p.sub_(lr * m_hat / (v_hat.sqrt() + group["eps"]))


def decay_groups(
    model: nn.Module, weight_decay: float
) -> list[dict[str, Any]]:
    """Two parameter groups: matrices decay, norm weights do not.

    Chapter: notebooks/10_training.ipynb
    """
    weights = list(model.parameters())
    return [
        {"params": [p for p in weights if p.ndim >= 2],
         "weight_decay": weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]


def cosine_lr(
    step: int,
    *,
    max_lr: float,
    warmup_steps: int,
    total_steps: int,
    final_ratio: float = 0.1,
) -> float:
    """Learning rate of one step: linear warm-up, then half a cosine.

    Args:
        step: counted from 1 in training; 0 gives 0 if there is a warm-up.
        max_lr: reached at step `warmup_steps`.
        warmup_steps: 2,000 in the paper.
        total_steps: where the cosine ends; later steps stay at the end.
        final_ratio: last over highest learning rate, 0.1 in the paper.

    Raises:
        ValueError: if the warm-up is as long as the run.

    Chapter: notebooks/10_training.ipynb
    """
    if warmup_steps and warmup_steps >= total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} leaves nothing of steps="
            f"{total_steps}; try warmup_steps={total_steps // 10}")
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return max_lr * (final_ratio + (1 - final_ratio) * cosine)


@torch.no_grad()
def clip_grad_norm(
    parameters: Iterable[Tensor], max_norm: float
) -> Float[Tensor, ""]:
    """Shrink all gradients together so that their joint norm fits.

    g <- g * min(1, max_norm / ||g||), the norm taken over all parameters
    (Pascanu et al. 2013); 1.0 in the paper.

    Returns:
        The norm before clipping.

    Chapter: notebooks/10_training.ipynb
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    total = torch.stack([g.norm() for g in grads]).norm()
    scale = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(scale)
    return total
