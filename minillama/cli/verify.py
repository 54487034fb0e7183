"""`minillama verify`: is it the same model everywhere?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True)
class VerifyConfig:
    """Which model is compared."""

    checkpoint: Path | None = None
    """What `train --out` wrote or an exported folder; None: the mini model."""
    tokens: int = 32
    """Length of the two random texts that are compared."""
    json: bool = False
    """Print JSON."""


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[VerifyConfig, tyro.conf.subcommand(
        "verify", description="Compare a model with Hugging Face's and, "
        "where it is installed, llama.cpp's.")]


def run(config: VerifyConfig) -> int:
    """Print the equality ladder; 1 if a rung does not hold."""
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
