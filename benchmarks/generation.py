"""Generation speed beside Hugging Face's `generate()`: one text, greedy.

    export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
    python -m benchmarks.generation

All have the same random weights and a cache, work in fp32 under
`torch.inference_mode`, and must write the same tokens before the clock
starts. Speed does not depend on whether the text makes sense. Ours is timed
as it is built, and with its matrices laid out for writing on a CPU
(`Transformer.columns_first`), as `minillama generate` does.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import harness
from minillama.config import ModelConfig
from minillama.devices import choose_device
from minillama.generate import next_tokens
from minillama.model import Transformer
from minillama.weights.ladder import twin

OURS = ("as built", "columns first")
THEIRS = "Hugging Face generate()"
PROMPT = [1, *range(300, 315)]

Write = Callable[[], list[int]]
"""Continues the prompt; gives prompt and continuation."""


def our_writer(model: Transformer, new_tokens: int) -> Write:
    """The package's own loop."""

    def write() -> list[int]:
        columns = next_tokens(
            model, [PROMPT], max_new_tokens=new_tokens, temperature=0.0)
        return torch.cat(list(columns)).tolist()

    return write


def their_writer(model: Transformer, new_tokens: int) -> Write:
    """Hugging Face's `generate`, told to go on to the last token."""
    theirs = twin(model).eval()
    theirs.generation_config.eos_token_id = None
    ids = torch.tensor([PROMPT], device=model.output.weight.device)

    @torch.inference_mode()
    def write() -> list[int]:
        return theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=new_tokens)[0].tolist()

    return write


def make_sides(
    config: ModelConfig, new_tokens: int, device: torch.device
) -> dict[str, Write]:
    """Three writers of the same text, which has been compared."""
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(1))
    model = model.to(device).eval()
    sides = {THEIRS: their_writer(model, new_tokens),
             OURS[0]: our_writer(model, new_tokens),
             OURS[1]: our_writer(
                 copy.deepcopy(model).columns_first(), new_tokens)}
    texts = {name: write() for name, write in sides.items()}
    for name, text in texts.items():
        if text != texts[THEIRS]:
            raise RuntimeError(f"{name} writes another text than {THEIRS}")
    return sides


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row for each of our layouts, over all turns of all runs."""
    return {ours: {
        "turns": sum(len(r["times"]["wall"][ours]) for r in runs),
        "tokens_per_s": harness.median_rate(runs, ours),
        "theirs": harness.median_rate(runs, THEIRS),
        "wall": harness.pooled(runs, "wall", ours, THEIRS),
        "cpu": harness.pooled(runs, "cpu", ours, THEIRS)} for ours in OURS}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="15M")
    parser.add_argument("--new-tokens", type=int, default=200)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    sides = make_sides(
        ModelConfig.preset(args.preset), args.new_tokens, device)
    path, rows = harness.store("generation", {
        "settings": {"preset": args.preset, "new_tokens": args.new_tokens},
        "units_per_turn": args.new_tokens,
        "times": harness.take_turns(sides, turns=args.turns, warm_up=0),
    }, summarise, device)
    print(harness.table(rows), path, sep="\n\n")


if __name__ == "__main__":
    main()
