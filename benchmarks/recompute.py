"""Time and bytes of each mode of recompute, on whatever device there is.

    export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
    python -m benchmarks.recompute --preset 15M --turns 8

One unit of work is a forward and backward pass of a whole model; the modes
take turns in one process, on the same weights and batch. Beside the time
stands the most bytes alive during the pass, measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch.nn import functional as F

from benchmarks import harness
from minillama import profiling, recompute
from minillama.config import ModelConfig, RecomputeName
from minillama.devices import choose_device
from minillama.model import Transformer

MODES = get_args(RecomputeName)


def make_sides(
    config: ModelConfig, batch_size: int, device: torch.device
) -> dict[str, Callable[[], tuple[float, float]]]:
    """A pass in each mode; all have given the same loss and gradient."""
    with device:
        model = Transformer(config)
    tokens = torch.randint(
        config.vocab_size, (batch_size, config.max_seq_len + 1),
        generator=torch.Generator().manual_seed(1)).to(device)

    def side(mode: str) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            recompute.apply(model, mode)
            loss = F.cross_entropy(
                model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            norm = model.layers[0].attention.wq.weight.grad.norm().item()
            # Here, so that the next pass does not begin by freeing them.
            model.zero_grad()
            return loss.item(), norm
        return run

    sides = {mode: side(mode) for mode in MODES}
    found = {}
    for mode, run in sides.items():
        found[mode] = run()
        for mine, others in zip(found[mode], found["none"]):
            if abs(mine - others) > 1e-3 * abs(others):
                raise RuntimeError(f"{mode} computes {found[mode]}, none "
                                   f"{found['none']}")
    return sides


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row a mode, time beside that of `none`."""
    return {mode: {
        "seconds": harness.median_time(runs, "wall", mode),
        "time": harness.median_time(runs, "wall", mode)
        / harness.median_time(runs, "wall", "none"),
        "cpu": harness.median_time(runs, "cpu", mode)
        / harness.median_time(runs, "cpu", "none"),
        "peak_mb": runs[-1]["peaks"][mode] / 1e6,
        "peak": runs[-1]["peaks"][mode] / runs[-1]["peaks"]["none"]}
        for mode in MODES}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="15M")
    parser.add_argument("--n-layers", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    config = ModelConfig.preset(args.preset, n_layers=args.n_layers)
    device = choose_device(args.device)
    sides = make_sides(config, args.batch_size, device)
    peaks = {mode: profiling.memory(run).peak for mode, run in sides.items()}
    path, rows = harness.store("recompute", {
        "settings": {"preset": args.preset, "n_layers": args.n_layers,
                     "batch_size": args.batch_size,
                     "seq_len": config.max_seq_len},
        "units_per_turn": args.batch_size * config.max_seq_len,
        "peaks": peaks,
        "times": harness.take_turns(sides, turns=args.turns, warm_up=1),
    }, summarise, device)
    print(harness.table(rows), path, sep="\n\n")


if __name__ == "__main__":
    main()
