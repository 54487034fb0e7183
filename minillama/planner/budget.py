"""How big and how long: laws of loss, the cheapest model for what it serves.

Chapter: notebooks/18_budget.ipynb
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minillama.samples import FOLDER

Number = int | float | np.ndarray
"""One number, or many at once."""


def figure_1() -> dict[str, dict[int, float]]:
    """Model: training loss at so many billions of tokens (paper, Figure 1).

    Read off the printed figure to about 0.01; below 100 billion the curves
    overlap.

    Chapter: notebooks/18_budget.ipynb
    """
    text = (FOLDER / "figure_1.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {name: {int(row["tokens_B"]): float(row[name])
                   for row in rows if row[name]}
            for name in list(rows[0])[1:]}


@dataclass(frozen=True)
class Law:
    """loss = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, eq. 2).

    N parameters have read D tokens. The units of loss are nats a token of
    one tokenizer and one text, so two laws' losses cannot be compared; their
    optima can.
    """

    E: float
    """What no model can know: the entropy of the text."""
    A: float
    """How much a finite size costs."""
    B: float
    """How much a finite text costs."""
    alpha: float
    """How fast size helps."""
    beta: float
    """How fast text helps."""

    def loss(self, parameters: Number, tokens: Number) -> Number:
        """Nats a token."""
        return (self.E + self.A / parameters**self.alpha
                + self.B / tokens**self.beta)

    def tokens_for(self, loss: float, parameters: Number) -> Number:
        """D at which N parameters reach a loss; infinite if they cannot."""
        left = loss - self.E - self.A / parameters**self.alpha
        within = np.where(left > 0, left, np.nan)
        tokens = (self.B / within) ** (1 / self.beta)
        return np.nan_to_num(tokens, nan=np.inf)[()]

    def optimum(self, flops: int | float) -> tuple[float, float]:
        """(N, D) of the lowest loss that 6 N D = flops can buy.

        Set the derivative along the line of equal cost to zero: alpha A /
        N^alpha = beta B / D^beta.
        """
        ratio = self.alpha * self.A / (self.beta * self.B)
        exponent = 1 / (self.alpha + self.beta)
        n = ratio**exponent * (flops / 6) ** (self.beta * exponent)
        return n, flops / 6 / n


HOFFMANN = Law(1.69, 406.4, 410.7, 0.34, 0.28)
"""Chinchilla's third approach as its paper prints it (eq. 10)."""
BESIROGLU = Law(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
"""The same points fitted again (Besiroglu et al. 2024): the printed fit had
stopped too early, and disagrees with Chinchilla's other two approaches."""


def fit(
    points: Sequence[tuple[float, float, float]],
    grid: np.ndarray | None = None,
) -> tuple[Law, float]:
    """The law with the least squared error, and its error.

    With both exponents held, E, A and B are a linear problem; so the
    exponents are tried on a grid, and no start can be unlucky.

    Args:
        points: (parameters, tokens, loss).
        grid: exponents to try; None: 0.02 to 1 in steps of 0.02.

    Returns:
        The law, and the root mean square of what it misses, in nats.

    Chapter: notebooks/18_budget.ipynb
    """
    n, d, loss = np.array(points, float).T
    grid = np.arange(1, 51) / 50 if grid is None else grid
    best: tuple[float, Law] | None = None
    for alpha in grid:
        for beta in grid:
            # Scaled to near 1, which keeps the linear problem sound.
            size, text = (n / n.max()) ** -alpha, (d / d.max()) ** -beta
            terms = np.stack([np.ones_like(n), size, text], 1)
            (e, a, b), *_ = np.linalg.lstsq(terms, loss, rcond=None)
            missed = float(np.mean((terms @ (e, a, b) - loss) ** 2))
            if min(e, a, b) > 0 and (best is None or missed < best[0]):
                best = missed, Law(
                    float(e), float(a * n.max()**alpha),
                    float(b * d.max()**beta), float(alpha), float(beta))
    if best is None:
        raise ValueError("points: no law with positive E, A and B fits them; "
                         "are the losses falling with size and tokens?")
    return best[1], best[0] ** 0.5


def training_flops(parameters: Number, tokens: Number) -> Number:
    """6 N D: forward and backward."""
    return 6 * parameters * tokens


def serving_flops(parameters: Number, tokens: Number) -> Number:
    """2 N a token, read or written: forward alone."""
    return 2 * parameters * tokens


def crossover(
    small: tuple[Number, Number], large: tuple[Number, Number],
    serving_cost: int | float = 1,
) -> Number:
    """Served tokens from which on the small model is the cheaper one.

    Two models of the same quality, each (parameters, training tokens).

    Args:
        small, large: the small one costs less to serve.
        serving_cost: price of an operation in serving over one in training;
            writing token by token keeps a GPU busier with waiting.

    Returns:
        0 if the small one was also cheaper to train.

    Chapter: notebooks/18_budget.ipynb
    """
    if small[0] >= large[0]:
        raise ValueError(
            f"small has {small[0]:.3g} parameters, large {large[0]:.3g}; the "
            "small one comes first")
    more = training_flops(*small) - training_flops(*large)
    saved = serving_cost * (
        serving_flops(large[0], 1) - serving_flops(small[0], 1))
    return max(0, more / saved)


def cheapest(
    law: Law, loss: float, served: Number, serving_cost: int | float = 1
) -> tuple[float, float]:
    """(N, D) that reach a loss at the least cost of training plus serving.

    Chapter: notebooks/18_budget.ipynb
    """
    n = np.logspace(7, 13, 6001)
    d = law.tokens_for(loss, n)
    cost = training_flops(n, d) + serving_cost * serving_flops(n, served)
    if not np.isfinite(cost).any():
        raise ValueError(
            f"loss={loss} is out of reach of any size; it must be above "
            f"E={law.E}")
    best = int(cost.argmin())
    return float(n[best]), float(d[best])
