"""Exercises of notebooks/07_rope.ipynb."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minillama import rope
from minillama.checks import answer, compare, exercise


def _pick(draw: torch.Generator, *values: int) -> int:
    """One of the values, drawn."""
    return values[int(torch.randint(len(values), (), generator=draw))]


def _pair(draw: torch.Generator) -> dict:
    return {"head_dim": _pick(draw, 32, 64, 128),
            "j": int(torch.randint(3, 12, (), generator=draw))}


@exercise("07-rope-1", given=_pair)
def whole_turn(mine: object, head_dim: int, j: int) -> str | None:
    """A number: tokens until pair j has gone round once."""
    freq = rope.frequencies(head_dim)[j].item()
    return compare(
        mine,
        2 * math.pi / freq,
        (freq, "that is the angle from one token to the next; the question "
               "is how many tokens make a whole turn"),
        (1 / freq, "you turned by one radian; a whole turn is 2 pi"),
        (360 / freq, "the angles are radians, not degrees: a whole turn is "
                     "2 pi"),
        (2 * math.pi * 10000 ** (j / head_dim),
         "the exponent is 2j / K: there are K/2 pairs, not K"),
        tolerance=2e-3,
    )


def _vector(draw: torch.Generator) -> dict:
    return {"x": torch.randn(8, generator=draw, dtype=torch.float64),
            "position": int(torch.randint(2, 30, (), generator=draw))}


@exercise("07-rope-2", given=_vector)
def turn_back(mine: object, x: Tensor, position: int) -> str | None:
    """A function (y, position) -> x: undo RoPE on one vector (K,)."""
    angles = rope.angles(8, 1, start=position)
    turned = rope.apply(x[None], angles)[0]
    halves = _halves_apply(turned, -angles[0])
    wrong_speed = rope.angles(8, 1, theta=100.0, start=position)
    return compare(
        answer(mine, turned, position),
        x,
        (rope.apply(turned[None], angles)[0],
         "you turned it once more in the same direction; going back needs "
         "the angle -m * theta_j"),
        (turned, "this vector is still turned: nothing happened to it"),
        (halves, "you paired component j with j + K/2; LLaMA's pairs are "
                 "neighbours, (0, 1), (2, 3), ..."),
        (rope.apply(turned[None], -wrong_speed)[0],
         "the exponent is 2j / K: there are K/2 pairs, not K"),
        (rope.apply(turned[None], -rope.angles(8, 1, start=1))[0],
         "the angle of pair j is position * theta_j; you left the position "
         "out"),
    )


def _halves_apply(x: Tensor, angles: Tensor) -> Tensor:
    """RoPE with component j paired with j + K/2, as Hugging Face has it."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat(
        (first * cos - second * sin, first * sin + second * cos), dim=-1)


def _two(draw: torch.Generator) -> dict:
    q, k = torch.randn(2, 8, generator=draw, dtype=torch.float64)
    return {"q": q, "k": k,
            "distance": int(torch.randint(2, 20, (), generator=draw))}


@exercise("07-rope-3", given=_two)
def score(mine: object, q: Tensor, k: Tensor, distance: int) -> str | None:
    """A function (q, k, distance) -> number, distance = m - n."""

    def dot(apart: int) -> Tensor:
        return (q * rope.apply(k[None], rope.angles(8, 1, start=apart))
                [0]).sum()

    cos = rope.angles(8, 1, start=distance)[0].cos().repeat_interleave(2)
    return compare(
        answer(mine, q, k, distance),
        dot(-distance),
        (dot(distance), "the sign of the distance is turned round: it is "
                        "m - n, query minus key, so the key goes back by it"),
        (dot(0), "this is the plain dot product; the distance does not "
                 "enter it"),
        ((q * k * cos).sum(),
         "the cosine part is right, but the two components of a pair also "
         "mix, through the sine"),
        (dot(-distance) / math.sqrt(8), "leave the division by sqrt(K) to "
                                        "attention; the score is q . k"),
    )


@exercise("07-rope-4")
def pairs_to_halves(mine: object) -> str | None:
    """A function w (K, D) -> (K, D): neighbours to halves, rows moved."""
    rows = torch.arange(8.0)[:, None].expand(8, 3)
    return compare(
        answer(mine, rows),
        torch.cat((rows[0::2], rows[1::2])),
        (rows, "the rows have not moved"),
        (rows.unflatten(0, (2, 4)).transpose(0, 1).flatten(0, 1),
         "this goes the other way, from halves to neighbours: new row 1 "
         "must be old row 2"),
        (torch.cat((rows[1::2], rows[0::2])),
         "the odd rows came first; the first half holds the first component "
         "of each pair, the even rows"),
    )


def _context(draw: torch.Generator) -> dict:
    return {"head_dim": _pick(draw, 64, 96, 128),
            "length": _pick(draw, 512, 1024, 2048, 4096)}


@exercise("07-rope-5", given=_context)
def unfinished(mine: object, head_dim: int, length: int) -> str | None:
    """A whole number: pairs that never finish one turn in `length`."""
    freqs = rope.frequencies(head_dim)
    below = int((length * freqs < 2 * math.pi).sum())
    return compare(
        mine,
        below,
        (head_dim // 2 - below, "those are the pairs that do go round; the "
                                "question is about the others"),
        (int((length * freqs < 1).sum()),
         "you asked for one radian; a whole turn is 2 pi"),
        (2 * below, "count pairs, not components"),
        tolerance=1e-9,
    )


def _stretch(draw: torch.Generator) -> dict:
    return {"head_dim": _pick(draw, 32, 64, 128),
            "factor": _pick(draw, 2, 4, 8, 16)}


@exercise("07-rope-6", given=_stretch)
def new_base(mine: object, head_dim: int, factor: int) -> str | None:
    """A number: the base at which the slowest pair turns 1/factor as fast."""
    return compare(
        mine,
        10000 * factor ** (head_dim / (head_dim - 2)),
        (10000 * factor, "close, but the slowest pair has the exponent "
                         "(K - 2) / K, not 1"),
        (10000 * factor ** ((head_dim - 2) / head_dim),
         "the exponent is upside down: solve base^((K - 2) / K) = factor * "
         "10000^((K - 2) / K) for the base"),
        (10000 / factor, "a smaller base turns faster; the slowest pair has "
                         "to become slower"),
        (10000.0 ** factor, "the factor multiplies the wavelength; it is not "
                            "an exponent of the base"),
        tolerance=1e-3,
    )
