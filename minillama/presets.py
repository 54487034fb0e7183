"""The named shapes: three for a laptop, two in between, four of the paper.

Shapes, learning rates, batches and tokens of 7B to 65B stand in Table 2 of
the LLaMA paper; what it leaves out (vocabulary, rounding of the feed-forward
width, epsilon, RoPE base, context) comes from the released `params.json` and
inference code. The smaller ones are ours; 1.1B has TinyLlama's shape.

Chapter: notebooks/09_model.ipynb
"""

from __future__ import annotations

from typing import Any

from minillama.config import ModelConfig


def preset(name: str) -> tuple[ModelConfig, dict[str, Any]]:
    """The shape and the training settings behind a preset's name."""
    if name not in PRESETS:
        raise ValueError(
            f"preset={name!r} is unknown; try one of {list(PRESETS)}")
    return PRESETS[name]


def _paper(lr: float, trillion_tokens: float) -> dict[str, Any]:
    """Table 2: batches of 2,048 x 2,048 = 4,194,304 tokens."""
    return dict(
        max_lr=lr, batch_size=2048, micro_batch_size=1, warmup_steps=2000,
        steps=int(trillion_tokens * 1e12 / 2048 / 2048), eval_every=1000,
        checkpoint_every=1000)


PRESETS: dict[str, tuple[ModelConfig, dict[str, Any]]] = {
    # multiple_of is 32 in the small ones: at dim 128 the released 256 would
    # round 341 up to 512 = 4 * dim, and the 2/3 would vanish.
    "mini": (
        ModelConfig(128, 4, 4, multiple_of=32, vocab_size=512,
                    max_seq_len=256),
        dict(steps=2000, batch_size=32, max_lr=4e-3, warmup_steps=200)),
    "toy": (
        ModelConfig(128, 4, 4, multiple_of=32, vocab_size=1024,
                    max_seq_len=256),
        dict(steps=1200, batch_size=8, max_lr=3e-3, warmup_steps=100)),
    "15M": (
        ModelConfig(384, 6, 6, multiple_of=32, vocab_size=6144,
                    max_seq_len=512),
        dict(steps=10000, batch_size=32, max_lr=1e-3, warmup_steps=500)),
    "110M": (
        ModelConfig(768, 12, 12, multiple_of=32, vocab_size=16384,
                    max_seq_len=1024),
        dict(steps=50000, batch_size=128, micro_batch_size=8, max_lr=6e-4,
             warmup_steps=1000)),
    "1.1B": (
        ModelConfig(2048, 22, 32, n_kv_heads=4, norm_eps=1e-5),
        dict(steps=100000, batch_size=1024, micro_batch_size=4, max_lr=4e-4,
             warmup_steps=2000)),
    "7B": (ModelConfig(4096, 32, 32), _paper(3.0e-4, 1.0)),
    "13B": (ModelConfig(5120, 40, 40), _paper(3.0e-4, 1.0)),
    "33B": (ModelConfig(6656, 60, 52), _paper(1.5e-4, 1.4)),
    "65B": (ModelConfig(8192, 80, 64, norm_eps=1e-5), _paper(1.5e-4, 1.4)),
}
