"""`minillama finetune`: a base model learns to follow instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from minillama.cli import open_model
from minillama.config import TrainConfig


@dataclass(frozen=True)
class FinetuneConfig:
    """How a model is tuned on instructions with their answers."""

    data: Path
    """JSON list or lines with `instruction`, `output`, perhaps `input`."""
    out: Path
    """Folder for the tuned model; `chat`, `generate` and `eval` read it."""
    checkpoint: Path | None = None
    """The base model, from any folder that can be loaded; None: the mini."""
    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 4
    """Packed sequences a step."""
    micro_batch_size: int | None = None
    """Sequences per forward pass; None: all of a step at once."""
    max_lr: float = 1e-3
    """Peak learning rate; the schedule is that of `train`."""
    held_out: float = 0.05
    """Share of the examples that is not trained on and scored instead."""
    checkpoint_every: int = 100
    """Steps between checkpoints; one is always written at the end."""
    log_every: int = 50
    """Steps between printed lines."""
    resume: bool = False
    """Continue the run in `out` from its last checkpoint."""
    seed: int = 1
    """Seed of the split and of the order."""
    dtype: str = "auto"
    """Precision of the matrix products, as in `train`."""
    device: str = "auto"
    """`cuda`, `mps`, `cpu`, or `auto` for the first of these present."""


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[FinetuneConfig, tyro.conf.subcommand("finetune")]


def run(config: FinetuneConfig) -> int:
    """Read, split, tune, say what to do next."""
    import random

    import torch

    from minillama import finetune

    if not 0 <= config.held_out < 1:
        raise ValueError(f"held_out={config.held_out} must be a share from 0 "
                         "to below 1, so that examples are left to train on")
    examples = finetune.read_examples(config.data)
    random.Random(config.seed).shuffle(examples)
    kept = int(len(examples) * config.held_out)
    model, tokenizer = open_model(config.checkpoint, dtype=torch.float32)
    same = {f.name for f in fields(TrainConfig)} & set(vars(config))
    training = TrainConfig(
        **{name: getattr(config, name) for name in same},
        model=model.config, warmup_steps=config.steps // 10, eval_every=0,
        sample_prompt=finetune.prompt_of(examples[0]))
    result = finetune.finetune(
        model, tokenizer, examples[kept:], training, held_out=examples[:kept])
    print(f"tuned model in {result.out}; try: minillama chat "
          f"--checkpoint {result.out}")
    return 0
