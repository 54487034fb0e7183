"""Exercises of chapter 15: what is scored, the mean, the mask, packing.

Chapter: notebooks/15_instruction_tuning.ipynb
"""

from __future__ import annotations

from typing import Any

import torch

from minillama.checks import answer, compare, exercise
from minillama.finetune import own_example, pack


def _whole(draw: torch.Generator, low: int, high: int, count: int
           ) -> list[int]:
    return torch.randint(low, high, (count,), generator=draw).tolist()


def _lengths(draw: torch.Generator) -> dict[str, Any]:
    return {"prompts": _whole(draw, 8, 30, 5),
            "answers": _whole(draw, 1, 12, 5)}


@exercise("15-tuning-1", given=_lengths)
def scored(
    mine: Any, prompts: list[int], answers: list[int]
) -> str | None:
    """A whole number: targets that count in the loss."""
    examples = len(answers)
    return compare(
        mine, sum(answers) + examples,
        (sum(answers), "the end-of-text token of each answer is learnt too, "
         "or the model never stops"),
        (sum(prompts) + sum(answers) + examples, "prompts are read, not "
         "learnt: no target of a prompt counts"),
        (sum(prompts) + sum(answers), "prompts are read, not learnt, and "
         "each answer ends in an end-of-text token"),
        (sum(answers) - examples, "the first token of an answer counts: it "
         "is predicted from the prompt's last; and so does the end-of-text"),
        (sum(answers) + 1, "one end-of-text token each, not one in all"),
        tolerance=0.0)


def _parts(draw: torch.Generator) -> dict[str, Any]:
    sizes = [n + 1 + 3 * i for i, n in enumerate(_whole(draw, 0, 3, 3))]
    return {"parts": [
        [round(x, 2) for x in
         (3 * torch.rand(size, generator=draw) + 3 - i).tolist()]
        for i, size in enumerate(sizes)]}


@exercise("15-tuning-2", given=_parts)
def loss(mine: Any, parts: list[list[float]]) -> str | None:
    """A number: the loss of a step of three micro-batches."""
    flat = [x for part in parts for x in part]
    means = [sum(part) / len(part) for part in parts]
    return compare(
        mine, sum(flat) / len(flat),
        (sum(means) / len(means), "that is the mean of means: a token of the "
         "shortest part would weigh the most"),
        (sum(means), "those are three means added; every token has the same "
         "weight, one over the number of all"),
        (sum(flat), "divide by the number of tokens"),
        (sum(flat) / len(parts), "divide by the number of tokens of the "
         "step, not by the parts"))


def _row(draw: torch.Generator) -> dict[str, Any]:
    ids: list[int] = []
    for length in _whole(draw, 2, 6, 3):
        ids += [1, *_whole(draw, 3, 500, length)]
    return {"ids": torch.tensor(ids)}


@exercise("15-tuning-3", given=_row)
def mask(mine: Any, ids: torch.Tensor) -> str | None:
    """A function ids -> (T, T) tensor, True where query t may see key s."""
    right = own_example(ids[None], 1)[0, 0]
    same = right | right.T
    size = len(ids)
    return compare(
        torch.as_tensor(answer(mine, ids)).to(torch.float64),
        right,
        (torch.ones(size, size).tril(), "the examples see each other: a key "
         "must also be of the query's own example"),
        (same, "the future is seen: a key may not be later than its query"),
        (right.T, "queries are rows and keys are columns; yours is the "
         "other way round"),
        (right & ~torch.eye(size, dtype=torch.bool), "a query sees its own "
         "position too"),
        (~right, "True and False are the wrong way round"))


def _in_turn(lengths: list[int], room: int) -> int:
    """Rows of first fit in the order given."""
    free: list[int] = []
    for length in lengths:
        row = next((r for r, f in enumerate(free) if f >= length), len(free))
        free += [room] * (row == len(free))
        free[row] -= length
    return len(free)


def _examples(draw: torch.Generator) -> dict[str, Any]:
    while True:
        lengths = _whole(draw, 4, 26, 14)
        rows = len(pack(lengths, 40))
        if _in_turn(lengths, 40) > rows > -(-sum(lengths) // 40):
            return {"lengths": lengths, "room": 40}


@exercise("15-tuning-4", given=_examples)
def rows_needed(mine: Any, lengths: list[int], room: int) -> str | None:
    """A function (lengths, room) -> the number of rows of first fit."""
    return compare(
        answer(mine, list(lengths), room),
        len(pack(lengths, room)),
        (len(lengths), "nothing is packed: that is one row an example"),
        (_in_turn(lengths, room), "put the longest first; in the order given "
         "the small ones block the room"),
        (-(-sum(lengths) // room), "that is all tokens over the room: it "
         "would cut examples in two"),
        tolerance=0.0)
