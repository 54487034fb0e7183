"""Exercises of chapter 12: counting, two backward passes, a peak, a roof.

Chapter: notebooks/12_efficiency.ipynb
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from minillama.checks import answer, compare, exercise


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=draw))


def _widths(draw: torch.Generator) -> dict[str, Any]:
    head = 8 * _whole(draw, 2, 9)
    return {"d": 4 * head, "kv": 2 * head, "h": 32 * _whole(draw, 7, 19)}


@exercise("12-efficiency-1", given=_widths)
def count(mine: Any, d: int, kv: int, h: int) -> str | None:
    """A function (D, kv, F) -> numbers a token from seven linear layers."""
    return compare(
        answer(mine, d, kv, h),
        3 * d + 2 * kv + 2 * h,
        (5 * d + 2 * h, "with shared heads keys and values are kv wide, "
         "not D"),
        (2 * d + 2 * kv + 2 * h, "one layer of width D is missing: q, wo and "
         "w_down each put out D numbers"),
        (3 * d + 2 * kv + 3 * h, "only gate and up put out F numbers; "
         "w_down's output is D wide"),
        (3 * d + 2 * kv + h, "gate and up are two layers, each with F "
         "outputs"),
        (2 * d * d + 2 * d * kv + 3 * d * h, "these are the weights; wanted "
         "are the outputs of one token"),
    )


def _inner(draw: torch.Generator) -> dict[str, Any]:
    a, u, g = torch.randn(3, 5, generator=draw)
    return {"a": a, "u": u, "g": g}


@exercise("12-efficiency-2", given=_inner)
def swiglu(
    mine: Any, a: torch.Tensor, u: torch.Tensor, g: torch.Tensor
) -> str | None:
    """A function (a, u, g) -> gradients of a and u for silu(a) * u."""
    sigma = a.sigmoid()
    slope, silu = sigma * (1 + a * (1 - sigma)), functional.silu(a)
    return compare(
        torch.stack(tuple(answer(mine, a, u, g))),
        torch.stack((g * u * slope, g * silu)),
        (torch.stack((g * silu, g * u * slope)), "the two gradients are "
         "the wrong way round: first that of a"),
        (torch.stack((g * u * sigma, g * silu)), "the slope of SiLU is not "
         "the sigmoid: a stands in front of it and has a slope too"),
        (torch.stack((g * u * sigma * (1 - sigma), g * silu)), "this is the "
         "slope of the sigmoid; SiLU is a times the sigmoid"),
        (torch.stack((g * slope, g * silu)), "a's gradient misses the "
         "factor u"),
        (torch.stack((u * slope, silu)), "the gradient from above, g, is "
         "missing"),
    )


def _rows(draw: torch.Generator) -> dict[str, Any]:
    return {"x": 3 * torch.randn(4, 6, generator=draw) + 1,
            "g": torch.randn(4, 6, generator=draw)}


@exercise("12-efficiency-3", given=_rows)
def norm(mine: Any, x: torch.Tensor, g: torch.Tensor) -> str | None:
    """A function (x, g) -> the gradient of x through RMSNorm."""
    rms = x.square().mean(-1, keepdim=True).sqrt()
    n = x / rms
    return compare(
        answer(mine, x, g),
        (g - n * (g * n).mean(-1, keepdim=True)) / rms,
        (g / rms, "the rms depends on x as well: a part along the normed "
         "row has to go"),
        (g - n * (g * n).mean(-1, keepdim=True), "divide by the rms at the "
         "end"),
        ((g - n * (g * n).sum(-1, keepdim=True)) / rms, "a mean over the "
         "components, not a sum"),
        ((g - n * (g * n).mean()) / rms, "one mean a row, not one for all "
         "rows"),
        ((g - x * (g * x).mean(-1, keepdim=True)) / rms, "the part along the "
         "NORMED row is taken away, x over its rms"),
    )


def _layers(draw: torch.Generator) -> dict[str, Any]:
    every = _whole(draw, 2, 6)
    return {"layers": every * _whole(draw, 3, 9), "every": every,
            "stream": _whole(draw, 10, 40), "inside": _whole(draw, 100, 300)}


@exercise("12-efficiency-4", given=_layers)
def peak(
    mine: Any, layers: int, every: int, stream: int, inside: int
) -> str | None:
    """A function (layers, every, stream, inside) -> peak bytes."""
    stored = layers // every * stream
    return compare(
        answer(mine, layers, every, stream, inside),
        stored + every * inside,
        (stored + inside, "a whole group is rebuilt at once: every layers, "
         "not one"),
        (layers * stream + every * inside, "the stream is stored at every "
         "`every`-th layer only"),
        (stored + layers * inside, "only one group is rebuilt at a time"),
        (every * stream + layers // every * inside, "groups and layers of a "
         "group are the wrong way round"),
        (stored, "while a group is rebuilt, what its layers keep is there "
         "too"),
    )


def _product(draw: torch.Generator) -> dict[str, Any]:
    # Every second variant is limited by memory.
    m = _whole(draw, 1, 5) if _whole(draw, 0, 2) else 512 * _whole(draw, 4, 9)
    return {"m": m, "k": 4096, "n": 1024 * _whole(draw, 2, 9), "size": 2,
            "peak": 1e14, "bandwidth": 1e12}


@exercise("12-efficiency-5", given=_product)
def seconds(
    mine: Any, m: int, k: int, n: int, size: int, peak: float,
    bandwidth: float,
) -> str | None:
    """A function (m, k, n, size, peak, bandwidth) -> least seconds."""
    moved = size * (m * k + k * n + m * n) / bandwidth
    worked = 2 * m * k * n / peak
    got = answer(mine, m, k, n, size, peak, bandwidth)
    return compare(
        got * 1e6,  # microseconds, so that a difference shows
        max(moved, worked) * 1e6,
        (min(moved, worked) * 1e6, "both have to be done: the slower one "
         "decides"),
        ((moved + worked) * 1e6, "moving and computing go on at the same "
         "time; they do not add up"),
        (max(moved, worked / 2) * 1e6, "a multiplication and an addition "
         "count as two"),
        (max(moved, worked) * 1e9, "seconds are wanted, not milliseconds"),
        (max(moved / size, worked) * 1e6, "numbers are not bytes: each takes "
         "`size`"),
        (max(size * (m * k + k * n) / bandwidth, worked) * 1e6, "the result "
         "has to be written too"),
    )
