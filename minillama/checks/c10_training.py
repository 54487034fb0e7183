"""Exercises of chapter 10: one step of training, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from minillama.checks import answer, compare, exercise
from minillama.config import ModelConfig
from minillama.model import count_parameters
from minillama.optim import AdamW, cosine_lr


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=draw))


def _schedule(draw: torch.Generator) -> dict[str, Any]:
    warmup = 10 * _whole(draw, 2, 9)
    return {"max_lr": _whole(draw, 1, 9) * 1e-4, "warmup_steps": warmup,
            "total_steps": warmup * _whole(draw, 6, 12)}


@exercise("10-training-1", given=_schedule)
def schedule(
    mine: Any, max_lr: float, warmup_steps: int, total_steps: int
) -> str | None:
    """A function (step, max_lr, warmup_steps, total_steps) -> rate."""
    steps = [1, warmup_steps // 2, warmup_steps,
             (warmup_steps + total_steps) // 2, total_steps]

    def rates(rate: Callable[..., float]) -> list[float]:
        # In units of the peak, so that the tolerance bites.
        return [rate(s, max_lr, warmup_steps, total_steps) / max_lr
                for s in steps]

    def package(ratio: float) -> list[float]:
        return rates(lambda s, m, w, t: cosine_lr(
            s, max_lr=m, warmup_steps=w, total_steps=t, final_ratio=ratio))

    def late(s: int, m: float, w: int, t: int) -> float:
        full = cosine_lr(s, max_lr=m, warmup_steps=0, total_steps=t)
        return m * s / w if s < w else full

    return compare(
        rates(lambda *args: float(answer(mine, *args))), package(0.1),
        (package(0.0), "your cosine ends at 0, the paper's at a tenth of "
                       "the peak"),
        (rates(late), "your cosine begins at step 0; it begins where the "
                      "warm-up ends"),
        (rates(lambda s, m, w, t: cosine_lr(
            s, max_lr=m, warmup_steps=0, total_steps=t)),
         "there is no warm-up in it"),
    )


def _weights(draw: torch.Generator) -> dict[str, Any]:
    def numbers() -> torch.Tensor:
        return torch.randn(5, generator=draw, dtype=torch.float64)

    return {"p": numbers(), "g": numbers() / 10, "m": numbers() / 10,
            "v": numbers().square() / 100, "t": _whole(draw, 3, 9),
            "lr": _whole(draw, 1, 9) / 100}


@exercise("10-training-2", given=_weights)
def adamw(
    mine: Any, p: torch.Tensor, g: torch.Tensor, m: torch.Tensor,
    v: torch.Tensor, t: int, lr: float,
) -> str | None:
    """A function (p, g, m, v, t, lr) -> the weights after step t."""

    def step(
        gradient: torch.Tensor, decay: float = 0.1, correct: bool = True
    ) -> torch.Tensor:
        weight = torch.nn.Parameter(p.clone())
        weight.grad = gradient
        optimizer = AdamW([weight], lr=lr, weight_decay=decay)
        # Without the correction is as if infinitely many steps had gone by.
        optimizer.state[weight] = {"step": t - 1 if correct else 10**9,
                                   "m": m.clone(), "v": v.clone()}
        optimizer.step()
        return weight.detach()

    return compare(
        answer(mine, p, g, m, v, t, lr), step(g),
        (step(g + 0.1 * p, decay=0.0), "you added the decay to the gradient "
         "(Adam with L2); AdamW shrinks the weight itself"),
        (step(g, decay=0.0), "the weight decay is missing"),
        (step(g, correct=False), "the corrections 1 - beta^t are missing"),
        (2 * p - step(g, decay=0.0) - 0.1 * lr * p,
         "you went uphill: subtract the step"),
        tolerance=1e-6,
    )


def _micro(draw: torch.Generator) -> dict[str, Any]:
    counts = [_whole(draw, 5, 60) for _ in range(4)]
    return {"sums": [round(n * (1 + 3 * torch.rand(
        (), generator=draw).item()), 3) for n in counts], "counts": counts}


@exercise("10-training-3", given=_micro)
def accumulated(
    mine: Any, sums: list[float], counts: list[int]
) -> str | None:
    """The loss of a batch whose micro-batches have these sums and counts."""
    means = [s / n for s, n in zip(sums, counts)]
    return compare(
        float(mine), sum(sums) / sum(counts),
        (sum(means) / len(means), "this is a mean of means: it counts a "
         "token of a short micro-batch more than one of a long one"),
        (sum(sums), "divide by the number of targets"),
        (sum(sums) / len(sums), "this is per micro-batch, not per target"),
    )


def _machine(draw: torch.Generator) -> dict[str, Any]:
    name = ("7B", "13B", "33B")[_whole(draw, 0, 2)]
    rate = {"7B": 3300, "13B": 2000, "33B": 720}[name]
    return {"preset": name, "tokens_per_second": rate + _whole(draw, 0, 60),
            "peak": 312e12}


@exercise("10-training-4", given=_machine)
def utilisation(
    mine: Any, preset: str, tokens_per_second: int, peak: float
) -> str | None:
    """The MFU of one GPU by the 6 N rule, as a fraction."""
    used = count_parameters(ModelConfig.preset(preset)) * tokens_per_second
    right = 6 * used / peak
    return compare(
        float(mine), right,
        (2 * used / peak, "2 N is the forward pass alone; the backward pass "
                          "costs twice as much again"),
        (100 * right, "give it as a fraction, not in per cent"),
        (used / peak, "a weight costs six operations a token, not one"),
        (6 * used / peak / 2048, "the rate is that of one GPU already"),
        tolerance=1e-3,
    )


def _position(draw: torch.Generator) -> dict[str, Any]:
    windows = _whole(draw, 300, 900)
    batch = _whole(draw, 16, 64)
    steps = windows * _whole(draw, 2, 4) // batch + _whole(draw, 3, 9)
    return {"steps_done": steps, "batch_size": batch, "windows": windows}


@exercise("10-training-5", given=_position)
def resumed(
    mine: Any, steps_done: int, batch_size: int, windows: int
) -> str | None:
    """[epoch, place in it] of the first sample after so many steps."""
    count = steps_done * batch_size

    def place(n: int) -> list[int]:
        return list(divmod(n, windows))

    return compare(
        mine, place(count),
        (place(count - 1), "this sample has been read already: samples are "
                           "numbered from 0"),
        (place(count - batch_size), "this repeats the last batch"),
        (place(count + batch_size), "this skips a batch"),
        (place(steps_done), "a step reads batch_size windows"),
        ([count // windows + 1, count % windows],
         "epochs are counted from 0 here"),
    )


def _two_models(draw: torch.Generator) -> dict[str, Any]:
    small = _whole(draw, 5, 9)
    return {"small_training": _whole(draw, 60, 90) * 1e21,
            "large_training": _whole(draw, 30, 50) * 1e21,
            "small_per_token": small * 2e9,
            "large_per_token": small * _whole(draw, 3, 6) * 2e9}


@exercise("10-training-6", given=_two_models)
def break_even(
    mine: Any, small_training: float, large_training: float,
    small_per_token: float, large_per_token: float,
) -> str | None:
    """After how many generated tokens the small model has been cheaper."""
    extra = small_training - large_training
    unit = 1e12
    return compare(
        float(mine) / unit,
        extra / (large_per_token - small_per_token) / unit,
        (extra / large_per_token / unit,
         "the small model's tokens are not free: what is saved on a token "
         "is the difference"),
        (small_training / (large_per_token - small_per_token) / unit,
         "only the extra training has to be earned back"),
        (-extra / (large_per_token - small_per_token) / unit,
         "the sign is turned round"),
    )
