"""Right and wrong answers to the exercises of notebooks/07_rope.ipynb.

Written from the formulas, not from the package.
"""

from __future__ import annotations

import math

import torch


def speed(j: int, head_dim: int) -> float:
    """theta_j in radians per token."""
    return 10000 ** (-2 * j / head_dim)


def turned(x, position, sign=1, pairs=None, exponent=2):
    """RoPE with loops; `sign=-1` turns back."""
    out = x.clone()
    size = len(x)
    for j in range(size // 2):
        a, b = pairs(j, size) if pairs else (2 * j, 2 * j + 1)
        angle = sign * position * 10000 ** (-exponent * j / size)
        c, s = math.cos(angle), math.sin(angle)
        out[a], out[b] = x[a] * c - x[b] * s, x[a] * s + x[b] * c
    return out


def halves(j, size):
    """Pairs as Hugging Face has them."""
    return j, j + size // 2


def dot(q, k, distance, sign=1):
    """The score of a query `distance` behind its key."""
    return (turned(q, distance, sign) * k).sum()


def only_cosines(q, k, distance):
    """Forgets that the components of a pair mix."""
    total = 0
    for j in range(4):
        c = math.cos(distance * speed(j, 8))
        total = total + c * (q[2 * j] * k[2 * j] + q[2 * j + 1] * k[2 * j + 1])
    return total


def unfinished(given, circle=2 * math.pi):
    """Pairs below one turn."""
    return sum(given["length"] * speed(j, given["head_dim"]) < circle
               for j in range(given["head_dim"] // 2))


RIGHT = {
    "07-rope-1": lambda g: 2 * math.pi / speed(g["j"], g["head_dim"]),
    "07-rope-2": lambda g: lambda y, m: turned(y, m, -1),
    "07-rope-3": lambda g: dot,
    "07-rope-4": lambda g: lambda w: torch.stack(
        [w[2 * j] for j in range(len(w) // 2)]
        + [w[2 * j + 1] for j in range(len(w) // 2)]),
    "07-rope-5": unfinished,
    "07-rope-6": lambda g: math.exp(
        math.log(10000) + math.log(g["factor"])
        / (1 - 2 / g["head_dim"])),
}

WRONG = {
    "07-rope-1": [
        (lambda g: speed(g["j"], g["head_dim"]), "angle from one token"),
        (lambda g: 1 / speed(g["j"], g["head_dim"]), "one radian"),
        (lambda g: 360 / speed(g["j"], g["head_dim"]), "not degrees"),
        (lambda g: 2 * math.pi / speed(g["j"] / 2, g["head_dim"]),
         "2j / K"),
    ],
    "07-rope-2": [
        (lambda g: turned, "same direction"),
        (lambda g: lambda y, m: y, "nothing happened"),
        (lambda g: lambda y, m: turned(y, m, -1, halves), "neighbours"),
        (lambda g: lambda y, m: turned(y, m, -1, exponent=1), "2j / K"),
        (lambda g: lambda y, m: turned(y, 1, -1), "left the position out"),
        (lambda g: lambda y, m: print(end=""), "returned nothing"),
    ],
    "07-rope-3": [
        (lambda g: lambda q, k, d: dot(q, k, d, -1), "sign of the distance"),
        (lambda g: lambda q, k, d: q @ k, "plain dot product"),
        (lambda g: only_cosines, "through the sine"),
        (lambda g: lambda q, k, d: dot(q, k, d) / 8 ** 0.5, r"sqrt\(K\)"),
    ],
    "07-rope-4": [
        (lambda g: lambda w: w, "not moved"),
        (lambda g: lambda w: torch.stack(
            [w[i // 2 + (i % 2) * 4] for i in range(8)]), "other way"),
        (lambda g: lambda w: torch.cat((w[1::2], w[0::2])), "odd rows"),
        (lambda g: lambda w: w[0::2], "shape"),
    ],
    "07-rope-5": [
        (lambda g: g["head_dim"] // 2 - unfinished(g), "do go round"),
        (lambda g: unfinished(g, 1), "one radian"),
        (lambda g: 2 * unfinished(g), "not components"),
    ],
    "07-rope-6": [
        (lambda g: 10000 * g["factor"], "not 1"),
        (lambda g: 10000 * g["factor"] ** (1 - 2 / g["head_dim"]),
         "upside down"),
        (lambda g: 10000 / g["factor"], "slower"),
        (lambda g: 10000 ** g["factor"], "not an exponent"),
    ],
}
