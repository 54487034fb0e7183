"""Which layout is fastest, and why not the others: every one is tried.

The time of a step is a simple sum, stated here so that you can doubt it:
operations over an assumed share of the data sheet's peak, plus what tensor
parallelism sends (nothing can be computed meanwhile), plus what data
parallelism sends beyond the time of computing (the rest hides behind it).

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.model import flops_per_token
from minillama.planner import memory
from minillama.planner.count import Sizes, sizes
from minillama.planner.gpus import Gpu

RECOMPUTE = ("none", "selective", "by_hand", "linear", "full")
EFFICIENCY = 0.55
"""Share of a GPU's peak that a layer reaches by itself: an assumption."""
RESERVE_GIB = 4.0
"""Kept free for the driver, NCCL and fragments: an assumption."""


@dataclass(frozen=True)
class Job:
    """What has to be trained, on what."""

    config: ModelConfig
    gpu: Gpu
    gpus: int
    batch_size: int
    """Sequences a step, over all GPUs."""
    seq_len: int
    efficiency: float = EFFICIENCY
    reserve_gib: float = RESERVE_GIB
    sequence_parallel: bool = True
    """Whether the stream between shared products is dealt out too."""


@dataclass(frozen=True)
class Plan:
    """One layout of a job, worked out."""

    layout: Layout
    used: memory.Memory
    excess_gib: float
    """By how much it does not fit; negative: what is left."""
    seconds: float
    """Of one step."""
    received: dict[str, float]
    """Bytes that one GPU receives in a step, by collective."""

    @property
    def fits(self) -> bool:
        """Whether the memory is enough."""
        return self.excess_gib <= 0


def search(job: Job) -> list[Plan]:
    """Every possible layout, those that fit first, the fastest first.

    Raises:
        ValueError: if no layout of so many GPUs divides the model and batch.

    Chapter: notebooks/13_scaling.ipynb
    """
    counted = sizes(job.config)
    work = flops_per_token(job.config, job.seq_len)
    plans = [evaluate(job, layout, counted, work)
             for layout in candidates(job)]
    if not plans:
        raise ValueError(
            f"no layout of gpus={job.gpus} divides batch_size="
            f"{job.batch_size} sequences of {job.seq_len} tokens; try a power "
            "of two for both")
    # Of equally fast ones first the largest micro-batch, which keeps a GPU
    # busiest, then the one that computes least again.
    return sorted(plans, key=lambda plan: (
        max(0.0, plan.excess_gib), float(f"{plan.seconds:.4g}"),
        -plan.layout.micro_batch_size,
        RECOMPUTE.index(plan.layout.recompute), plan.used.total))


def candidates(job: Job) -> Iterator[Layout]:
    """Every layout whose sizes divide GPUs, model, batch and sequence."""
    for tensor, copies in itertools.product(*(
            _divisors(math.gcd(job.gpus, whole))
            for whole in (job.config.n_heads, job.batch_size))):
        shards, rest = divmod(job.gpus, tensor * copies)
        if rest or job.batch_size % (copies * shards):
            continue
        if Layout(tensor_parallel=tensor,
                  sequence_parallel=job.sequence_parallel).misfits(
                      job.config, job.seq_len):
            continue
        share = job.batch_size // (copies * shards)
        for micro, mode in itertools.product(_divisors(share), RECOMPUTE):
            if mode != "by_hand" or job.gpus == 1:
                yield Layout(copies, shards, tensor, job.sequence_parallel,
                             micro, mode)


def _divisors(n: int) -> list[int]:
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*low, *(n // d for d in low)})


def evaluate(job: Job, layout: Layout, counted: Sizes, work: int) -> Plan:
    """Memory, time and traffic of one layout.

    Args:
        job, layout: what, and how.
        counted: `count.sizes` of the model.
        work: `model.flops_per_token` of it.
    """
    room = job.gpu.memory_gib - job.reserve_gib
    used = memory.training(job.config, counted, layout, job.seq_len,
                           accumulate=passes(job, layout) > 1)
    sent = traffic(job, layout, counted)
    return Plan(layout, used, used.total / memory.GIB - room,
                _seconds(job, layout, work, sent), sent)


def passes(job: Job, layout: Layout) -> int:
    """Micro-batches of one step, forward and backward."""
    return job.batch_size // (layout.data_parallel * layout.micro_batch_size)


def traffic(job: Job, layout: Layout, counted: Sizes) -> dict[str, float]:
    """Bytes that one GPU receives in one step, by what they are for.

    An all-gather or a reduce-scatter of S bytes over g GPUs brings each of
    them S (g - 1) / g; an all-reduce is both.
    """
    r, s, t = layout.dp_replicate, layout.dp_shard, layout.tensor_parallel
    steps = passes(job, layout)
    local = counted.local(t)
    row = 2 * layout.micro_batch_size * job.seq_len * job.config.dim
    # A layer: two gathers and two scatters forward, the same backward, and
    # forward's once more where it is recomputed.
    times = 8 + (0 if layout.recompute == "none" else 4)
    return {
        # Weights in 16 bits, once forward and once backward.
        "gather weights": steps * 2 * 2 * local * (s - 1) / s,
        # Gradients in 32 bits.
        "scatter gradients": steps * 4 * local * (s - 1) / s,
        "average copies": steps * 2 * 4 * local / s * (r - 1) / r,
        "tensor": steps * counted.layers * times * row * (t - 1) / t}


def _seconds(
    job: Job, layout: Layout, work: int, sent: dict[str, float]
) -> float:
    """The sum at the top of this file."""
    c, tokens = job.config, job.batch_size * job.seq_len
    # Forward is a third of the work; norms and products cost next to nothing.
    again = {"full": work / 3, "linear": 2 * c.n_layers * c.dim * job.seq_len}
    compute = tokens * (work + again.get(layout.recompute, 0)) / (
        job.gpus * job.gpu.peak_flops * job.efficiency)

    def wire(ranks: int) -> float:
        near = ranks <= job.gpu.per_machine
        return 1e9 * (job.gpu.link_gb_s if near else job.gpu.network_gb_s)

    data = sum(amount for name, amount in sent.items() if name != "tensor")
    return (compute + sent["tensor"] / wire(layout.tensor_parallel)
            + max(0.0, data / wire(job.gpus) - compute))


def nearest(plans: Sequence[Plan], wanted: Layout) -> Plan | None:
    """Of the layouts that fit, the one with the fewest doublings to go.

    Chapter: notebooks/13_scaling.ipynb
    """
    def steps(layout: Layout) -> float:
        pairs = [(getattr(layout, f.name), getattr(wanted, f.name))
                 for f in fields(Layout)]
        return sum(float(a != b) if isinstance(a, str | bool)
                   else abs(math.log2(a / b)) for a, b in pairs)

    fitting = [plan for plan in plans if plan.fits]
    return min(fitting, default=None,
               key=lambda plan: (steps(plan.layout), plan.seconds))
