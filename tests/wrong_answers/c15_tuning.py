"""Right and wrong answers to the exercises of 15_instruction_tuning.ipynb.

Written from the definitions, not from the package.
"""

from __future__ import annotations

import torch


def tokens(g):
    """All losses in a row."""
    return [loss for part in g["parts"] for loss in part]


def means(g):
    """The mean of each part."""
    return [sum(part) / len(part) for part in g["parts"]]


def visible(rule):
    """A mask by loops."""
    def mask(ids):
        number, numbers = 0, []
        for token in ids.tolist():
            number += token == 1
            numbers.append(number)
        size = len(numbers)
        return torch.tensor([[rule(t, s, numbers[t] == numbers[s])
                              for s in range(size)] for t in range(size)])
    return mask


def place(lengths, room, longest_first=True):
    """First fit; the number of rows."""
    rows = []
    for length in sorted(lengths, reverse=True) if longest_first else lengths:
        for row in rows:
            if sum(row) + length <= room:
                row.append(length)
                break
        else:
            rows.append([length])
    return len(rows)


RIGHT = {
    "15-tuning-1": lambda g: sum(n + 1 for n in g["answers"]),
    "15-tuning-2": lambda g: sum(tokens(g)) / len(tokens(g)),
    "15-tuning-3": lambda g: visible(lambda t, s, same: same and s <= t),
    "15-tuning-4": lambda g: place,
}

WRONG = {
    "15-tuning-1": [
        (lambda g: sum(g["answers"]), "never stops"),
        (lambda g: sum(g["prompts"]) + sum(g["answers"]) + 5,
         "read, not learnt: no target"),
        (lambda g: sum(g["prompts"]) + sum(g["answers"]),
         "read, not learnt, and"),
        (lambda g: sum(g["answers"]) - 5, "first token of an answer"),
        (lambda g: sum(g["answers"]) + 1, "one end-of-text token each"),
    ],
    "15-tuning-2": [
        (lambda g: sum(means(g)) / 3, "mean of means"),
        (lambda g: sum(means(g)), "three means added"),
        (lambda g: sum(tokens(g)), "divide by the number of tokens$"),
        (lambda g: sum(tokens(g)) / 3, "not by the parts"),
    ],
    "15-tuning-3": [
        (lambda g: visible(lambda t, s, same: s <= t), "see each other"),
        (lambda g: visible(lambda t, s, same: same), "future is seen"),
        (lambda g: visible(lambda t, s, same: same and s >= t),
         "queries are rows"),
        (lambda g: visible(lambda t, s, same: same and s < t),
         "its own position"),
        (lambda g: visible(lambda t, s, same: not (same and s <= t)),
         "wrong way round"),
    ],
    "15-tuning-4": [
        (lambda g: lambda lengths, room: len(lengths), "nothing is packed"),
        (lambda g: lambda lengths, room: place(lengths, room, False),
         "longest first"),
        (lambda g: lambda lengths, room: -(-sum(lengths) // room),
         "cut examples in two"),
        (lambda g: lambda lengths, room: place(lengths, room) + 1,
         "longest first|too large"),
    ],
}
