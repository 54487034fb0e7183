"""`minillama convert`: a model in the files that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True)
class ConvertConfig:
    """Which model becomes which files."""

    source: Annotated[Path, tyro.conf.arg(name="from")]
    """What `train --out` wrote, Meta's folder or Hugging Face's."""
    to: Literal["meta", "hf", "gguf"]
    """The released layout, Hugging Face's, or one file for llama.cpp."""
    out: Path
    """A folder that is not there yet; for gguf a file."""
    dtype: Literal["same", "fp32", "bf16", "fp16"] = "same"
    """Of the files; a narrower one than the model's rounds every weight."""
    shards: int = 1
    """Files of the released layout, one a GPU."""
    watts: float = 100.0
    """What the machine drew while it trained, for the model card."""


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[ConvertConfig, tyro.conf.subcommand(
        "convert", description="Write a model as files of another kind.")]


def run(config: ConvertConfig) -> int:
    """Load, write, say what was written."""
    from minillama import weights
    from minillama.devices import choose_dtype
    from minillama.weights.card import card

    if config.shards != 1 and config.to != "meta":
        raise ValueError(f"shards={config.shards} is for --to meta; leave it "
                         f"out for {config.to}")
    model, tokenizer = weights.load(config.source)
    own = model.output.weight.dtype
    dtype = (own if config.dtype == "same"
             else choose_dtype(config.dtype, model.output.weight.device))
    text = card(model, config.source, dtype=dtype, watts=config.watts)
    common = {"dtype": dtype, "card": text, "tokenizer": tokenizer}
    if config.to == "meta":
        weights.save_meta(model, config.out, shards=config.shards, **common)
    elif config.to == "hf":
        weights.save_hf(model, config.out, **common)
    elif tokenizer is None:
        raise ValueError(f"from={config.source} has no tokenizer, and a GGUF "
                         "file holds one; put tokenizer.model beside it")
    else:
        weights.save_gguf(model, config.out, **common)
    print(f"{config.out}: {own} as it was" if dtype == own else
          f"{config.out}: {dtype}, rounded from {own}"
          if dtype.itemsize <= own.itemsize else
          f"{config.out}: {dtype}, widened from {own}")
    return 0
