"""Right and wrong answers to the exercises of notebooks/05_rmsnorm.ipynb.

Written from the formulas, not from the package.
"""

from __future__ import annotations

import math


def rms(x):
    """Root mean square."""
    return sum(v * v for v in x.tolist()) ** 0.5 / len(x) ** 0.5


def backward(x, g, inner=None, power=3, sign=-1):
    """The gradient of y = x / rms(x)."""
    r = rms(x)
    inner = (x * g).sum() / len(x) if inner is None else inner(x, g)
    return g / r + sign * x * inner / r ** power


RIGHT = {
    "05-rmsnorm-1": lambda g: lambda x: x / rms(x),
    "05-rmsnorm-2": lambda g: 1 / math.sqrt(1 + g["eps"] / g["rms"] ** 2),
    "05-rmsnorm-3": lambda g: lambda x: (x.mean() / rms(x)) ** 2,
    "05-rmsnorm-4": lambda g: lambda x, norm: norm(x - x.mean()),
    "05-rmsnorm-5": lambda g: (2 * g["n_layers"] + 1) ** 0.5,
    "05-rmsnorm-6": lambda g: backward,
}

WRONG = {
    "05-rmsnorm-1": [
        (lambda g: lambda x: x / x.norm(), "root of their mean"),
        (lambda g: lambda x: x / rms(x) ** 2, "root is missing"),
        (lambda g: lambda x: x / x.abs().mean(), "absolute"),
        (lambda g: lambda x: (x - x.mean()) / x.std(correction=0),
         "LayerNorm"),
        (lambda g: lambda x: x / x.std(), "standard deviation"),
        (lambda g: lambda x: print(end=""), "returned nothing"),
    ],
    "05-rmsnorm-2": [
        (lambda g: g["rms"] / (g["rms"] + g["eps"]), "before the root"),
        (lambda g: g["rms"] / (g["rms"] + g["eps"] ** 0.5),
         "sum of the roots"),
        (lambda g: g["rms"] / (g["rms"] + g["eps"]) ** 0.5, r"rms \*\* 2"),
        (lambda g: g["rms"] ** 2 / (g["rms"] ** 2 + g["eps"]),
         "root is missing"),
    ],
    "05-rmsnorm-3": [
        (lambda g: lambda x: x.mean() ** 2 / (x * x).sum(), "D times"),
        (lambda g: lambda x: x.mean().abs() / rms(x), "squared length"),
        (lambda g: lambda x: 1 - (x.mean() / rms(x)) ** 2, "keeps"),
        (lambda g: lambda x: x.mean().abs() / x.abs().mean(),
         "compare squares"),
    ],
    "05-rmsnorm-4": [
        (lambda g: lambda x, norm: norm(x), "RMSNorm itself"),
        (lambda g: lambda x, norm: norm(x) - norm(x).mean(),
         "after normalising"),
        (lambda g: lambda x, norm: (x - x.mean()) / x.std(), "D - 1"),
        (lambda g: lambda x, norm: x - x.mean(), "scale is still"),
    ],
    "05-rmsnorm-5": [
        (lambda g: (1 + g["n_layers"]) ** 0.5, "adds twice"),
        (lambda g: 1 + 2 * g["n_layers"], "squares add up"),
        (lambda g: 1 + g["n_layers"], "adds twice"),
        (lambda g: (2 * g["n_layers"]) ** 0.5, "begins with size 1"),
        (lambda g: 2 ** g["n_layers"], "without norm"),
    ],
    "05-rmsnorm-6": [
        (lambda g: lambda x, gy: gy / rms(x), "constant"),
        (lambda g: lambda x, gy: backward(x, gy, lambda x, g: x @ g),
         "1 / D"),
        (lambda g: lambda x, gy: backward(x, gy, sign=1), "sign"),
        (lambda g: lambda x, gy: backward(x, gy, power=2), "cube"),
        (lambda g: lambda x, gy: gy * rms(x), "do not multiply"),
    ],
}
