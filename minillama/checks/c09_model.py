"""Exercises of chapter 9: the loss, the block, the counts.

Chapter: notebooks/09_model.ipynb
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from minillama.checks import answer, compare, exercise
from minillama.config import ModelConfig
from minillama.model import count_parameters
from minillama.swiglu import ffn_hidden_dim


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=draw))


def _text(draw: torch.Generator) -> dict[str, Any]:
    tokens = _whole(draw, 2_000, 9_000)
    return {"loss": 2 + torch.rand((), generator=draw).item(),
            "tokens": tokens, "n_bytes": 2 * tokens + _whole(draw, 1, 999)}


@exercise("09-model-1", given=_text)
def bits_per_byte(
    mine: Any, loss: float, tokens: int, n_bytes: int
) -> str | None:
    """A function (loss, tokens, n_bytes) -> bits per byte."""
    bits = loss / math.log(2)
    return compare(
        answer(mine, loss, tokens, n_bytes),
        bits * tokens / n_bytes,
        (loss * tokens / n_bytes, "these are nats; a bit is ln 2 of a nat"),
        (bits, "this is bits per token; a token is not a byte"),
        (bits * n_bytes / tokens,
         "tokens and bytes are the wrong way round: there are more bytes "
         "than tokens, so the surprise per byte is the smaller one"),
        (loss * math.log(2) * tokens / n_bytes,
         "divide by ln 2 instead of multiplying: there are more bits than "
         "nats"),
        (math.exp(loss), "this is the perplexity per token"),
    )


def _logits(draw: torch.Generator) -> dict[str, Any]:
    logits = 3 * torch.randn(9, generator=draw)
    return {"logits": logits, "target": _whole(draw, 0, 9)}


@exercise("09-model-2", given=_logits)
def cross_entropy(
    mine: Any, logits: torch.Tensor, target: int
) -> str | None:
    """A function (logits, target) -> nats that stands logits of 1,000."""
    want = F.cross_entropy(logits[None], torch.tensor([target]))
    mistake = compare(
        answer(mine, logits, target), want,
        (-want, "the sign is wrong: a surprise is never negative"),
        (want / math.log(2), "these are bits, because the logarithm has base "
         "2; the loss is counted in nats, with the natural logarithm"),
        ((-want).exp(), "this is the probability; the loss is minus its "
         "logarithm"),
        (-logits[target], "the logit alone is no probability; divide its "
         "power by the sum of all powers first"),
    )
    if mistake:
        return mistake
    huge = torch.tensor([1000.0, 999.0, -1000.0])
    if not math.isfinite(float(answer(mine, huge, 1))):
        return ("right for small logits, but a logit of 1,000 overflows; "
                "take the largest logit out of all of them first")
    return compare(answer(mine, huge, 1),
                   F.cross_entropy(huge[None], torch.tensor([1])))


def _stream(draw: torch.Generator) -> dict[str, Any]:
    x = torch.randn(4, 6, generator=draw)
    return {"x": x, "weights": torch.randn(2, 6, 6, generator=draw)}


@exercise("09-model-3", given=_stream)
def block(
    mine: Any, x: torch.Tensor, weights: torch.Tensor
) -> str | None:
    """A function (x, norm_1, attention, norm_2, feed_forward) -> y."""
    def norm_1(t: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(t, (6,))

    def norm_2(t: torch.Tensor) -> torch.Tensor:
        return 2 * F.rms_norm(t, (6,))

    def attention(t: torch.Tensor) -> torch.Tensor:
        return t.cumsum(0) @ weights[0]

    def feed_forward(t: torch.Tensor) -> torch.Tensor:
        return F.silu(t @ weights[1])

    h = x + attention(norm_1(x))
    post = norm_1(x + attention(x))
    return compare(
        answer(mine, x, norm_1, attention, norm_2, feed_forward),
        h + feed_forward(norm_2(h)),
        (norm_2(post + feed_forward(post)),
         "this is post-norm: the norms stand on the road, after the "
         "additions; LLaMA puts them before the layers"),
        (h + feed_forward(norm_2(x)),
         "the second half reads x; it must read h, the stream after "
         "attention has added to it"),
        (feed_forward(norm_2(attention(norm_1(x)))),
         "nothing is added to the stream; each layer's result is added to "
         "what it read"),
        (x + feed_forward(norm_2(h)),
         "the last addition must be to h, else attention's result is lost"),
        (h + feed_forward(norm_1(h)), "the second half has its own norm"),
    )


def _shape(draw: torch.Generator) -> dict[str, Any]:
    kv_heads = _whole(draw, 2, 5)
    heads = kv_heads * _whole(draw, 2, 5)
    dim = heads * 2 * _whole(draw, 4, 20)
    return {"vocab": _whole(draw, 300, 900), "dim": dim,
            "layers": _whole(draw, 2, 6), "hidden": 2 * dim + 32,
            "heads": heads, "kv_heads": kv_heads}


@exercise("09-model-4", given=_shape)
def parameters(
    mine: Any, vocab: int, dim: int, layers: int, hidden: int, heads: int,
    kv_heads: int,
) -> str | None:
    """A function (vocab, dim, layers, hidden, heads, kv_heads) -> count."""
    def count(kv: int, **changes: Any) -> int:
        return count_parameters(ModelConfig(
            dim, layers, heads, n_kv_heads=kv, ffn_dim=hidden,
            vocab_size=vocab, **changes))

    right = count(kv_heads)
    return compare(
        answer(mine, vocab, dim, layers, hidden, heads, kv_heads), right,
        (count(heads), "this is the count without sharing: wk and wv have "
         "only kv_heads * head size rows"),
        (count(kv_heads, tie_embeddings=True),
         "there are two tables, one for the input and one for the output"),
        (right - layers * dim * hidden,
         "SwiGLU has three matrices: gate, up and down"),
        (right - dim, "the norm before the output is missing"),
        (right - layers * 2 * dim, "each block has two norm vectors"),
        (right - (2 * layers + 1) * dim, "the norms have weights too"),
        tolerance=0.0,
    )


def _card(draw: torch.Generator) -> dict[str, Any]:
    name = ("7B", "13B", "1.1B")[_whole(draw, 0, 3)]
    return {"config": ModelConfig.preset(name, n_kv_heads=4)
            if name != "13B" else ModelConfig.preset(name, n_kv_heads=8),
            "gigabytes": _whole(draw, 30, 80)}


@exercise("09-model-5", given=_card)
def room(mine: Any, config: ModelConfig, gigabytes: int) -> str | None:
    """A function (config, gigabytes) -> tokens beside the weights."""
    c = config
    everything = int(gigabytes * 1e9)
    left = everything - 2 * count_parameters(c)
    numbers = 2 * c.n_layers * c.kv_heads * c.head_dim
    return compare(
        answer(mine, config, gigabytes), left // (2 * numbers),
        (left // numbers, "this is twice too many: either keys or values "
         "are forgotten, or each number has two bytes and you counted one"),
        (left // (4 * c.n_layers * c.dim),
         "the cache holds kv_heads heads, not n_heads: they are shared here"),
        (left // (4 * c.kv_heads * c.head_dim),
         "every one of the n_layers layers keeps its own keys and values"),
        (everything // (2 * numbers), "the weights need their place first"),
        ((everything - count_parameters(c)) // (2 * numbers),
         "a weight in 16 bits takes two bytes"),
        tolerance=0.0,
    )


def _budget(draw: torch.Generator) -> dict[str, Any]:
    dim = 256 * _whole(draw, 4, 16)
    vocab = 1000 * _whole(draw, 16, 64)
    block_size = 4 * dim**2 + 3 * dim * ffn_hidden_dim(dim) + 2 * dim
    # Just enough that rounding up, or a forgotten table, buys one more.
    spare = block_size - dim * _whole(draw, 2, 9)
    layers = _whole(draw, 8, 40)
    return {"budget": 2 * vocab * dim + dim + layers * block_size + spare,
            "vocab": vocab, "dim": dim}


@exercise("09-model-6", given=_budget)
def depth(mine: Any, budget: int, vocab: int, dim: int) -> str | None:
    """A function (budget, vocab, dim) -> the most blocks."""
    hidden = ffn_hidden_dim(dim)
    size = 4 * dim**2 + 3 * dim * hidden + 2 * dim
    left = budget - 2 * vocab * dim - dim

    return compare(
        answer(mine, budget, vocab, dim), left // size,
        (left // size + 1, "that goes over the budget: round down, and count "
         "both tables and the last norm"),
        (left // (4 * dim**2 + 2 * dim * hidden + 2 * dim),
         "SwiGLU has three matrices: gate, up and down"),
        (left // (4 * dim**2 + 12 * dim**2 + 2 * dim),
         "F is about 8/3 of dim, not 4 * dim; ask ffn_hidden_dim"),
        (budget // size, "the two tables have to be paid for first"),
        (left / size, "half a block cannot be built; round down"),
        tolerance=0.0,
    )
