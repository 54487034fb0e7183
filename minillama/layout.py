"""How a model is spread over GPUs: one dataclass for plan and trainer.

Torch-free, so that the planner's flags and the trainer's are the same words.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass

from minillama.config import ModelConfig


@dataclass(frozen=True)
class Layout:
    """Who holds what: data x shard x tensor parallelism (section 2.4).

    GPUs are numbered so that those of one tensor-parallel group are
    neighbours, then those that share one set of weights, then the copies.

    Raises:
        ValueError: naming every field that is below 1.
    """

    dp_replicate: int = 1
    """Copies of the whole model that only average gradients."""
    dp_shard: int = 1
    """GPUs over which weights, gradients and optimiser are shared out."""
    tensor_parallel: int = 1
    """GPUs that work on one sequence, each with a part of every matrix."""
    sequence_parallel: bool = True
    """Share out norms and residual stream inside a tensor-parallel group."""
    micro_batch_size: int = 1
    """Sequences per forward pass of one data-parallel rank."""
    recompute: str = "none"
    """What the backward pass computes again (see recompute.py)."""

    def __post_init__(self) -> None:
        """Refuse what is no number of GPUs."""
        wrong = [f"{name}={getattr(self, name)} must be at least 1"
                 for name in ("dp_replicate", "dp_shard", "tensor_parallel",
                              "micro_batch_size") if getattr(self, name) < 1]
        if wrong:
            raise ValueError("Layout: " + "; ".join(wrong))

    @property
    def data_parallel(self) -> int:
        """Ranks that read different sequences."""
        return self.dp_replicate * self.dp_shard

    @property
    def world_size(self) -> int:
        """GPUs in all."""
        return self.data_parallel * self.tensor_parallel

    def misfits(self, model: ModelConfig, seq_len: int) -> list[str]:
        """What tensor parallelism cannot divide, and what it could.

        Args:
            model: its heads, columns and vocabulary are dealt out evenly.
            seq_len: T; sequence parallelism deals out positions.
        """
        from minillama.swiglu import ffn_hidden_dim  # which imports torch

        sizes = {"n_heads": model.n_heads, "n_kv_heads": model.kv_heads,
                 "ffn_dim": model.ffn_dim or ffn_hidden_dim(
                     model.dim, model.multiple_of),
                 "vocab_size": model.vocab_size}
        if self.sequence_parallel:
            sizes["seq_len"] = seq_len
        fits = [t for t in range(1, model.n_heads + 1)
                if not any(size % t for size in sizes.values())]
        return [f"tensor_parallel={self.tensor_parallel} does not divide "
                f"{name}={size}; try one of {fits}"
                for name, size in sizes.items() if size % self.tensor_parallel]
