"""Checks of chapter 0: the loss, its units, and what training costs.

Chapter: notebooks/00_tour.ipynb
"""

from __future__ import annotations

import math
from typing import Any

import torch

from minillama.checks import answer, compare, exercise


def _draw_vocabulary(draw: torch.Generator) -> dict[str, Any]:
    return {"vocab_size": 2 ** int(torch.randint(8, 16, (), generator=draw))}


@exercise("00-tour-1", given=_draw_vocabulary)
def first_loss(mine: Any, vocab_size: int) -> str | None:
    """The loss in nats of a model that knows nothing yet."""
    return compare(
        mine, math.log(vocab_size),
        (math.log2(vocab_size), "those are bits; the loss is in nats, so "
         "take the natural logarithm"),
        (-math.log(vocab_size), "the loss is minus the logarithm of the "
         "probability: it cannot be negative"),
        (1 / vocab_size, "that is the probability of the right token; the "
         "loss is minus its logarithm"),
        tolerance=1e-3)


def _draw_loss(draw: torch.Generator) -> dict[str, Any]:
    tokens = int(torch.randint(1000, 9000, (), generator=draw))
    return {
        "nats_per_token": round(
            float(torch.rand((), generator=draw)) + 2.5, 2),
        "tokens": tokens,
        "text_bytes": tokens * 3 - int(
            torch.randint(0, 500, (), generator=draw)),
    }


@exercise("00-tour-2", given=_draw_loss)
def bits_per_byte(
    mine: Any, nats_per_token: float, tokens: int, text_bytes: int
) -> str | None:
    """A function (nats per token, tokens, bytes) -> bits per byte."""
    nats = nats_per_token * tokens
    return compare(
        answer(mine, nats_per_token, tokens, text_bytes),
        nats / math.log(2) / text_bytes,
        (nats / text_bytes, "those are nats per byte; a bit is ln 2 nats, "
         "so divide by ln 2"),
        (nats * math.log(2) / text_bytes, "a nat is more than a bit: divide "
         "by ln 2, do not multiply"),
        (nats_per_token / math.log(2), "those are bits per token; spread "
         "them over the bytes that the tokens stand for"),
        (nats_per_token / math.log(2) / text_bytes, "you divided the loss "
         "of one token by the bytes of all of them"))


def _draw_run(draw: torch.Generator) -> dict[str, Any]:
    return {
        "steps": 100 * int(torch.randint(2, 40, (), generator=draw)),
        "batch_size": 2 ** int(torch.randint(1, 8, (), generator=draw)),
        "seq_len": 2 ** int(torch.randint(6, 12, (), generator=draw)),
        "parameters": 100_000 * int(torch.randint(
            3, 99, (), generator=draw)),
    }


@exercise("00-tour-3", given=_draw_run)
def training_flops(
    mine: Any, steps: int, batch_size: int, seq_len: int, parameters: int
) -> str | None:
    """A function (steps, batch, length, parameters) -> FLOPs by 6 N D."""
    tokens = steps * batch_size * seq_len
    return compare(
        answer(mine, steps, batch_size, seq_len, parameters),
        6 * parameters * tokens,
        (2 * parameters * tokens, "that is the forward pass alone; the "
         "backward pass costs twice as much again"),
        (6 * parameters * steps * batch_size, "each sequence is seq_len "
         "tokens: the product counts tokens, not sequences"),
        (6 * parameters * steps, "one step trains on a whole batch of "
         "sequences, not on one token"))
