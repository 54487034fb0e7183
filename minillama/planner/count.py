"""Parameters and operations, under the name of each convention.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from minillama.config import ModelConfig
from minillama.model import Transformer, flops_per_token


@dataclass(frozen=True)
class Sizes:
    """Parameters of one shape, by what parallelism does with them."""

    block: int
    """Matrices of one layer: dealt out by tensor parallelism."""
    block_norms: int
    """Norm weights of one layer: every GPU of a tensor group has them."""
    ends: int
    """Embedding and output: dealt out by the vocabulary."""
    norm: int
    """The last norm."""
    layers: int
    """Layers."""

    def local(self, tensor_parallel: int) -> float:
        """Parameters on one GPU of a tensor-parallel group."""
        matrices = self.layers * self.block + self.ends
        return (matrices / tensor_parallel + self.norm
                + self.layers * self.block_norms)


def sizes(config: ModelConfig) -> Sizes:
    """Counted on the real model, of which one layer is built, on `meta`.

    Chapter: notebooks/13_scaling.ipynb
    """
    with torch.device("meta"):
        model = Transformer(replace(config, n_layers=1))
    found = {1: 0, 2: 0}  # parameters of vectors and of matrices
    for weight in model.layers[0].parameters():
        found[weight.ndim] += weight.numel()
    everything = sum(weight.numel() for weight in model.parameters())
    norm = model.norm.weight.numel()
    return Sizes(found[2], found[1], everything - norm - sum(found.values()),
                 norm, config.n_layers)


def flops_by_convention(config: ModelConfig, seq_len: int) -> dict[str, int]:
    """Operations to train on one token, as different papers count them.

    Returns:
        `6N`: six for each parameter, embedding included, attention left out
        (Kaplan et al. 2020, as most quote it). `6N + 12LDT`: with the whole
        square of attention scores (Chowdhery et al. 2022, appendix B).
        `work`: what has to be computed (`model.flops_per_token`): no
        embedding, and half the square, because the mask hides the rest.

    Chapter: notebooks/13_scaling.ipynb
    """
    six_n = 6 * int(sizes(config).local(1))
    square = 12 * config.n_layers * config.dim * seq_len
    return {"6N": six_n, "6N + 12LDT": six_n + square,
            "work": flops_per_token(config, seq_len)}


def utilisation(
    config: ModelConfig, seq_len: int, tokens_per_s: int | float, peak: float
) -> dict[str, float]:
    """MFU by convention, for tokens a second of one GPU.

    Chapter: notebooks/13_scaling.ipynb
    """
    return {name: tokens_per_s * flops / peak for name, flops
            in flops_by_convention(config, seq_len).items()}
