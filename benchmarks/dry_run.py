"""What `minillama plan --dry-run` takes: the 65B step of 2,048 GPUs.

    python -m benchmarks.dry_run

The command runs in a process of its own, from its start to its last line,
so that imports and the search for other layouts are in the time.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from benchmarks import harness

COMMAND = ("plan --preset 65B --gpus 2048 --dp-replicate 1 --dp-shard 256 "
           "--tensor-parallel 8 --micro-batch-size 1 --recompute selective "
           "--dry-run --json")


def measure(words: str) -> dict[str, Any]:
    """Seconds by both clocks and the largest memory of one command."""
    said, used = harness.watched(*words.split())
    found = json.loads(said)["dry_run"]
    return {"wall": used["wall"], "cpu": used["cpu"], "gpus": found["gpus"],
            "mb": used["peak_bytes"] / 1e6,
            "messages": sum(t["calls"] for t in found["traffic"])}


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One row: the fastest run, and the most memory of any."""
    turns = [turn for run in runs for turn in run["turns"]]
    return {"65B, 2,048 GPUs": {
        **{key: min(turn[key] for turn in turns) for key in ("wall", "cpu")},
        "mb": max(turn["mb"] for turn in turns),
        "messages": turns[-1]["messages"], "turns": len(turns)}}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    path, rows = harness.store("dry_run", {
        "settings": {"command": COMMAND},
        "turns": [measure(COMMAND) for _ in range(args.turns)],
    }, summarise, torch.device("cpu"))
    print(harness.table(rows), path, sep="\n\n")


if __name__ == "__main__":
    main()
