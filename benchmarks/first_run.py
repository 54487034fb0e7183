"""The reader's first run: minutes, loss and words of a preset, here.

    python -m benchmarks.first_run [--preset toy]

trains as `python run.py book` does, with nothing beside it, and stores what
came of it. The corpus is prepared before the clock starts.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness
from minillama.checkpoint import load_model
from minillama.config import TrainConfig
from minillama.data import fetch
from minillama.devices import choose_device
from minillama.generate import generate
from minillama.train import fit

WORD = re.compile(r"[a-z']+")
SAMPLE_TOKENS = 1500  # some 500 words and more


def share_of_words(text: str) -> float:
    """How many of the words of a text occur in the plays."""
    known = set(WORD.findall(" ".join(fetch.plays().values()).lower()))
    words = WORD.findall(text.lower())
    return sum(word in known for word in words) / len(words)


def measure(config: TrainConfig) -> dict[str, Any]:
    """Train once; what a reader will want to compare with."""
    began = time.perf_counter()
    result = fit(config, log=None)
    seconds = time.perf_counter() - began
    if result.val_loss is None:
        raise SystemExit("stopped before the end: nothing is stored")
    model, tokenizer = load_model(config.out)
    text = generate(model, tokenizer, [config.sample_prompt],
                    max_new_tokens=SAMPLE_TOKENS,
                    generator=torch.Generator().manual_seed(1))[0]
    losses = [record["loss"] for record in result.metrics[-50:]]
    return {"seconds": seconds, "steps": config.steps,
            "loss": sum(losses) / len(losses), "val_loss": result.val_loss,
            "bits_per_byte": result.bits_per_byte,
            "words": share_of_words(text)}


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One row: the last run of these settings."""
    last = runs[-1]
    return {last["settings"]["preset"]: last["measured"]}


def main() -> None:
    """Train, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="toy")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = harness.on_the_plays(
            args.preset, out=Path(folder) / "run", device=args.device)
        measured = measure(config)
    path, rows = harness.store("first_run", {
        "settings": {"preset": args.preset, "steps": config.steps},
        "measured": measured}, summarise, choose_device(args.device))
    print(harness.table(rows), path, sep="\n\n")


if __name__ == "__main__":
    main()
