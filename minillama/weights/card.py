"""The model card: what a model was trained on, how well it does, the carbon.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from minillama.config import ModelConfig
from minillama.model import Transformer
from minillama.weights.parts import read_json

PUE, KG_PER_KWH = 1.1, 0.385
"""The paper's figures (section 6): overhead of the data centre, US average."""


def card(
    model: Transformer,
    source: Path,
    *,
    dtype: torch.dtype | None = None,
    watts: float = 100.0,
) -> str:
    """A model card from what lies in the folder of a run.

    Args:
        model: what is exported.
        source: the folder it came from; a run's has more to tell.
        dtype: of the exported files; None: of the model.
        watts: what the machine is taken to draw while it trains.

    Returns:
        Markdown with the header that model hubs read.

    Chapter: notebooks/11_generation.ipynb
    """
    c, own = model.config, model.output.weight.dtype
    count = sum(p.numel() for p in model.parameters())
    kept = dtype or own
    lines = [
        "---", "library_name: transformers", "pipeline_tag: text-generation",
        "tags: [llama, minillama]", "---", "", f"# {Path(source).name}", "",
        f"A LLaMA of {count:,} parameters: {c.n_layers} layers, width "
        f"{c.dim}, {c.n_heads} heads ({c.kv_heads} for keys), {c.vocab_size} "
        f"pieces, {c.max_seq_len} tokens of context.", "",
        f"Weights are stored in {kept}" + (
            "." if kept == torch.promote_types(kept, own)
            else f", **rounded from {own}**."), "", "## Data and figures", ""]
    lines += _run(Path(source), c, watts)
    return "\n".join([
        *lines, "", "## Limits", "", "A base model continues text. It was not "
        "taught to follow instructions or to be harmless, and repeats what "
        "its text says about people."]) + "\n"


def _run(source: Path, c: ModelConfig, watts: float) -> list[str]:
    """What a run's own files say about it."""
    if not (source / "run.json").is_file():
        return ["The folder it was converted from says nothing about its "
                "training; see the card of the original."]
    run: dict[str, Any] = read_json(source / "run.json")["config"]
    lines = [
        f"- text: {run.get('data') or 'the plays of Shakespeare'}",
        f"- {run['steps']:,} steps of {run['batch_size']} x {c.max_seq_len} "
        f"tokens, seed {run['seed']}"]
    if run.get("init_from"):
        lines.append(f"- started from the weights in {run['init_from']}")
    if (source / "result.json").is_file():
        result = read_json(source / "result.json")
        if result["bits_per_byte"] is not None:
            lines.append(f"- on held-out text: {result['val_loss']:.3f} nats "
                         f"per token, {result['bits_per_byte']:.3f} bits per "
                         "byte")
    hours = _hours(source, run["batch_size"] * c.max_seq_len)
    if hours is None:
        return [*lines, "- carbon: not known, speed.jsonl is missing"]
    energy = hours * watts / 1000 * PUE
    return [*lines, f"- carbon, an estimate: {hours:.3g} hours at an assumed "
            f"{watts:g} W, times {PUE} for cooling = {energy:.3g} kWh; at "
            f"{KG_PER_KWH} kg a kWh {energy * KG_PER_KWH:.3g} kg of CO2"]


def _hours(source: Path, tokens_per_step: int) -> float | None:
    """Time spent in steps, from the speeds that were logged."""
    if not (source / "speed.jsonl").is_file():
        return None
    seconds, before = 0.0, 0
    text = (source / "speed.jsonl").read_text(encoding="utf-8")
    for record in map(json.loads, text.splitlines()):
        if record["step"] > before:  # a resumed run repeats some
            steps = record["step"] - before
            seconds += steps * tokens_per_step / record["tokens_per_s"]
            before = record["step"]
    return seconds / 3600
