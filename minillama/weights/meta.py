"""The released layout: params.json, consolidated.NN.pth, tokenizer.model.

Meta cut each model into as many shards as it had GPUs for it: 1, 2, 4 or 8.
A shard holds whole heads of wq, wk, wv, rows of w1 and w3, columns of wo and
w2, and, in LLaMA 1 and 2, a slice of the *embedding* axis of the embedding;
Llama 3 slices its vocabulary instead. The release calls the gate w1, the way
back w2, the way up w3. RoPE pairs neighbours, as here.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minillama.config import ModelConfig, RopeScaling
from minillama.model import Transformer
from minillama.swiglu import ffn_hidden_dim
from minillama.weights.parts import (
    Parts, plain_tensors, read_json, refuse_unlike, shapes)

SHARD = "consolidated.{:02d}.pth"
SIDECAR = "minillama.json"
"""What params.json has no word for; only this package writes and reads it."""
ROLES = {"w_gate": "w1", "w_down": "w2", "w_up": "w3"}
_AXES = {"tok_embeddings": 1, "wo": 1, "w_down": 1}
_KNOWN = {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size",
          "multiple_of", "ffn_dim_multiplier", "norm_eps", "rope_theta",
          "use_scaled_rope", "max_seq_len", "max_batch_size"}


def meta_name(name: str) -> str:
    """layers.3.feed_forward.w_gate.weight -> layers.3.feed_forward.w1..."""
    role = name.split(".")[-2]
    return name.replace(role, ROLES.get(role, role))


def axis_of(name: str) -> int | None:
    """Along which axis a weight is cut; None: every shard has all of it."""
    role = name.split(".")[-2]
    return None if role.endswith("norm") else _AXES.get(role, 0)


def read(folder: Path) -> tuple[ModelConfig, Parts]:
    """Map the shards of a released folder and check them.

    Raises:
        ValueError: for a missing shard, a wrong shape, a missing or extra
            tensor, by name.

    Chapter: notebooks/11_generation.ipynb
    """
    files = sorted(folder.glob("consolidated.*.pth"))
    if not files:
        raise ValueError(f"{folder / SHARD.format(0)} is missing; get it")
    # RoPE's tables were stored too; ours are computed.
    shards = [{name: w for name, w in plain_tensors(path).items()
               if not name.endswith("rope.freqs")} for path in files]
    config = _config(folder, shards[0])
    whole = shapes(config)
    first = shards[0].get("layers.0.attention.wq.weight")
    count = (len(files) if first is None or not 0 < first.numel() <= (
        config.dim ** 2) else config.dim // len(first))
    names = [SHARD.format(number) for number in range(count)]
    if odd := sorted(set(names) ^ {path.name for path in files}):
        raise ValueError(
            f"{folder}: the model was cut into {count} shards, {names[0]} to "
            f"{names[-1]}; missing or left over: {', '.join(odd)}")
    expected = shard_shapes(config, count)
    v, d = whole["tok_embeddings.weight"]
    rows = shards[0].get("tok_embeddings.weight")
    by_rows = rows is not None and tuple(rows.shape) == (v // count, d)
    if by_rows:  # Llama 3
        expected["tok_embeddings.weight"] = (v // count, d)
    for path, shard in zip(files, shards):
        refuse_unlike(path, expected, shard)
    parts: Parts = {}
    for name in whole:
        axis = axis_of(name)
        if by_rows and name.startswith("tok_embeddings"):
            axis = 0
        parts[name] = ([shard[meta_name(name)] for shard in
                        (shards[:1] if axis is None else shards)], axis or 0)
    return config, parts


def shard_shapes(
    config: ModelConfig, count: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in each of `count` shards.

    Chapter: notebooks/11_generation.ipynb
    """
    # A tied matrix is stored twice: the format has no word for it.
    untied = replace(config, tie_embeddings=False)
    return {meta_name(name): tuple(
        n // count if i == axis_of(name) else n for i, n in enumerate(shape))
        for name, shape in shapes(untied).items()}


def _config(folder: Path, shard: dict[str, Tensor]) -> ModelConfig:
    """params.json in our terms."""
    p = read_json(folder / "params.json")
    if odd := sorted(set(p) - _KNOWN):
        raise ValueError(f"{folder / 'params.json'}: {odd[0]}="
                         f"{p[odd[0]]!r} is not understood")
    extra: dict[str, Any] = {"max_seq_len": 2048}
    if p.get("use_scaled_rope"):  # Llama 3.1
        extra = {"max_seq_len": 131072, "rope_scaling": RopeScaling()}
    if (folder / SIDECAR).is_file():
        extra |= read_json(folder / SIDECAR)
        if isinstance(extra.get("rope_scaling"), dict):
            extra["rope_scaling"] = RopeScaling(**extra["rope_scaling"])
    vocab = p.get("vocab_size", -1)
    if vocab < 0:  # "as many as the tokenizer has"
        vocab = _vocab_size(folder, shard)
    hidden, multiple = None, p["multiple_of"]
    if p.get("ffn_dim_multiplier"):  # Llama 2 and 3
        wide = int(p["ffn_dim_multiplier"] * (8 * p["dim"] // 3))
        hidden = -(-wide // multiple) * multiple
    return ModelConfig(
        dim=p["dim"], n_layers=p["n_layers"], n_heads=p["n_heads"],
        n_kv_heads=p.get("n_kv_heads"), ffn_dim=hidden,
        multiple_of=multiple, vocab_size=vocab, norm_eps=p["norm_eps"],
        rope_theta=p.get("rope_theta", 10000.0), **extra)


def _vocab_size(folder: Path, shard: dict[str, Tensor]) -> int:
    """Of the tokenizer beside the shards, else of the embedding."""
    if (folder / "tokenizer.model").is_file():
        from minillama.tokenizer import Tokenizer
        return Tokenizer(folder / "tokenizer.model").vocab_size
    if "tok_embeddings.weight" not in shard:
        raise ValueError(f"{folder}: tok_embeddings.weight is missing")
    return len(shard["tok_embeddings.weight"])


def write(model: Transformer, folder: Path, shards: int) -> None:
    """Write params.json and so many shards, in the dtype of the model.

    Raises:
        ValueError: if the heads, the width or the vocabulary cannot be cut
            into so many.

    Chapter: notebooks/11_generation.ipynb
    """
    c = model.config
    sizes = {"n_heads": c.n_heads, "n_kv_heads": c.kv_heads, "dim": c.dim,
             "vocab_size": c.vocab_size, "ffn_dim": _hidden(model)}
    fits = [n for n in range(1, c.n_heads + 1)
            if not any(size % n for size in sizes.values())]
    if shards not in fits:
        raise ValueError(f"shards={shards} must divide "
                         + ", ".join(f"{k}={v}" for k, v in sizes.items())
                         + f"; try one of {fits}")
    params: dict[str, Any] = {
        "dim": c.dim, "multiple_of": c.multiple_of, "n_heads": c.n_heads,
        "n_layers": c.n_layers, "norm_eps": c.norm_eps,
        "vocab_size": c.vocab_size}
    if c.n_kv_heads is not None:
        params["n_kv_heads"] = c.n_kv_heads
    if c.rope_theta != 10000.0:
        params["rope_theta"] = c.rope_theta
    if _hidden(model) != ffn_hidden_dim(c.dim, c.multiple_of):
        # Half a row more than F, so that int() gives F whatever the rounding.
        params |= {"multiple_of": 1, "ffn_dim_multiplier":
                   (_hidden(model) + 0.5) / (8 * c.dim // 3)}
    extra = {"max_seq_len": c.max_seq_len,
             "tie_embeddings": c.tie_embeddings,
             "rope_scaling": c.rope_scaling and asdict(c.rope_scaling)}
    for name, values in (("params.json", params), (SIDECAR, extra)):
        (folder / name).write_text(json.dumps(values), encoding="utf-8")
    weights = {name: w.detach() for name, w in model.state_dict().items()}
    for number in range(shards):
        # Cloned, or torch.save would store the whole behind each slice.
        torch.save({
            meta_name(name): (
                w if axis_of(name) is None
                else w.chunk(shards, axis_of(name))[number]
            ).clone(memory_format=torch.contiguous_format)
            for name, w in weights.items()}, folder / SHARD.format(number))


def _hidden(model: Transformer) -> int:
    """F, the feed-forward width."""
    return model.layers[0].feed_forward.w_up.out_features
