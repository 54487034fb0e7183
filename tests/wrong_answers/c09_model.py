"""What learners answer in chapter 9, and the sentence they should get."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from minillama.model import count_parameters
from minillama.swiglu import ffn_hidden_dim


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


def _cross_entropy(logits, target):
    shifted = logits - logits.max()
    return shifted.exp().sum().log() - shifted[target]


def _block(x, norm_1, attention, norm_2, feed_forward):
    h = x + attention(norm_1(x))
    return h + feed_forward(norm_2(h))


def _post_norm(x, norm_1, attention, norm_2, feed_forward):
    h = norm_1(x + attention(x))
    return norm_2(h + feed_forward(h))


def _parallel(x, norm_1, attention, norm_2, feed_forward):
    return x + attention(norm_1(x)) + feed_forward(norm_2(x))


def _no_residual(x, norm_1, attention, norm_2, feed_forward):
    return feed_forward(norm_2(attention(norm_1(x))))


def _count(vocab, dim, layers, hidden, heads, kv_heads, tables=2, ffn=3,
           last=1):
    kv_dim = dim // heads * kv_heads
    block = 2 * dim * dim + 2 * dim * kv_dim + ffn * dim * hidden + 2 * dim
    return tables * vocab * dim + layers * block + last * dim


def _room(config, gigabytes, sides=2, heads=None, layers=None, weight=2):
    left = int(gigabytes * 1e9) - weight * count_parameters(config)
    heads = heads or config.kv_heads
    numbers = sides * (layers or config.n_layers) * heads * config.head_dim
    return left // (2 * numbers)


def _depth(budget, vocab, dim, tables=2, hidden=None, ffn=3):
    hidden = hidden or ffn_hidden_dim(dim)
    block = 4 * dim**2 + ffn * dim * hidden + 2 * dim
    return (budget - tables * vocab * dim - dim) // block


RIGHT = {
    "09-model-1": _fixed(lambda loss, n, b: loss * n / math.log(2) / b),
    "09-model-2": _fixed(_cross_entropy),
    "09-model-3": _fixed(_block),
    "09-model-4": _fixed(_count),
    "09-model-5": _fixed(_room),
    "09-model-6": _fixed(_depth),
}

WRONG = {
    "09-model-1": [
        (_fixed(lambda loss, n, b: loss * n / b), "these are nats"),
        (_fixed(lambda loss, n, b: loss / math.log(2)), "bits per token"),
        (_fixed(lambda loss, n, b: loss * b / n / math.log(2)),
         "wrong way round"),
        (_fixed(lambda loss, n, b: loss * n / b * math.log(2)),
         "divide by ln 2"),
        (_fixed(lambda loss, n, b: math.exp(loss)), "perplexity"),
    ],
    "09-model-2": [
        (_fixed(lambda z, y: z.softmax(0)[y].log()), "sign is wrong"),
        (_fixed(lambda z, y: -z.softmax(0)[y].log2()), "bits"),
        (_fixed(lambda z, y: z.softmax(0)[y]), "the probability"),
        (_fixed(lambda z, y: -z[y]), "logit alone"),
        (_fixed(lambda z, y: -(z.exp()[y] / z.exp().sum()).log()),
         "overflows"),
    ],
    "09-model-3": [
        (_fixed(_post_norm), "post-norm"),
        (_fixed(_parallel), "must read h"),
        (_fixed(_no_residual), "nothing is added"),
    ],
    "09-model-4": [
        (_fixed(lambda v, d, n, f, h, g: _count(v, d, n, f, h, h)),
         "without sharing"),
        (_fixed(lambda *a: _count(*a, tables=1)), "two tables"),
        (_fixed(lambda *a: _count(*a, ffn=2)), "three matrices"),
        (_fixed(lambda *a: _count(*a, last=0)), "norm before the output"),
    ],
    "09-model-5": [
        (_fixed(lambda c, g: _room(c, g, sides=1)), "twice too many"),
        (_fixed(lambda c, g: _room(c, g, heads=c.n_heads)), "shared here"),
        (_fixed(lambda c, g: _room(c, g, layers=1)), "every one of"),
        (_fixed(lambda c, g: _room(c, g, weight=0)), "their place first"),
    ],
    "09-model-6": [
        (_fixed(lambda *a: _depth(*a) + 1), "goes over the budget"),
        (_fixed(lambda *a: _depth(*a, ffn=2)), "three matrices"),
        (_fixed(lambda b, v, d: _depth(b, v, d, hidden=4 * d)),
         "8/3 of dim"),
    ],
}

assert torch.allclose(  # the right answer itself against PyTorch
    _cross_entropy(torch.arange(3.0), 1),
    F.cross_entropy(torch.arange(3.0)[None], torch.tensor([1])))
