"""Exercises of chapter 18: optimum, fit, and what serving changes.

Chapter: notebooks/18_budget.ipynb
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from minillama.checks import answer, compare, exercise
from minillama.planner.budget import Law, crossover


def _between(
    draw: torch.Generator, low: int | float, high: int | float
) -> float:
    share = torch.rand((), generator=draw, dtype=torch.float64).item()
    return round(low + (high - low) * share, 3)


def _law(draw: torch.Generator) -> dict[str, Any]:
    return {"A": _between(draw, 200, 600), "B": _between(draw, 500, 2500),
            "alpha": _between(draw, 0.28, 0.33),
            "beta": _between(draw, 0.34, 0.4)}


def _bill(draw: torch.Generator) -> dict[str, Any]:
    return {**_law(draw), "flops": _between(draw, 1, 9) * 1e22}


@exercise("18-budget-1", given=_bill)
def optimum(
    mine: Any, A: float, B: float, alpha: float, beta: float, flops: float
) -> str | None:
    """A function (A, B, alpha, beta, flops) -> best parameters N."""
    law = Law(1.7, A, B, alpha, beta)
    got = answer(mine, A, B, alpha, beta, flops)
    want = law.optimum(flops)[0]
    power = beta / (alpha + beta)
    scale = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return compare(
        np.log(float(got)), np.log(want),
        (np.log(law.optimum(flops)[1]), "these are the tokens D; N is asked "
         "for"),
        (np.log(scale * (flops / 6) ** (1 - power)),
         "the exponent of the bill is beta / (alpha + beta): the faster text "
         "helps, the more of the bill goes to size"),
        (np.log(scale * flops**power), "a training token costs 6 operations "
         "for each weight: N D = flops / 6"),
        (np.log((flops / 6) ** power), "A and B have their say too: the "
         "factor (alpha A / (beta B)) ^ (1 / (alpha + beta)) is missing"),
        (np.log((A / B) ** (1 / (alpha + beta)) * (flops / 6) ** power),
         "the derivative brings the exponents down: alpha A against beta B"),
        tolerance=1e-4,
    )


def _goal(draw: torch.Generator) -> dict[str, Any]:
    law = _law(draw)
    size = _between(draw, 2, 20) * 1e9
    law_object = Law(1.7, **law)
    return {"E": 1.7, **law, "parameters": size,
            "loss": float(law_object.loss(size, 3e11))
            + _between(draw, 0.0, 0.05)}


@exercise("18-budget-2", given=_goal)
def tokens_for(
    mine: Any, E: float, A: float, B: float, alpha: float, beta: float,
    parameters: float, loss: float
) -> str | None:
    """A function (E, A, B, alpha, beta, N, loss) -> tokens D."""
    law = Law(E, A, B, alpha, beta)
    got = float(answer(mine, E, A, B, alpha, beta, parameters, loss))
    if not got > 0:
        return (f"{got} tokens cannot be; what is left of the loss for the "
                "text?")
    left = loss - E - A / parameters**alpha
    return compare(
        np.log(got), np.log(law.tokens_for(loss, parameters)),
        (np.log((B / (loss - E)) ** (1 / beta)),
         "the finite size has its part of the loss too: take A / N^alpha off"),
        (np.log((B / (loss - A / parameters**alpha)) ** (1 / beta)),
         "E is lost whatever one does: take it off first"),
        (np.log((left / B) ** (1 / beta)), "upside down: the less loss is "
         "left for the text, the more text is needed"),
        (np.log((B / left) ** beta), "to undo a power, take the power "
         "1 / beta"),
        tolerance=1e-4,
    )


def _points(draw: torch.Generator) -> dict[str, Any]:
    law = {"E": _between(draw, 1.4, 1.9), "A": _between(draw, 0.3, 0.8),
           "B": _between(draw, 0.9, 2.0)}
    points = [[n, d, law["E"] + law["A"] / n**0.5 + law["B"] / d**0.5]
              for n in (0.25, 1.0, 4.0) for d in (1.0, 4.0, 16.0)]
    return {"points": torch.tensor(points, dtype=torch.float64)}


@exercise("18-budget-3", given=_points)
def linear_part(mine: Any, points: torch.Tensor) -> str | None:
    """A function (points) -> [E, A, B], with both exponents 0.5."""
    n, d, loss = points.numpy().T
    got = answer(mine, points)

    def solve(*columns: Any) -> Any:
        found, *_ = np.linalg.lstsq(np.stack(columns, 1), loss, rcond=None)
        return found

    one, size, text = np.ones_like(n), n**-0.5, d**-0.5
    e, a, b = solve(one, size, text)
    return compare(
        got, [e, a, b],
        ([e, b, a], "A belongs to the size, B to the text: they have changed "
         "places"),
        ([a, b, e], "the order is E, A, B"),
        ([0.0, *solve(size, text)], "there is no column of ones, so E has "
         "nowhere to go"),
        (solve(one, n**0.5, d**0.5), "the loss falls with size: the columns "
         "are N^-0.5 and D^-0.5"),
        (solve(one, n, d), "raise N and D to the power -0.5 first"),
        tolerance=1e-3,
    )


def _pair(draw: torch.Generator) -> dict[str, Any]:
    small = _between(draw, 3, 9) * 1e9
    large = small * _between(draw, 1.6, 3.0)
    return {"small": small, "large": large,
            "small_tokens": _between(draw, 0.9, 1.4) * 1e12,
            "large_tokens": _between(draw, 0.2, 0.28) * 1e12,
            "price": _between(draw, 1.5, 4.0)}


@exercise("18-budget-4", given=_pair)
def served(
    mine: Any, small: float, large: float, small_tokens: float,
    large_tokens: float, price: float
) -> str | None:
    """A number: served tokens at which both bills are the same."""
    want = crossover((small, small_tokens), (large, large_tokens), price)
    more = 6 * (small * small_tokens - large * large_tokens)
    return compare(
        float(mine) / 1e12, want / 1e12,
        (more / (2 * (large - small)) / 1e12, "an operation of serving has "
         "another price here: multiply what is saved by it"),
        (want / 3 / 1e12, "serving is forward alone: 2 operations a weight, "
         "not 6"),
        (6 * small * small_tokens / (2 * price * (large - small)) / 1e12,
         "the large model had to be trained too: only the difference has to "
         "be earned back"),
        (more / (2 * price * large) / 1e12, "the small one costs something to "
         "serve as well: divide by the difference"),
        (-want / 1e12, "the sign: the small one cost more to train"),
        tolerance=1e-4,
    )


def _choice(draw: torch.Generator) -> dict[str, Any]:
    law = _law(draw)
    target = Law(1.7, **law).optimum(_between(draw, 2, 8) * 1e22)
    sizes = [round(target[0] / 1e9 * 1.3**k, 2) * 1e9 for k in range(-8, 4)]
    return {"E": 1.7, **law, "loss": float(Law(1.7, **law).loss(*target)),
            "served": _between(draw, 5, 12) * target[1], "sizes": sizes}


@exercise("18-budget-5", given=_choice)
def cheapest_size(
    mine: Any, E: float, A: float, B: float, alpha: float, beta: float,
    loss: float, served: float, sizes: list[float]
) -> str | None:
    """A number: the size of the list that is cheapest in all."""
    law = Law(E, A, B, alpha, beta)
    n = np.array(sizes)
    d = law.tokens_for(loss, n)

    def best(cost: Any) -> float:
        return float(n[np.argmin(cost)]) / 1e9

    return compare(
        float(mine) / 1e9, best(6 * n * d + 2 * n * served),
        (best(6 * n * d), "that is the cheapest to train; serving is not "
         "paid yet"),
        (float(n[np.isfinite(d)][0]) / 1e9, "that is the smallest that can "
         "reach the loss at all; its training costs too much"),
        (float(n[0]) / 1e9, "so small a model never reaches the loss: its "
         "tokens are infinite"),
        (float(n[-1]) / 1e9, "that is the largest of all"),
        tolerance=1e-6,
    )
