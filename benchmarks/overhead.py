"""What resuming, logging and reading data cost beside the steps themselves.

    export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
    python -m benchmarks.overhead

Each chore of `train.fit` is timed alone, by the same functions that `fit`
calls, and spread over the steps between two of its turns: a batch is read at
each step, a line of progress printed every `log_every`, a checkpoint written
every `checkpoint_every`, one run in so many is resumed. The sum is set
against a step. Evaluation is no chore: it is asked for.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import harness
from minillama.config import TrainConfig
from minillama.devices import choose_device
from minillama.metrics import Meter, MetricsFile
from minillama.runs import log_speed, progress_line, resume_state, save_state
from minillama.train import new_state, train_step


def chores(
    config: TrainConfig,
) -> dict[str, tuple[Callable[[], Any], float]]:
    """Each chore, and how many steps share one; `step` is a step itself."""
    out = Path(config.out)
    state = new_state(config)
    batch = next(state.batches)
    metrics = MetricsFile(out / "metrics.jsonl")
    meter = Meter(config.model, config.model.max_seq_len, None)
    record = train_step(state, batch, config)

    def log() -> None:
        progress_line(record, log_speed(out, state.step, meter))

    def checkpoint() -> None:
        state.step += 1
        metrics.sync()
        save_state(state, out, config.keep_last)

    return {
        "step": (lambda: train_step(state, batch, config), 1),
        "read a batch": (lambda: next(state.batches), 1),
        "write metrics": (lambda: metrics.write(record), 1),
        "log speed": (log, config.log_every),
        "checkpoint": (checkpoint, config.checkpoint_every),
        "resume": (lambda: resume_state(state, out), config.steps),
    }


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Milliseconds a step and the share of it, by processor seconds."""
    every = runs[-1]["settings"]["every"]
    cost = {name: harness.median_time(runs, "cpu", name) / steps
            for name, steps in every.items()}
    cost["all chores"] = sum(cost.values()) - cost["step"]
    return {name: {"ms_per_step": 1000 * seconds,
                   "percent": 100 * seconds / cost["step"]}
            for name, seconds in cost.items()}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="15M")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--dtype", default="fp32")
    args = parser.parse_args()
    config = harness.on_the_plays(
        args.preset, batch_size=args.batch_size, micro_batch_size=None,
        dtype=args.dtype, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        work = chores(replace(config, out=Path(folder)))
        work["checkpoint"][0]()  # something to resume from
        times = harness.take_turns(
            {name: act for name, (act, _) in work.items()},
            turns=args.turns, warm_up=0)
    path, rows = harness.store("overhead", {
        "settings": {"preset": args.preset, "batch_size": args.batch_size,
                     "dtype": args.dtype,
                     "every": {n: steps for n, (_, steps) in work.items()}},
        "times": times}, summarise, choose_device("cpu"))
    print(harness.table(rows), path, sep="\n\n")


if __name__ == "__main__":
    main()
