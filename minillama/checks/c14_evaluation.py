"""Exercises of chapter 14: normalisations, spaces, pass@k, averages, sizes.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import math
from typing import Any

import torch

from minillama.checks import answer, compare, exercise
from minillama.evals.measures import pass_at_k


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=draw))


def _question(draw: torch.Generator) -> dict[str, Any]:
    """Four choices of which each rule takes another one."""
    lengths = [6, 4, 30, 20]
    nats = [-4.0, -8.0, -12.0, -13.0]
    order = torch.randperm(4, generator=draw).tolist()
    shift = 0.1 * _whole(draw, 0, 5)
    return {"choices": ["x" * lengths[n] for n in order],
            "nats": [nats[n] - shift for n in order]}


@exercise("14-evaluation-1", given=_question)
def per_character(
    mine: Any, choices: list[str], nats: list[float]
) -> str | None:
    """A function (choices, nats) -> index of the choice that is taken."""
    rates = [n / len(c) for n, c in zip(nats, choices)]
    return compare(
        answer(mine, choices, nats), rates.index(max(rates)),
        (nats.index(max(nats)), "this takes the largest sum, which favours "
         "short choices; divide by the characters"),
        (rates.index(min(rates)), "log-probabilities are negative: the "
         "largest is the one nearest to 0"),
        (nats.index(min(nats)), "this takes the least likely choice"),
        (max(rates), "return the index of the choice, not its value"))


def _baseline(draw: torch.Generator) -> dict[str, Any]:
    order = torch.randperm(3, generator=draw).tolist()
    nats, alone = [-5.0, -9.0, -12.0], [-4.0, -12.0, -11.0]
    shift = 0.5 * _whole(draw, 0, 9)
    return {"nats": [nats[n] - shift for n in order],
            "alone": [alone[n] for n in order]}


@exercise("14-evaluation-2", given=_baseline)
def unconditional(
    mine: Any, nats: list[float], alone: list[float]
) -> str | None:
    """A function (nats, alone) -> what is compared, one number a choice."""
    return compare(
        answer(mine, nats, alone), [a - b for a, b in zip(nats, alone)],
        ([b - a for a, b in zip(nats, alone)], "the sign is turned: what "
         "the question adds is nats - alone"),
        ([a / b for a, b in zip(nats, alone)], "divide the probabilities; "
         "their logarithms are subtracted"),
        ([math.exp(a - b) for a, b in zip(nats, alone)], "that is the ratio "
         "itself; return its logarithm"),
        ([a + b for a, b in zip(nats, alone)], "a product of probabilities; "
         "the baseline has to be divided out"))


def _samples(draw: torch.Generator) -> dict[str, Any]:
    n = _whole(draw, 8, 20)
    return {"n": n, "c": _whole(draw, 1, 4), "k": _whole(draw, 2, 5)}


@exercise("14-evaluation-3", given=_samples)
def at_k(mine: Any, n: int, c: int, k: int) -> str | None:
    """A function (n, c, k) -> the unbiased estimate of pass@k."""
    return compare(
        answer(mine, n, c, k), pass_at_k(n, c, k),
        (1 - (1 - c / n) ** k, "this draws with replacement and is too low; "
         "count the subsets of k among the n samples"),
        (c / n, "that is pass@1"),
        (math.comb(n - c, k) / math.comb(n, k), "that is the chance that "
         "none of the k is right"),
        (min(1.0, k * c / n), "chances of overlapping events do not add up"))


def _spaced(draw: torch.Generator) -> dict[str, Any]:
    words = "yes no both neither seven green".split()
    return {"context": "The answer is" + " " * _whole(draw, 1, 4),
            "continuation": words[_whole(draw, 0, len(words))]}


@exercise("14-evaluation-4", given=_spaced)
def moved(mine: Any, context: str, continuation: str) -> str | None:
    """A function (context, continuation) -> both, spaces moved."""
    found = answer(mine, context, continuation)
    bare = context.rstrip(" ")
    spaces = context[len(bare):]
    if list(found) == [bare, spaces + continuation]:
        return None
    if "".join(found) != context + continuation:
        return ("nothing may be lost or added: joined, the two are the same "
                "text as before")
    if list(found) == [context, continuation]:
        return "the context still ends in a space"
    return "only the spaces at the end of the context move"


def _groups(draw: torch.Generator) -> dict[str, Any]:
    counts = [100 * _whole(draw, 1, 9) for _ in range(3)] + [1500]
    return {"scores": [float(_whole(draw, 20, 90)) for _ in range(3)] + [95.],
            "counts": counts}


@exercise("14-evaluation-5", given=_groups)
def micro(mine: Any, scores: list[float], counts: list[int]) -> str | None:
    """A function (scores, counts) -> the average over all questions."""
    total = sum(s * c for s, c in zip(scores, counts))
    return compare(
        answer(mine, scores, counts), total / sum(counts),
        (sum(scores) / len(scores), "a mean of means; a subject with more "
         "questions weighs more"),
        (total / len(scores), "divide by the questions, not the subjects"),
        (total, "that is the sum; divide by the number of questions"))


@exercise("14-evaluation-6", given=lambda draw: {
    "p": 0.05 * _whole(draw, 8, 17), "points": float(_whole(draw, 1, 4))})
def enough(mine: Any, p: float, points: float) -> str | None:
    """A function (p, points) -> items for an interval of +- points."""
    width = points / 100
    return compare(
        answer(mine, p, points),
        math.ceil(1.96**2 * p * (1 - p) / width**2),
        (math.ceil(1.96 * math.sqrt(p * (1 - p)) / width), "the half width "
         "falls with the root of n: square it"),
        (math.ceil(p * (1 - p) / width**2), "one standard deviation is not "
         "95 %: 1.96 of them"),
        (math.ceil(1.96**2 * p * (1 - p) / points**2), "points are "
         "hundredths"),
        (math.ceil(1.96**2 * p / width**2), "the variance of a yes or no is "
         "p (1 - p)"))
