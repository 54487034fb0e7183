"""What learners answer in chapter 18, and the sentence they should get."""

from __future__ import annotations

import numpy as np


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


def _optimum(A, B, alpha, beta, flops, six=6, swap=False, factor=True,
             derived=True):
    power = (alpha if swap else beta) / (alpha + beta)
    ratio = alpha * A / (beta * B) if derived else A / B
    scale = ratio ** (1 / (alpha + beta)) if factor else 1
    return scale * (flops / six) ** power


def _tokens(E, A, B, alpha, beta, n, loss):
    return (B / (loss - E - A / n**alpha)) ** (1 / beta)


def _linear(points, ones=True, power=-0.5):
    n, d, loss = points.numpy().T
    columns = [n**power, d**power]
    if ones:
        columns.insert(0, np.ones_like(n))
    found, *_ = np.linalg.lstsq(np.stack(columns, 1), loss, rcond=None)
    return list(found) if ones else [0.0, *found]


def _served(small, large, small_tokens, large_tokens, price, each=2):
    more = 6 * (small * small_tokens - large * large_tokens)
    return more / (each * price * (large - small))


def _size(E, A, B, alpha, beta, loss, served, sizes):
    bills = []
    for n in sizes:
        left = loss - E - A / n**alpha
        tokens = (B / left) ** (1 / beta) if left > 0 else float("inf")
        bills.append(6 * n * tokens + 2 * n * served)
    return sizes[bills.index(min(bills))]


RIGHT = {
    "18-budget-1": _fixed(_optimum),
    "18-budget-2": _fixed(_tokens),
    "18-budget-3": _fixed(_linear),
    "18-budget-4": lambda given: _served(**given),
    "18-budget-5": lambda given: _size(**given),
}

WRONG = {
    "18-budget-1": [
        (_fixed(lambda *a: a[4] / 6 / _optimum(*a)), "these are the tokens"),
        (_fixed(lambda *a: _optimum(*a, swap=True)), "beta / "),
        (_fixed(lambda *a: _optimum(*a, six=1)), "6 operations"),
        (_fixed(lambda *a: _optimum(*a, factor=False)), "factor"),
        (_fixed(lambda *a: _optimum(*a, derived=False)), "derivative"),
    ],
    "18-budget-2": [
        (_fixed(lambda E, A, B, a, b, n, loss: (B / (loss - E)) ** (1 / b)),
         "finite size"),
        (_fixed(lambda E, A, B, a, b, n, loss:
                (B / (loss - A / n**a)) ** (1 / b)), "take it off first"),
        (_fixed(lambda E, A, B, a, b, n, loss:
                ((loss - E - A / n**a) / B) ** (1 / b)), "upside down"),
        (_fixed(lambda E, A, B, a, b, n, loss:
                (B / (loss - E - A / n**a)) ** b), "1 / beta"),
        (_fixed(lambda *a: -1.0), "cannot be"),
    ],
    "18-budget-3": [
        (_fixed(lambda p: [_linear(p)[i] for i in (0, 2, 1)]),
         "changed places"),
        (_fixed(lambda p: [_linear(p)[i] for i in (1, 2, 0)]),
         "order is E, A, B"),
        (_fixed(lambda p: _linear(p, ones=False)), "column of ones"),
        (_fixed(lambda p: _linear(p, power=0.5)), "falls with size"),
    ],
    "18-budget-4": [
        (lambda given: _served(**{**given, "price": 1}), "another price"),
        (lambda given: _served(**given, each=6), "forward alone"),
        (lambda given: _served(**{**given, "large_tokens": 0}),
         "trained too"),
        (lambda given: -_served(**given), "the sign"),
    ],
    "18-budget-5": [
        (lambda given: _size(**{**given, "served": 0}), "not paid yet"),
        (lambda given: given["sizes"][0], "never reaches|can reach"),
        (lambda given: given["sizes"][-1], "largest of all"),
    ],
}
