"""Right and wrong answers to the exercises of notebooks/06_swiglu.ipynb.

Written from the formulas, not from the package.
"""

from __future__ import annotations

import math

import torch


def sigmoid(z):
    """1 / (1 + e^-z)."""
    return 1 / (1 + (-z).exp())


def width(g, exact=None, up=True):
    """The exact width, rounded to a multiple."""
    exact = 8 * g["dim"] / 3 if exact is None else exact
    steps = exact / g["multiple_of"]
    return g["multiple_of"] * (math.ceil(steps) if up else math.floor(steps))


def layer(mix):
    """A layer whose hidden vector is mix(gate, up)."""
    return lambda x, w_gate, w_up, w_down: w_down @ mix(w_gate @ x, w_up @ x)


def share(g, matrices=3, others=4):
    """The feed-forward share of a layer."""
    ffn = matrices * g["hidden"]
    return ffn / (ffn + others * g["dim"])


def slope(z):
    """The derivative of z / (1 + e^-z)."""
    return sigmoid(z) + z * sigmoid(z) * (1 - sigmoid(z))


def both(d_gate, d_up):
    """A function that returns the two gradients as a pair."""
    return lambda g, u, b: (d_gate(g, u, b), d_up(g, u, b))


def right_up(g, u, b):
    """The gradient of up."""
    return b * g * sigmoid(g)


RIGHT = {
    "06-swiglu-1": width,
    "06-swiglu-2": lambda g: layer(lambda z, u: z * sigmoid(z) * u),
    "06-swiglu-3": share,
    "06-swiglu-4": lambda g: both(lambda g, u, b: b * u * slope(g), right_up),
    "06-swiglu-5": lambda g: (
        torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([[0, 1.0], [0, -1]]),
        torch.tensor([[1.0, 1]])),
}

WRONG = {
    "06-swiglu-1": [
        (lambda g: 8 * g["dim"] // 3, "before the rounding"),
        (lambda g: width(g, up=False), "rounded down"),
        (lambda g: width(g, 4 * g["dim"]), "without the 2/3"),
        (lambda g: 4 * g["dim"], "without the 2/3|too large"),
    ],
    "06-swiglu-2": [
        (lambda g: layer(lambda z, u: z * u * sigmoid(u)), "not to up"),
        (lambda g: layer(lambda z, u: z * u * sigmoid(z * u)),
         "before the product"),
        (lambda g: layer(lambda z, u: sigmoid(z) * u), "GLU"),
        (lambda g: layer(lambda z, u: z.clamp(min=0) * u), "ReGLU"),
        (lambda g: layer(lambda z, u: z * sigmoid(z)), "w_up is missing"),
        (lambda g: layer(lambda z, u: z * u), "bilinear"),
        (lambda g: lambda x, a, b, c: sigmoid(a @ x) * (a @ x) * (b @ x),
         "shape|w_down"),
    ],
    "06-swiglu-3": [
        (lambda g: share(g, matrices=2), "three matrices"),
        (lambda g: 0.75 * g["hidden"] / g["dim"], "attention alone"),
        (lambda g: 1 - share(g), "share of attention"),
        (lambda g: share(g, others=1), "four matrices"),
        (lambda g: share(g, others=3), "wo"),
        (lambda g: 100 * share(g), "per cent"),
    ],
    "06-swiglu-4": [
        (lambda g: lambda g, u, b: (right_up(g, u, b), b * u * slope(g)),
         "swapped"),
        (lambda g: both(lambda g, u, b: b * u * sigmoid(g), right_up),
         "second term"),
        (lambda g: both(
            lambda g, u, b: b * u * sigmoid(g) * (1 - sigmoid(g)), right_up),
         "derivative of the sigmoid"),
        (lambda g: both(lambda g, u, b: b * slope(g), right_up),
         "multiplied by up"),
        (lambda g: both(lambda g, u, b: b * u * slope(g),
                        lambda g, u, b: b * g), "not by the gate"),
    ],
    "06-swiglu-5": [
        (lambda g: ([[1, 0], [0, 0]], [[0, 1], [0, 0]], [[1, 1]]),
         "second unit open"),
        (lambda g: ([[1, 0], [-1, 0]], [[0, 1], [0, -1]], [[-1, -1]]),
         "sign is turned"),
        (lambda g: ([[1, 0], [1, 0]], [[0, 1], [0, 1]], [[1, 1]]),
         "both units do the same"),
        (lambda g: ([[1, 0], [-1, 0]], [[0, 1], [0, 1]], [[1, 1]]),
         "turn the sign"),
        (lambda g: ([[1, 0]], [[0, 1]], [[1]]), "shapes"),
        (lambda g: 6.0, "three matrices"),
    ],
}
