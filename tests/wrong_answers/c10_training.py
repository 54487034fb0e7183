"""Chapter 10: the right answer to each exercise, and slips learners make."""

from __future__ import annotations

import math


def _rate(step, max_lr, warmup_steps, total_steps, end=0.1, begin=None):
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    begin = warmup_steps if begin is None else begin
    done = (step - begin) / (total_steps - begin)
    return max_lr * (end + (1 - end) * (1 + math.cos(math.pi * done)) / 2)


def _adamw(p, g, m, v, t, lr, decay=0.1, l2=0.0, correct=True, sign=-1):
    g = g + l2 * p
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
    if correct:
        m, v = m / (1 - 0.9**t), v / (1 - 0.95**t)
    return p - lr * decay * p + sign * lr * m / (v.sqrt() + 1e-8)


def _mfu(given, per_weight=6):
    weights = {"7B": 6738415616, "13B": 13015864320, "33B": 32528943616}
    return (per_weight * weights[given["preset"]]
            * given["tokens_per_second"] / given["peak"])


def _count(given):
    return given["steps_done"] * given["batch_size"]


def _extra(given):
    return given["small_training"] - given["large_training"]


def _saved(given):
    return given["large_per_token"] - given["small_per_token"]


RIGHT = {
    "10-training-1": lambda given: _rate,
    "10-training-2": lambda given: _adamw,
    "10-training-3": lambda given: sum(given["sums"]) / sum(given["counts"]),
    "10-training-4": _mfu,
    "10-training-5": lambda given: divmod(_count(given), given["windows"]),
    "10-training-6": lambda given: _extra(given) / _saved(given),
}

WRONG = {
    "10-training-1": [
        (lambda given: lambda *a: _rate(*a, end=0.0), "tenth of the peak"),
        (lambda given: lambda *a: _rate(*a, begin=0), "warm-up ends"),
        (lambda given: lambda s, m, w, t: _rate(s, m, 0, t), "no warm-up"),
        (lambda given: _rate(1, 1e-3, 10, 100), "a function is wanted"),
    ],
    "10-training-2": [
        (lambda given: lambda *a: _adamw(*a, decay=0, l2=0.1), "L2"),
        (lambda given: lambda *a: _adamw(*a, decay=0), "decay is missing"),
        (lambda given: lambda *a: _adamw(*a, correct=False), "corrections"),
        (lambda given: lambda *a: _adamw(*a, sign=1), "uphill"),
    ],
    "10-training-3": [
        (lambda given: sum(
            s / n for s, n in zip(given["sums"], given["counts"])) / 4,
         "mean of means"),
        (lambda given: sum(given["sums"]), "number of targets"),
        (lambda given: sum(given["sums"]) / 4, "per micro-batch"),
    ],
    "10-training-4": [
        (lambda given: _mfu(given, 2), "forward pass alone"),
        (lambda given: 100 * _mfu(given), "per cent"),
        (lambda given: _mfu(given, 1), "six operations"),
        (lambda given: _mfu(given) / 2048, "one GPU already"),
    ],
    "10-training-5": [
        (lambda given: divmod(_count(given) - 1, given["windows"]),
         "read already"),
        (lambda given: divmod(
            _count(given) - given["batch_size"], given["windows"]),
         "repeats"),
        (lambda given: divmod(
            _count(given) + given["batch_size"], given["windows"]), "skips"),
        (lambda given: divmod(given["steps_done"], given["windows"]),
         "batch_size windows"),
        (lambda given: (_count(given) // given["windows"] + 1,
                        _count(given) % given["windows"]),
         "epochs are counted from 0"),
    ],
    "10-training-6": [
        (lambda given: _extra(given) / given["large_per_token"],
         "not free"),
        (lambda given: given["small_training"] / _saved(given),
         "extra training"),
        (lambda given: -_extra(given) / _saved(given), "sign"),
    ],
}
