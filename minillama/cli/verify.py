"""`minillama verify`: is it the same model everywhere?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from minillama.config import ModelConfig, PresetName


@dataclass(frozen=True)
class VerifyConfig:
    """Which model is compared."""

    checkpoint: Path | None = None
    """What `train --out` wrote or an exported folder; None: the mini model."""
    tokens: int = 32
    """Length of the two random texts that are compared."""
    cluster: int | None = None
    """Compare no models, but this many GPUs, or processes of a CPU: do they
    train as one does, in every mix, and after a kill?"""
    preset: PresetName = "toy"
    """The model that they train."""
    data: Path | None = None
    """What they train it on; None: the default corpus."""
    device: str = "auto"
    """`cuda`, `cpu` or `auto`."""
    out: Path = Path("runs/cluster")
    """Where their runs are left."""
    json: bool = False
    """Print JSON."""


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[VerifyConfig, tyro.conf.subcommand(
        "verify", description="Compare a model with Hugging Face's and, "
        "where it is installed, llama.cpp's; or several GPUs with one.")]


def run(config: VerifyConfig) -> int:
    """Print the equality ladder; 1 if a rung does not hold."""
    if config.cluster is not None:
        return _cluster(config)
    from minillama import samples, weights
    from minillama.weights.ladder import climb

    model, tokenizer = weights.load(config.checkpoint or samples.MINI)
    rungs = climb(model, tokenizer, tokens=config.tokens)
    if config.json:
        print(json.dumps([{**rung._asdict(), "holds": rung.holds}
                          for rung in rungs]))
    else:
        print(f"{'against':<20} {'what':<10} {'difference':>10} "
              f"{'allowed':>8}")
        for rung in rungs:
            print(f"{rung.against:<20} {rung.what:<10} {rung.gap:>10.1e} "
                  f"{rung.allowed:>8.1e}  {'ok' if rung.holds else 'NO'}")
    return int(not all(rung.holds for rung in rungs))


def _cluster(config: VerifyConfig) -> int:
    """Print what every mix shows; 1 if one does not hold."""
    from minillama.cluster import check

    if config.out.exists():
        raise ValueError(f"out={str(config.out)!r} is there already; remove "
                         "it or choose another")
    flags = ["--preset", config.preset, "--device", config.device]
    if config.data is not None:
        flags += ["--data", str(config.data)]
    bad = 0
    for found in check(ModelConfig.preset(config.preset), config.cluster,
                       config.out, flags=flags):
        bad += not found.holds
        print(json.dumps(found._asdict()) if config.json else
              f"{'ok' if found.holds else 'NO':3} {found.what}: "
              f"{found.detail}", flush=True)
    return int(bad > 0)
