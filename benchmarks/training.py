"""Training speed beside Hugging Face's LLaMA and PyTorch's AdamW.

    export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
    python -m benchmarks.training --settings fp32 fp32+compile
    python -m benchmarks.training --settings bf16 bf16+compile

Our side is `minillama.train.train_step` itself. The baseline is a plain loop
around `LlamaForCausalLM` in fp32, eager, with sdpa attention, the fused AdamW
and clipping at 1.0. Each of our settings also stands beside Hugging Face with
the same dtype and the same compile flag. Both sides have the same weights and
the same batch of Shakespeare, and must agree on the first loss before the
clock starts. On a GPU the same, with MFU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from benchmarks import harness
from minillama.config import TrainConfig
from minillama.devices import choose_device, precision
from minillama.metrics import device_peak
from minillama.model import flops_per_token
from minillama.train import new_state, train_step
from minillama.weights.ladder import twin

BASELINE = "Hugging Face, fp32"
SETTINGS = ("fp32", "fp32+compile", "bf16", "bf16+compile")
# How far apart the first losses (nats per token) may be.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-3}

Step = Callable[[], float]
"""One optimiser step; gives the loss."""


def our_step(config: TrainConfig) -> Step:
    """The package's own step, always on the same batch."""
    state = new_state(config)
    batch = next(state.batches)

    def step() -> float:
        state.step += 1
        return train_step(state, batch, config)["loss"]

    return step


def their_step(config: TrainConfig) -> Step:
    """A plain PyTorch loop around Hugging Face's model."""
    state = new_state(replace(config, compile=False))  # weights and batch
    model, device = twin(state.model).train(), state.device
    batch = next(state.batches)
    inputs = batch.inputs.to(device).contiguous()
    targets = batch.targets.to(device).contiguous()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.max_lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay, fused=True)

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return model(input_ids=inputs, labels=targets, shift_labels=targets,
                     use_cache=False).loss

    loss_fn = torch.compile(loss_of) if config.compile else loss_of

    def step() -> float:
        with precision(device, state.dtype):
            loss = loss_fn(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def configured(base: TrainConfig, setting: str) -> TrainConfig:
    """`bf16+compile` as fields of the configuration."""
    dtype, _, flag = setting.partition("+")
    return replace(base, dtype=dtype, compile=flag == "compile")


def make_sides(base: TrainConfig, settings: Iterable[str]) -> dict[str, Step]:
    """All that take turns; each has taken its first step, the same one."""
    sides = {BASELINE: their_step(configured(base, "fp32"))}
    for setting in settings:
        config = configured(base, setting)
        sides[f"minillama, {setting}"] = our_step(config)
        if f"Hugging Face, {setting}" not in sides:
            sides[f"Hugging Face, {setting}"] = their_step(config)
    losses = {name: step() for name, step in sides.items()}
    for name, loss in losses.items():
        far = abs(loss - losses[BASELINE])
        if far > TOLERANCE["bf16" if "bf16" in name else "fp32"]:
            raise RuntimeError(
                f"{name} begins with loss {loss}, {BASELINE} with "
                f"{losses[BASELINE]}: they do not compute the same")
    return sides


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One row a setting, over all turns of all runs."""
    rows = {}
    for setting in SETTINGS:
        ours, same = f"minillama, {setting}", f"Hugging Face, {setting}"
        having = [r for r in runs if ours in r["times"]["wall"]]
        if not having:
            continue
        rows[setting] = row = {
            "turns": sum(len(r["times"]["wall"][ours]) for r in having),
            "tokens_per_s": harness.median_rate(having, ours),
            "theirs": harness.median_rate(having, same),
            "baseline": harness.median_rate(having, BASELINE)}
        for clock in harness.CLOCKS:
            row[f"{clock}_baseline"] = harness.pooled(
                having, clock, ours, BASELINE)
            row[f"{clock}_same"] = harness.pooled(having, clock, ours, same)
        peak = having[-1].get("peak_flops")
        row["mfu"] = peak and (
            row["tokens_per_s"] * having[-1]["flops_per_token"] / peak)
    return rows


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="15M")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS,
                        default=["fp32", "fp32+compile"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    base = harness.on_the_plays(
        args.preset, batch_size=args.batch_size, micro_batch_size=None,
        device=args.device)
    device, length = choose_device(args.device), base.model.max_seq_len
    times = harness.take_turns(
        make_sides(base, args.settings), turns=args.turns, warm_up=1)
    path, rows = harness.store("training", {
        "settings": {"preset": args.preset, "batch_size": args.batch_size,
                     "seq_len": length},
        "units_per_turn": args.batch_size * length,
        "flops_per_token": flops_per_token(base.model, length),
        "peak_flops": device_peak(device), "times": times,
    }, summarise, device)
    print(harness.table(rows), path, sep="\n\n")


if __name__ == "__main__":
    main()
