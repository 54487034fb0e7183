"""Checks of chapter 11: temperature, top-p and the cache.

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
