"""`minillama plan`: what a run would need, before it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from minillama.config import PresetName, RecomputeName


@dataclass(frozen=True)
class PlanCommand:
    """The layout, memory, time, energy and carbon of a training run."""

    preset: PresetName = "65B"
    """The model, its batch and its tokens."""
    gpus: int = 2048
    """How many GPUs."""
    gpu: str = "a100-80gb"
    """A name of the table; another word lists the known ones."""
    batch_size: int | None = None
    """Sequences a step over all GPUs; None: the preset's."""
    seq_len: int | None = None
    """Tokens of a sequence; None: the preset's max_seq_len."""
    tokens: float | None = None
    """Tokens of the whole run; None: the preset's."""
    dp_replicate: int | None = None
    """Copies of the model; None: whatever is fastest."""
    dp_shard: int | None = None
    """GPUs that share out one copy; None: whatever is fastest."""
    tensor_parallel: int | None = None
    """GPUs that share every product; None: whatever is fastest."""
    sequence_parallel: bool = True
    """Deal out by positions what lies between shared products."""
    micro_batch_size: int | None = None
    """Sequences of one forward pass; None: whatever is fastest."""
    recompute: RecomputeName | None = None
    """What the backward pass computes again; None: whatever is fastest."""
    memory_gib: float | None = None
    """Overrides the table: memory that a program finds."""
    peak_flops: float | None = None
    """Overrides the table: dense 16-bit operations a second, as in 312e12."""
    watts: float | None = None
    """Overrides the table: power of one GPU."""
    link_gb_s: float | None = None
    """Overrides the table: GB a second to a neighbour, one way."""
    network_gb_s: float | None = None
    """Overrides the table: GB a second and GPU between machines."""
    efficiency: float = 0.55
    """Assumed share of the peak that a layer reaches by itself."""
    reserve_gib: float = 4.0
    """Kept free for driver, NCCL and fragments."""
    grid: str = "us-average"
    """Where the power comes from, or kilograms of CO2 equivalent a kWh."""
    pue: float = 1.1
    """Power of the data centre over that of its GPUs."""
    serve: int | None = None
    """Plan writing instead: so many sequences at once, no training."""
    dry_run: bool = False
    """Run the real engine on paper GPUs too, and count what it does."""
    json: bool = False
    """Print one JSON object, refused layouts included."""


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[PlanCommand, tyro.conf.subcommand("plan")]


def run(command: PlanCommand) -> int:
    """Work it out, print it; 2 if nothing fits."""
    from minillama.planner import page

    found = page.plan(command)
    print(json.dumps(found) if command.json else page.text(found))
    return 0 if found["fits"] else 2
