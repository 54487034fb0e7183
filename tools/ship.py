"""Put a finished run into the package as its one checkpoint.

    minillama train --preset mini --out runs/mini
    python -m tools.ship runs/mini

The weights are stored in bf16 (two bytes each); with tokenizer, shape, loss
curve, settings and final score they stay under two megabytes and a half.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from minillama.checkpoint import load_model, weights_of
from minillama.samples import MINI

LIMIT = 2_000_000
"""Bytes of weights and tokenizer together."""


def ship(run: Path, target: Path = MINI) -> None:
    """Copy what chapters need from the folder of a run.

    Raises:
        ValueError: if the run is not finished or its model too large.
    """
    if not (run / "result.json").is_file():
        raise ValueError(f"{run} holds no finished run (no result.json)")
    model, _ = load_model(run)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    save_file({name: w.to(torch.bfloat16).clone()
               for name, w in weights_of(model).items()},
              target / "model.safetensors")
    (target / "config.json").write_text(
        json.dumps(model.config.to_dict(), indent=1), encoding="utf-8")
    for name in ("tokenizer.model", "metrics.jsonl", "result.json"):
        shutil.copyfile(run / name, target / name)
    _settings(run, target)
    size = sum((target / name).stat().st_size
               for name in ("model.safetensors", "tokenizer.model"))
    if size > LIMIT:
        raise ValueError(f"{size:,} bytes, the limit is {LIMIT:,}")
    print(f"{target}: {size:,} bytes of weights and tokenizer")


def _settings(run: Path, target: Path) -> None:
    """The settings of the run, without the folders of this machine."""
    stored = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for name in ("data", "out", "init_from"):
        stored["config"].pop(name, None)
    (target / "run.json").write_text(
        json.dumps(stored, indent=1), encoding="utf-8")


if __name__ == "__main__":
    ship(Path(sys.argv[1]))
