"""Exercises of notebooks/05_rmsnorm.ipynb."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from minillama.checks import answer, compare, exercise
from minillama.norm import RMSNorm


def _vector(draw: torch.Generator) -> dict:
    # Far from mean 0, so that no two of the slips give the same numbers.
    return {"x": 2 * torch.randn(6, generator=draw, dtype=torch.float64) + 1}


@exercise("05-rmsnorm-1", given=_vector)
def rms_norm(mine: object, x: Tensor) -> str | None:
    """A function x (D,) -> (D,): RMSNorm with all weights 1, eps 0."""
    return compare(
        answer(mine, x),
        F.rms_norm(x, (6,), eps=0.0),
        (x / x.norm(), "you divided by the root of the sum of the squares; "
                       "it is the root of their mean"),
        (x / x.square().mean(), "the root is missing: divide by the root of "
                                "the mean square"),
        (x / x.abs().mean(), "you took the mean of the absolute values; "
                             "RMS is the root of the mean of the squares"),
        (F.layer_norm(x, (6,), eps=0.0),
         "you subtracted the mean: that is LayerNorm"),
        (x / x.std(), "you divided by the standard deviation, which "
                      "subtracts the mean first"),
    )


def _small(draw: torch.Generator) -> dict:
    def pick(*values: float) -> float:
        return values[int(torch.randint(len(values), (), generator=draw))]

    return {"rms": pick(5e-4, 2e-3, 3e-3, 4e-3),
            "eps": pick(1e-6, 2e-6, 1e-5)}


@exercise("05-rmsnorm-2", given=_small)
def small_input(mine: object, rms: float, eps: float) -> str | None:
    """A number: RMS of the output, if that of the input is `rms`."""
    return compare(
        mine,
        rms / math.sqrt(rms**2 + eps),
        (rms / (rms + eps), "that is nearly 1, as for large inputs; eps is "
                            "added to the mean square, before the root"),
        (rms / (rms + math.sqrt(eps)), "the root of a sum is not the sum of "
                                       "the roots"),
        (rms / math.sqrt(rms + eps), "the mean square is rms ** 2"),
        (rms**2 / (rms**2 + eps), "the root is missing"),
        tolerance=1e-3,
    )


@exercise("05-rmsnorm-3", given=_vector)
def mean_share(mine: object, x: Tensor) -> str | None:
    """A function x (D,) -> number: the share of |x|^2 that the mean holds."""
    whole = x.square().sum()
    share = 6 * x.mean() ** 2 / whole
    return compare(
        answer(mine, x),
        share,
        (x.mean() ** 2 / whole, "the mean stands in every one of the D "
                                "components, so its square counts D times"),
        (share.sqrt(), "that is the share of the length; the question is "
                       "about the squared length"),
        (1 - share, "that is what LayerNorm keeps; the question is what it "
                    "throws away"),
        (x.mean().abs() / x.abs().mean(), "compare squares: D * mean ** 2 "
                                          "with the sum of x ** 2"),
    )


@exercise("05-rmsnorm-4", given=_vector)
def layer_norm(mine: object, x: Tensor) -> str | None:
    """A function (x, rms_norm) -> LayerNorm of x, out of RMSNorm."""
    def ours(v: Tensor) -> Tensor:
        return F.rms_norm(v, (v.shape[-1],), eps=0.0)

    x = x - x.mean() + 1  # a mean of almost 0 would hide a slip
    after = ours(x) - ours(x).mean()
    return compare(
        answer(mine, x, ours),
        F.layer_norm(x, (6,), eps=0.0),
        (ours(x), "this is RMSNorm itself; the mean is still in it"),
        (after, "you subtracted the mean after normalising: the result has "
                "mean 0, but not length sqrt(D)"),
        ((x - x.mean()) / x.std(), "`std` divides by D - 1; LayerNorm "
                                   "divides by D"),
        (x - x.mean(), "the mean is gone, but the scale is still that of x"),
    )


def _layers(draw: torch.Generator) -> dict:
    return {"n_layers": int(torch.randint(6, 41, (), generator=draw)) * 2}


@exercise("05-rmsnorm-5", given=_layers)
def depth(mine: object, n_layers: int) -> str | None:
    """A number: RMS of the stream after `n_layers` pre-norm blocks."""
    return compare(
        mine,
        math.sqrt(1 + 2 * n_layers),
        (math.sqrt(1 + n_layers), "a block adds twice: attention, then the "
                                  "feed-forward layer"),
        (1 + 2 * n_layers, "squares add up, not lengths: the additions are "
                           "at right angles, on average"),
        (1 + n_layers, "squares add up, not lengths; and a block adds "
                       "twice"),
        (math.sqrt(2 * n_layers), "the stream begins with size 1"),
        (2.0**n_layers, "that is the stack without norm, where what a "
                        "branch adds grows with the stream"),
        tolerance=1e-3,
    )


def _gradient(draw: torch.Generator) -> dict:
    g = torch.randn(6, generator=draw, dtype=torch.float64) + 0.5
    return {**_vector(draw), "g": g}


@exercise("05-rmsnorm-6", given=_gradient)
def backward(mine: object, x: Tensor, g: Tensor) -> str | None:
    """A function (x, g) -> dL/dx, for g = dL/dy, y = RMSNorm(x), eps 0."""
    leaf = x.clone().requires_grad_()
    norm = RMSNorm(6, eps=0.0).double()
    norm(leaf).backward(g)
    rms = x.square().mean().sqrt()
    return compare(
        answer(mine, x, g),
        leaf.grad,
        (g / rms, "you treated the root mean square as a constant; it "
                  "depends on x too"),
        (g / rms - x * (x @ g) / rms**3, "a 1 / D is missing in the second "
                                         "term: the mean has one"),
        (g / rms + x * (x @ g) / 6 / rms**3,
         "the sign of the second term is wrong: a longer x makes a smaller "
         "factor"),
        (g / rms - x * (x @ g) / 6 / rms**2,
         "the second term is divided by the cube of the root mean square"),
        (g * rms, "divide by the root mean square, do not multiply"),
    )
