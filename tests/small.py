"""Small things that many tests share: a text, a corpus, a model, a run.

The text comes from a little grammar and a fixed seed, with lines in Chinese
and emoji, which a small vocabulary can only spell in bytes.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.cluster import COMPILERS
from minillama.config import ModelConfig, TrainConfig
from minillama.data.corpus import prepare
from minillama.tokenizer import Tokenizer

VOCAB = 320
MODEL = ModelConfig(dim=32, n_layers=2, n_heads=2, multiple_of=8,
                    vocab_size=VOCAB, max_seq_len=32)

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)),
    reason="torch.compile needs a C++ compiler")

_WORDS = {
    "who": ["the miller", "a fox", "my aunt", "the tall boy", "one crow"],
    "does": ["finds", "paints", "forgets", "sells", "would follow"],
    "what": ["a red door", "the old map", "12 apples", "every song", "rain"],
    "where": ["by the river", "at noon", "in Leeds", "without a word"],
}


def sentences(count: int, seed: int = 0) -> str:
    """So many lines of text, always the same for the same seed."""
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        line = " ".join(draw.choice(words) for words in _WORDS.values())
        lines.append(line.capitalize() + ".")
        if number % 40 == 20:
            lines.append("下雨了，我们走吧。 🌧️🦊")
    return "\n".join(lines) + "\n"


def corpus(folder: Path, count: int = 600) -> Path:
    """A prepared corpus of `sentences` in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.txt"
    text.write_text(sentences(count), encoding="utf-8")
    return prepare(text, VOCAB, cache=folder / "cache")


def made_up_words(folder: Path, seed: int, lines: int) -> Path:
    """A prepared corpus of made-up words, with a vocabulary of 300."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("aeioulmnrst", k=draw.randint(2, 7)))
             for _ in range(200)]
    text = folder / "words.txt"
    text.write_text(
        "\n".join(" ".join(draw.choices(words, k=9)) for _ in range(lines)),
        encoding="utf-8")
    return prepare(text, 300, cache=folder)


def tokenizer_of(data: Path) -> Tokenizer:
    """The tokenizer of a prepared corpus."""
    return Tokenizer(data / "tokenizer.model")


def run_config(data: Path, out: Path, **overrides: Any) -> TrainConfig:
    """A run of a few seconds: 12 steps, checkpoints every 4."""
    return TrainConfig(**{
        "model": MODEL, "data": data, "out": out, "steps": 12,
        "batch_size": 4, "max_lr": 1e-2, "warmup_steps": 3, "dtype": "fp32",
        "device": "cpu", "log_every": 4, "eval_every": 6,
        "eval_tokens": 256, "checkpoint_every": 4, "sample_prompt": "A fox",
        **overrides})


def write_shards(
    folder: Path,
    sources: dict[str, list[list[int]]],
    weights: dict[str, float] | None = None,
    vocab_size: int = 60_000,
    dtype: str = "uint16",
) -> Path:
    """A folder of shards with these ids: one list a shard, by source."""
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {
        "version": 1, "dtype": dtype, "vocab_size": vocab_size,
        "tokenizer": "tokenizer.model", "sources": {}}
    for name, shards in sources.items():
        entries = []
        for number, ids in enumerate(shards):
            file = f"shards/{name}-train-{number:05d}.bin"
            array = np.array(ids, np.dtype(dtype).newbyteorder("<"))
            (folder / file).write_bytes(array.tobytes())
            entries.append({"file": file, "tokens": len(ids),
                            "bytes": len(ids), "documents": 1})
        index["sources"][name] = {
            "weight": (weights or {}).get(name, 1.0),
            "train": entries, "validation": []}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
