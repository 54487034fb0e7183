"""Hugging Face's layout: config.json and safetensors, one file or several.

Two things differ from ours. The names; and RoPE's pairs: ours are neighbours,
as in the release, Hugging Face's are component j and j + K/2. The rows of wq
and wk within each head are put in the other order, and every dot product of a
query and a key stays what it was. Left out, nothing fails and the model talks
nonsense: the best-known bug of its kind.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minillama.checkpoint import weights_of
from minillama.config import ModelConfig, RopeScaling
from minillama.model import Transformer
from minillama.weights.parts import Parts, read_json, refuse_unlike, shapes

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NAMES = {
    "tok_embeddings": "model.embed_tokens", "norm": "model.norm",
    "output": "lm_head", "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj", "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj", "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj", "w_down": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    """layers.3.attention.wq.weight -> model.layers.3.self_attn.q_proj..."""
    *path, last, kind = name.split(".")
    if path:  # layers, number[, attention or feed_forward]
        return f"model.layers.{path[1]}.{NAMES[last]}.{kind}"
    return f"{NAMES[last]}.{kind}"


def is_turned(name: str) -> bool:
    """Whether RoPE turns what this matrix makes."""
    return name.endswith(("wq.weight", "wk.weight"))


def to_halves(name: str, weight: Tensor, head_dim: int) -> Tensor:
    """A weight or its gradient with the rows in Hugging Face's order.

    Rows (0, 1, 2, 3, ...) of each head of wq and wk become
    (0, 2, ..., 1, 3, ...); everything else stays.

    Chapter: notebooks/11_generation.ipynb
    """
    if not is_turned(name):
        return weight
    pairs = weight.unflatten(0, (-1, head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


def to_neighbours(name: str, weight: Tensor, head_dim: int) -> Tensor:
    """The inverse of `to_halves`: the rows in the release's order.

    Chapter: notebooks/11_generation.ipynb
    """
    if not is_turned(name):
        return weight
    halves = weight.unflatten(0, (-1, 2, head_dim // 2))
    return halves.transpose(1, 2).flatten(0, 2)


def read(folder: Path) -> tuple[ModelConfig, Parts]:
    """Map the safetensors of a Hugging Face folder and check them.

    The rows are as stored; `to_neighbours` arranges them.

    Raises:
        ValueError: for a model that is not a LLaMA, a missing file, a wrong
            shape, a missing or extra tensor, by name.

    Chapter: notebooks/11_generation.ipynb
    """
    config = _config(folder / "config.json")
    source, files = folder / WEIGHTS, {WEIGHTS}
    if (folder / INDEX).is_file():
        source = folder / INDEX
        files = set(read_json(source).get("weight_map", {}).values())
    found: dict[str, Tensor] = {}
    for file in sorted(files):
        found |= mapped(folder, file)
    # RoPE's tables were stored by early versions; ours are computed.
    found = {name: w for name, w in found.items()
             if not name.endswith("rotary_emb.inv_freq")}
    head = found.get(NAMES["output"] + ".weight")
    body = found.get(NAMES["tok_embeddings"] + ".weight")
    if config.tie_embeddings and head is not None and body is not None:
        if not head.equal(body):
            raise ValueError(
                f"{source}: lm_head.weight differs from the embedding it is "
                "tied to; set tie_word_embeddings to false in config.json")
        del found[NAMES["output"] + ".weight"]
    whole = shapes(config)
    refuse_unlike(source, {hf_name(n): s for n, s in whole.items()}, found)
    return config, {name: ([found[hf_name(name)]], 0) for name in whole}


def mapped(folder: Path, file: str) -> dict[str, Tensor]:
    """The tensors of one file, mapped into memory."""
    if Path(file).name != file:
        raise ValueError(f"{folder / INDEX}: {file!r} is not a file beside it")
    try:
        with safe_open(folder / file, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder / file} is missing or damaged ({error}); get it again. "
            "Only safetensors are read") from error


def _config(path: Path) -> ModelConfig:
    """config.json in our terms; what we cannot compute is refused."""
    c = read_json(path)
    wrong = {
        "model_type": c.get("model_type") not in ("llama", "mistral"),
        "hidden_act": c.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(c.get("attention_bias")),
        "mlp_bias": bool(c.get("mlp_bias")),
        "sliding_window": c.get("sliding_window") is not None,
        "quantization_config": c.get("quantization_config") is not None,
        "head_dim": (c.get("head_dim") or 0) not in (
            0, c.get("hidden_size", 0) // (c.get("num_attention_heads") or 1)),
    }
    if odd := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise ValueError(f"{path}: {odd[0]}={c.get(odd[0])!r} is not LLaMA's; "
                         "such a model is not read")
    return ModelConfig(
        dim=c["hidden_size"], n_layers=c["num_hidden_layers"],
        n_heads=c["num_attention_heads"],
        n_kv_heads=c.get("num_key_value_heads"),
        ffn_dim=c["intermediate_size"], vocab_size=c["vocab_size"],
        max_seq_len=c.get("max_position_embeddings") or 2048,
        norm_eps=c.get("rms_norm_eps", 1e-6),
        tie_embeddings=bool(c.get("tie_word_embeddings", False)),
        **_rope(c, path))


def _rope(c: dict[str, Any], path: Path) -> dict[str, Any]:
    """Base and stretching, in the old spelling or that of version 5."""
    new = c.get("rope_parameters") or {}
    theta = {"rope_theta": float(
        new.get("rope_theta", c.get("rope_theta", 10000.0)))}
    r = c.get("rope_scaling") or new  # as transformers, if there are both
    kind = r.get("rope_type", r.get("type", "default"))
    if kind == "default":
        return theta
    if kind not in ("linear", "llama3"):
        raise ValueError(f"{path}: rope_type={kind!r} is not read; linear and "
                         "llama3 are")
    names = ("factor", "low_freq_factor", "high_freq_factor",
             "original_max_position_embeddings")
    return theta | {"rope_scaling": RopeScaling(kind, *(
        r[name] for name in (names[:1] if kind == "linear" else names)))}


def config_of(model: Transformer) -> dict[str, Any]:
    """The config.json of a model, as transformers 4 and 5 read it.

    Chapter: notebooks/11_generation.ipynb
    """
    c = model.config
    scaling: dict[str, Any] = {"rope_type": "default"}
    if (s := c.rope_scaling) is not None:
        scaling = {"rope_type": s.kind, "factor": s.factor}
        if s.kind == "llama3":
            scaling |= {
                "low_freq_factor": s.low_freq_factor,
                "high_freq_factor": s.high_freq_factor,
                "original_max_position_embeddings": s.original_max_seq_len}
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": c.dim, "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads, "num_key_value_heads": c.kv_heads,
        "intermediate_size": model.layers[0].feed_forward.w_up.out_features,
        "vocab_size": c.vocab_size, "max_position_embeddings": c.max_seq_len,
        "rms_norm_eps": c.norm_eps, "hidden_act": "silu",
        "tie_word_embeddings": c.tie_embeddings,
        "attention_bias": False, "mlp_bias": False,
        "rope_theta": c.rope_theta,
        "rope_scaling": None if s is None else scaling,
        "rope_parameters": {**scaling, "rope_theta": c.rope_theta},
        "dtype": str(model.tok_embeddings.weight.dtype).split(".")[1],
    }


def write(
    model: Transformer, folder: Path, file_bytes: int, ends: dict[str, int]
) -> None:
    """Write config.json and safetensors of at most `file_bytes` each.

    Args:
        model: what to write.
        folder: where to, it is there.
        file_bytes: begin another file beyond this size.
        ends: bos_token_id and eos_token_id.

    Chapter: notebooks/11_generation.ipynb
    """
    (folder / "config.json").write_text(
        json.dumps(config_of(model) | ends, indent=1), encoding="utf-8")
    groups: list[dict[str, Tensor]] = [{}]
    total = held = 0
    for name, w in weights_of(model).items():
        if groups[-1] and held + w.nbytes > file_bytes:
            groups.append({})
            held = 0
        groups[-1][hf_name(name)] = to_halves(
            name, w, model.config.head_dim).contiguous()
        held, total = held + w.nbytes, total + w.nbytes
    if len(groups) == 1:
        save_file(groups[0], folder / WEIGHTS, metadata={"format": "pt"})
        return
    where = {}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        save_file(group, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(group, file)
    (folder / INDEX).write_text(json.dumps(
        {"metadata": {"total_size": total}, "weight_map": where}, indent=1),
        encoding="utf-8")
