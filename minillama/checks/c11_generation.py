"""Checks of chapter 11: temperature, top-p, the cache, others' weights.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minillama.checks import answer, compare, exercise
from minillama.config import ModelConfig
from minillama.generate import empty_cache, top_p_filter
from minillama.model import Transformer
from minillama.weights.hf import to_halves, to_neighbours


def _draw_logits(draw: torch.Generator) -> dict[str, Any]:
    return {"logits": 2 * torch.randn(6, generator=draw),
            "temperature": round(
                0.4 + float(torch.rand((), generator=draw)) / 2, 2)}


@exercise("11-generation-1", given=_draw_logits)
def cooled(mine: Any, logits: Tensor, temperature: float) -> str | None:
    """A function (logits, temperature) -> probabilities."""
    return compare(
        answer(mine, logits, temperature),
        torch.softmax(logits / temperature, dim=-1),
        (torch.softmax(logits * temperature, dim=-1),
         "a low temperature must sharpen: divide by it, do not multiply"),
        (torch.softmax(logits, dim=-1) / temperature,
         "divide the logits, before the softmax; dividing probabilities "
         "leaves a sum that is not 1"),
        (logits / temperature, "those are still logits: a softmax makes "
         "them probabilities"),
        (torch.softmax(logits, dim=-1), "the temperature has no effect yet"))


def _draw_probs(draw: torch.Generator) -> dict[str, Any]:
    probs = torch.softmax(2 * torch.randn(8, generator=draw), dim=-1)
    ordered = probs.sort(descending=True).values
    # Between the sum of two and of three tokens, so that both cuts differ.
    top_p = float(ordered[:2].sum() + 0.5 * ordered[2])
    return {"probs": probs, "top_p": round(top_p, 4)}


@exercise("11-generation-2", given=_draw_probs)
def nucleus(mine: Any, probs: Tensor, top_p: float) -> str | None:
    """A function (probs, top_p) -> probabilities after the cut."""
    right = top_p_filter(probs[None], top_p)[0]
    order = probs.argsort(descending=True)
    early = probs.clone()
    early[order[probs[order].cumsum(0) > top_p]] = 0
    return compare(
        answer(mine, probs, top_p), right,
        (early / early.sum(), "the token that crosses top_p is kept: a "
         "token goes only if those before it already exceed top_p"),
        (probs * (right > 0), "what is left does not sum to 1: divide by "
         "its sum"),
        (torch.where(probs > top_p, probs, 0.0), "top_p is a bound on the "
         "running sum of the sorted probabilities, not on each of them"))


def _draw_shape(draw: torch.Generator) -> dict[str, Any]:
    heads = 2 ** int(torch.randint(1, 4, (), generator=draw))
    return {"config": ModelConfig(
        dim=32 * heads, n_layers=int(torch.randint(2, 9, (), generator=draw)),
        n_heads=heads, n_kv_heads=heads // 2, vocab_size=512,
        max_seq_len=256)}


@exercise("11-generation-3", given=_draw_shape)
def cache_bytes(mine: Any, config: ModelConfig) -> str | None:
    """Bytes of the cache for one token of this shape in 16 bits."""
    with torch.device("meta"):
        cache = empty_cache(Transformer(config), 1, 1)
    numbers = sum(part.numel() for pair in cache for part in pair)
    return compare(
        mine, 2 * numbers,
        (numbers, "a number in 16 bits takes 2 bytes; or did you count the "
         "keys and forget the values?"),
        (2 * numbers // config.n_layers, "every layer keeps its own keys "
         "and values"),
        (4 * numbers, "the keys of n_kv_heads heads are kept, not of "
         "n_heads; and 16 bits are 2 bytes"))


def _draw_length(draw: torch.Generator) -> dict[str, Any]:
    return {"prompt": int(torch.randint(5, 40, (), generator=draw)),
            "new": int(torch.randint(10, 90, (), generator=draw))}


@exercise("11-generation-4", given=_draw_length)
def saved_work(mine: Any, prompt: int, new: int) -> str | None:
    """Tokens through the model without a cache, over those with one."""
    without = sum(prompt + i for i in range(new))
    with_cache = prompt + new - 1
    return compare(
        mine, without / with_cache,
        (with_cache / without, "you turned the ratio round: how many times "
         "more work is it without?"),
        (without / (prompt + new), "the last token is written but never "
         "read: with the cache prompt + new - 1 tokens pass through"),
        (sum(prompt + i for i in range(1, new + 1)) / with_cache,
         "the first new token is chosen after reading the prompt alone, so "
         "the passes read prompt, prompt + 1, ... tokens"),
        (sum(range(new)) / with_cache, "without a cache each pass reads the "
         "prompt again too"),
        tolerance=1e-3)


def _draw_head_rows(draw: torch.Generator) -> dict[str, Any]:
    heads = int(torch.randint(2, 5, (), generator=draw))
    return {"weight": torch.randn(8 * heads, 5, generator=draw),
            "head_dim": 8}


@exercise("11-generation-5", given=_draw_head_rows)
def rows_for_hugging_face(
    mine: Any, weight: Tensor, head_dim: int
) -> str | None:
    """A function (weight, head_dim) -> the rows in Hugging Face's order."""
    name = "wk.weight"
    columns = torch.cat([weight[:, 0::2], weight[:, 1::2]], dim=1)
    return compare(
        answer(mine, weight, head_dim), to_halves(name, weight, head_dim),
        (to_neighbours(name, weight, head_dim), "that is the way back: from "
         "Hugging Face's order to the release's"),
        (to_halves(name, weight, len(weight)), "head by head: rows of one "
         "head must not wander into another"),
        (weight, "nothing has moved: within each head the even rows come "
         "first, then the odd ones"),
        (columns, "the columns take in x, which both sides write alike; it "
         "is the rows that move"))


_CUT = {"tok_embeddings": 1, "wq": 0, "wo": 1, "w1": 0, "w2": 1,
        "output": 0, "norm": None}
_WHY = {
    "tok_embeddings": "LLaMA's embedding is cut along the embedding axis: "
    "each file knows every piece, and a part of each vector",
    "wo": "wo takes in what the heads make, and those are spread over the "
    "files: its columns are cut",
    "w2": "w2 takes in what w1 and w3 make, and that is spread over the "
    "files: its columns are cut",
    "norm": "every file holds the whole norm: take one"}


def _draw_shards(draw: torch.Generator) -> dict[str, Any]:
    count = 2 * int(torch.randint(1, 3, (), generator=draw))
    sizes = {"tok_embeddings": (12, 8), "output": (12, 8), "wq": (8, 8),
             "wo": (8, 8), "w1": (16, 8), "w2": (8, 16), "norm": (8,)}
    pieces = {}
    for name, size in sizes.items():
        whole, axis = torch.randn(size, generator=draw), _CUT[name]
        pieces[name] = ([whole.clone() for _ in range(count)] if axis is None
                        else list(whole.chunk(count, axis)))
    return {"pieces": pieces}


@exercise("11-generation-6", given=_draw_shards)
def joined(mine: Any, pieces: dict[str, list[Tensor]]) -> str | None:
    """A function (name, pieces) -> the whole weight, for each name."""
    for name, parts in pieces.items():
        axis = _CUT[name]
        whole = parts[0] if axis is None else torch.cat(parts, axis)
        wrong = torch.cat(parts, 0 if axis is None else 1 - axis)
        turned = torch.cat(parts[::-1], axis or 0)
        said = compare(
            answer(mine, name, [part.clone() for part in parts]), whole,
            (wrong, _WHY.get(name, "its rows are cut: each file makes some "
                             "of what comes out")),
            (turned, "the files are out of order"),
            (torch.stack(parts).sum(0), _WHY.get(
                name, "join the pieces, do not add them")))
        if said is not None:
            return f"{name}: {said}"
    return None
