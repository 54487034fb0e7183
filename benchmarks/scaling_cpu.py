"""What each mix of two processes costs beside one with two threads.

    export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
    python -m benchmarks.scaling_cpu

The same optimiser step on the same global batch: once by this process with
two threads, and by two living processes of one thread each, which share the
work in every mix in turn. They talk by gloo. All must have taken the same
first step. Processor seconds are summed over all three processes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from benchmarks import harness
from benchmarks.training import TOLERANCE, our_step
from minillama.config import TrainConfig
from minillama.engines import Engines

ALONE = "one process"
MIXES: dict[str, dict[str, Any]] = {
    "data: two copies": {"dp_replicate": 2},
    "shard: two halves": {"dp_shard": 2},
    "tensor": {"tensor_parallel": 2, "sequence_parallel": False},
    "tensor and sequence": {"tensor_parallel": 2}}
STEPS: dict[str, Callable[[], float]] = {}
"""In an engine: its part of a step in each mix."""


def prepare(base: TrainConfig) -> None:
    """Make ready for all mixes; runs in an engine."""
    for name, mix in MIXES.items():
        STEPS[name] = our_step(replace(base, **mix))


def take_part(name: str) -> tuple[float, float]:
    """A step's loss, and processor seconds so far; runs in an engine."""
    return STEPS[name](), time.process_time()


class Company:
    """Two engines, and what they have used of the processor."""

    def __init__(self, engines: Any) -> None:
        self.engines, self.used = engines, 0.0

    def step(self, name: str) -> float:
        """One step of a mix by both."""
        answers = self.engines(take_part, name)
        self.used = sum(seconds for _, seconds in answers)
        return answers[0][0]

    def clock(self) -> float:
        """Processor seconds of all three processes."""
        return self.used + time.process_time()


@contextmanager
def make_sides(
    base: TrainConfig, make: Callable[[int], Any] = Engines,
) -> Iterator[tuple[dict[str, Callable[[], float]], Company]]:
    """All that take turns; each has taken its first step, the same one."""
    engines = make(2)
    try:
        engines(prepare, base)
        company = Company(engines)
        sides = {ALONE: our_step(base)}
        for name in MIXES:
            sides[name] = lambda name=name: company.step(name)
        losses = {name: step() for name, step in sides.items()}
        for name, loss in losses.items():
            if abs(loss - losses[ALONE]) > TOLERANCE["fp32"]:
                raise RuntimeError(
                    f"{name} begins with loss {loss}, {ALONE} with "
                    f"{losses[ALONE]}: they do not compute the same")
        yield sides, company
    finally:
        engines.close()


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row a mix: its time over that of one process, turn by turn."""
    return {name: {
        "turns": sum(len(r["times"]["wall"][name]) for r in runs),
        "tokens_per_s": harness.median_rate(runs, name),
        **{clock: harness.pooled(runs, clock, ALONE, name)
           for clock in harness.CLOCKS}} for name in (ALONE, *MIXES)}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="15M")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--turns", type=int, default=10)
    args = parser.parse_args()
    base = harness.on_the_plays(
        args.preset, batch_size=args.batch_size, micro_batch_size=None,
        device="cpu", dtype="fp32")
    length = base.model.max_seq_len
    with make_sides(base) as (sides, company):
        times = harness.take_turns(
            sides, turns=args.turns, warm_up=1, clocks={
                "wall": time.perf_counter, "cpu": company.clock})
    path, rows = harness.store("scaling_cpu", {
        "settings": {"preset": args.preset, "batch_size": args.batch_size,
                     "seq_len": length},
        "units_per_turn": args.batch_size * length, "times": times,
    }, summarise, torch.device("cpu"))
    print(harness.table(rows), path, sep="\n\n")


if __name__ == "__main__":
    # Under its own name, by which engines find what they run.
    from benchmarks import scaling_cpu

    scaling_cpu.main()
