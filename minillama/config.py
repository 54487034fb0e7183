"""Every setting of the project, once: model shapes, training, generation.

This module does not import torch, so that `minillama --help` answers at once.
The named shapes and their settings stand in `presets.py`.

Chapter: notebooks/09_model.ipynb
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from minillama.fields import above_zero, below_one, refuse

PresetName = Literal[
    "mini", "toy", "15M", "110M", "1.1B", "7B", "13B", "33B", "65B"
]
DTypeName = Literal["auto", "fp32", "bf16", "fp16"]
RecomputeName = Literal["none", "selective", "linear", "by_hand", "full"]


@dataclass(frozen=True)
class RopeScaling:
    """How later Llamas stretch RoPE beyond the length they were trained at."""

    kind: Literal["linear", "llama3"] = "llama3"
    """`linear` divides every frequency; `llama3` only the slow ones."""
    factor: float = 8.0
    """By how much the slowest frequencies are divided."""
    low_freq_factor: float = 1.0
    """Waves longer than original_max_seq_len / this are divided in full."""
    high_freq_factor: float = 4.0
    """Waves shorter than original_max_seq_len / this stay as they are."""
    original_max_seq_len: int = 8192
    """The context length before stretching, in tokens."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one LLaMA (paper, section 2.2 and Table 2).

    Raises:
        ValueError: naming every field that does not fit, and what would.
    """

    dim: int = 4096
    """D, the width of the residual stream."""
    n_layers: int = 32
    """L, the number of transformer blocks."""
    n_heads: int = 32
    """H, the number of query heads; head size K is dim / n_heads."""
    n_kv_heads: int | None = None
    """Key/value heads; None means n_heads, as in all four paper models."""
    ffn_dim: int | None = None
    """F, the feed-forward width; None applies the 2/3 * 4 * dim rule."""
    multiple_of: int = 256
    """The 2/3 * 4 * dim rule rounds F up to a multiple of this."""
    vocab_size: int = 32000
    """V, the number of tokenizer pieces."""
    max_seq_len: int = 2048
    """T, the longest sequence in tokens."""
    norm_eps: float = 1e-6
    """Added to the mean square inside RMSNorm (65B: 1e-5)."""
    rope_theta: float = 10000.0
    """Base of the RoPE frequencies."""
    rope_scaling: RopeScaling | None = None
    """Stretching of RoPE in later Llamas; None in the paper."""
    tie_embeddings: bool = False
    """Whether the output projection reuses the embedding; False in LLaMA."""

    def __post_init__(self) -> None:
        """Collect every problem, then refuse once."""
        sizes = ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim",
                 "multiple_of", "vocab_size", "max_seq_len")
        problems = below_one(self, sizes)
        if not problems and self.dim % (2 * self.n_heads):
            problems.append(
                f"dim={self.dim} must be a multiple of 2 * n_heads="
                f"{2 * self.n_heads} (RoPE turns pairs); try dim="
                f"{-(-self.dim // (2 * self.n_heads)) * 2 * self.n_heads}"
            )
        if not problems and self.n_heads % self.kv_heads:
            fits = [k for k in range(1, self.n_heads + 1)
                    if self.n_heads % k == 0]
            problems.append(
                f"n_kv_heads={self.n_kv_heads} must divide n_heads="
                f"{self.n_heads}; try one of {fits}"
            )
        problems += above_zero(self, ("norm_eps", "rope_theta"))
        refuse("ModelConfig", problems)

    @property
    def head_dim(self) -> int:
        """K, the size of one head."""
        return self.dim // self.n_heads

    @property
    def kv_heads(self) -> int:
        """The number of key/value heads, resolved."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> ModelConfig:
        """A named shape, with single fields overridden.

        Args:
            name: one of `PresetName`, from `mini` (0.94M) to `65B`.
            **overrides: fields of this class.
        """
        from minillama.presets import preset

        return replace(preset(name)[0], **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; unknown or missing names are refused."""
        if odd := sorted({f.name for f in fields(cls)} ^ set(values)):
            raise ValueError(
                f"ModelConfig: fields {odd} are unknown or missing; the file "
                "was written by another version or is not a model config"
            )
        scaling = values["rope_scaling"]
        if scaling is not None:
            values = {**values, "rope_scaling": RopeScaling(**scaling)}
        return cls(**values)


@dataclass(frozen=True)
class TrainConfig:
    """One training run (paper, section 2.3 and Table 2).

    Raises:
        ValueError: naming every field that does not fit, and what would.
    """

    model: ModelConfig
    """The shape to train; choosing a preset sets it."""
    preset: PresetName = "toy"
    """The one dial: sets every other default of this command."""
    data: Path | None = None
    """A text file or folder, or a folder of shards; None: the plays."""
    out: Path = Path("runs/toy")
    """Folder for checkpoints, metrics.jsonl, the loss curve and samples."""
    steps: int = 1000
    """Optimiser steps in the whole run."""
    batch_size: int = 32
    """Sequences per optimiser step, over all micro-batches and ranks."""
    micro_batch_size: int | None = None
    """Sequences per forward pass and rank; None: the whole share at once."""
    max_lr: float = 3e-4
    """Peak learning rate; the schedule ends at a tenth of it."""
    warmup_steps: int = 2000
    """Steps of linear climb from 0; a tenth of a run that is no longer."""
    weight_decay: float = 0.1
    """AdamW's decoupled decay, on matrices only."""
    beta1: float = 0.9
    """AdamW's decay of the mean gradient."""
    beta2: float = 0.95
    """AdamW's decay of the mean squared gradient."""
    grad_clip: float = 1.0
    """Largest global gradient norm."""
    seed: int = 1
    """Seed of the initial weights, the order of the data and the samples."""
    dtype: DTypeName = "auto"
    """Precision of the matrix products; weights stay in fp32."""
    device: str = "auto"
    """`cuda`, `mps`, `cpu`, or `auto` for the first of these present."""
    recompute: RecomputeName = "none"
    """What layers keep for the backward pass: all, linear outputs, input."""
    compile: bool = False
    """Compile the model with torch.compile (a minute of start-up)."""
    deterministic: bool = False
    """Refuse operations that differ from run to run (slower on CUDA)."""
    dp_replicate: int = 1
    """Copies of the whole model, each reading its share of the batch."""
    dp_shard: int | None = None
    """Processes that share out one copy (FSDP); None: all that are left."""
    tensor_parallel: int = 1
    """Processes that share every matrix product."""
    sequence_parallel: bool = True
    """Whether they also share the sequence, between the products."""
    async_tensor_parallel: bool = True
    """With `compile`, whether GPUs of one machine send while multiplying."""
    timeout: float = 120.0
    """Seconds that one process waits for the others before it gives up."""
    log_every: int = 50
    """Steps between printed lines; metrics.jsonl always has every step."""
    eval_every: int = 250
    """Steps between validation losses and samples; 0: only at the end."""
    eval_tokens: int = 65536
    """Validation tokens scored each time; the final one scores them all."""
    checkpoint_every: int = 250
    """Steps between checkpoints; one is always written at the end."""
    keep_last: int = 2
    """Checkpoints kept; older ones are deleted."""
    resume: bool = False
    """Continue the run in `out` from its last checkpoint."""
    init_from: Path | None = None
    """Start from the weights of another run instead of random ones."""
    sample_prompt: str = "KING HENRY"
    """Prompt of the samples drawn while training."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Where to send metrics besides metrics.jsonl."""

    def __post_init__(self) -> None:
        """Collect every problem, then refuse once."""
        problems = below_one(self, (
            "steps", "batch_size", "micro_batch_size", "log_every",
            "checkpoint_every", "keep_last", "eval_tokens", "dp_replicate",
            "dp_shard", "tensor_parallel"))
        micro = self.micro_batch_size
        if micro and self.batch_size % micro:
            fits = [m for m in range(1, self.batch_size + 1)
                    if self.batch_size % m == 0]
            problems.append(
                f"micro_batch_size={micro} must divide batch_size="
                f"{self.batch_size}; try one of {fits}")
        problems += above_zero(self, ("max_lr", "grad_clip", "timeout"))
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(
                    f"{name}={getattr(self, name)} must be in [0, 1)")
        for name in ("weight_decay", "warmup_steps", "eval_every"):
            if getattr(self, name) < 0:
                problems.append(
                    f"{name}={getattr(self, name)} must not be negative")
        refuse("TrainConfig", problems)
        if self.warmup_steps >= self.steps:
            object.__setattr__(self, "warmup_steps", self.steps // 10)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> TrainConfig:
        """The preset's model and settings, with single fields overridden."""
        from minillama.presets import preset

        model, training = preset(name)
        return cls(**{"model": model, "preset": name,
                      "out": Path("runs") / name, **training, **overrides})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        values = asdict(self)
        return {k: v.as_posix() if isinstance(v, Path) else v
                for k, v in values.items()}


@dataclass(frozen=True)
class GenerateConfig:
    """How text is drawn from a trained model."""

    checkpoint: Path | None = None
    """Folder that `train --out` wrote; None: the model in the package."""
    prompt: str = "KING HENRY"
    """The text to continue."""
    max_new_tokens: int = 200
    """Tokens to add to the prompt."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token every time."""
    top_p: float = 0.95
    """Keep the likeliest tokens until their probabilities reach this."""
    seed: int = 1
    """Seed of the draws."""
    compile: bool = False
    """Compile the writing of a token: faster after half a minute."""
    int8: bool = False
    """Write with matrices rounded to 8 bits: faster, a little less exact."""
    device: str = "auto"
    """`cuda`, `mps`, `cpu`, or `auto` for the first of these present."""
