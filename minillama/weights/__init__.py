"""Real weights: load a LLaMA from anywhere, and write one for anyone.

    model, tokenizer = load("folder")

reads what Meta released, what Hugging Face keeps, and what `minillama train`
wrote. The names w1, w2, w3 and the order of rows that RoPE wants stand in
this room and nowhere else.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from minillama import checkpoint, sharded
from minillama.config import ModelConfig
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from minillama.weights import gguf, hf, meta, parts
from minillama.weights.text import (
    JsonTokenizer, chat_template, open_tokenizer, to_tokenizer_json)

__all__ = ["chat_template", "load", "open_tokenizer", "read_config",
           "save_gguf", "save_hf", "save_meta"]


def load(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    max_seq_len: int | None = None,
) -> tuple[Transformer, Tokenizer | None]:
    """A LLaMA and its tokenizer from a folder, whoever wrote it.

    Weights are mapped into memory and copied tensor by tensor, so that the
    peak is the model and one matrix. Everything must fit: names, shapes,
    number of shards. Nothing that is read can run code.

    Args:
        path: a folder with params.json and consolidated.NN.pth (as Meta
            released it), with config.json and safetensors (Hugging Face), or
            what `minillama train --out` wrote, or one checkpoint of it.
        dtype: of the model; None: as stored.
        device: where the model goes.
        max_seq_len: allow shorter or longer texts than the folder says.

    Returns:
        The model in evaluation mode; its tokenizer, or None if there is
        none in the folder.

    Raises:
        ValueError: naming the file or tensor that is missing, left over or
            of another shape, or why the folder is not a LLaMA.

    Chapter: notebooks/11_generation.ipynb
    """
    folder = Path(path)
    stored, arrange = _understood(folder)
    config = stored[0] if max_seq_len is None else replace(
        stored[0], max_seq_len=max_seq_len)
    tokenizer = open_tokenizer(folder)
    if tokenizer is None and folder.parent.name == "checkpoints":
        tokenizer = open_tokenizer(folder.parents[1])
    if tokenizer and tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} pieces, the "
            f"model only vocab_size={config.vocab_size}; they do not belong "
            "together")
    model = parts.assemble(config, stored[1], dtype, arrange)
    return _finite(model, folder).to(device), tokenizer


def _finite(model: Transformer, where: Path | str) -> Transformer:
    """The model itself, unless a weight is not a number or infinite."""
    for name, weight in model.state_dict().items():
        if not torch.stack(weight.aminmax()).isfinite().all():
            raise ValueError(f"{where}: {name} is not finite in {weight.dtype}"
                             "; get the file again, or choose another dtype")
    return model


def read_config(path: str | Path) -> ModelConfig:
    """The shape of the model in a folder, without reading its weights.

    Raises:
        ValueError: as `load`.

    Chapter: notebooks/11_generation.ipynb
    """
    return _understood(Path(path))[0][0]


Stored = tuple[tuple[ModelConfig, parts.Parts], parts.Arrange | None]


def _understood(folder: Path) -> Stored:
    """`_read`, where values of odd kinds are a fault of the files."""
    try:
        return _read(folder)
    except (AttributeError, LookupError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{folder} does not describe a LLaMA ({error!r}); "
                         "get its settings again") from error


def _read(folder: Path) -> Stored:
    """What a folder holds, whatever its layout, and how to order rows."""
    if (folder / "params.json").is_file():
        return meta.read(folder), None
    if found := checkpoint.checkpoints(folder):
        folder = found[-1]
    if (folder / checkpoint.MANIFEST).is_file():
        checkpoint.verified_step(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} is no folder of weights: it has neither params.json "
            "(Meta), nor config.json (Hugging Face), nor checkpoints "
            "(minillama train)")
    if "hidden_size" in parts.read_json(folder / "config.json"):
        return hf.read(folder), hf.to_neighbours
    return _read_own(folder), None


def _read_own(folder: Path) -> tuple[ModelConfig, parts.Parts]:
    """One checkpoint of this package."""
    config = checkpoint.read_config(folder)
    found = (sharded.read(folder) if sharded.holds(folder)
             else hf.mapped(folder, checkpoint.WEIGHTS))
    parts.refuse_unlike(
        folder / checkpoint.WEIGHTS, parts.shapes(config), found)
    return config, {name: ([w], 0) for name, w in found.items()}


def save_meta(
    model: Transformer,
    path: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    shards: int = 1,
    dtype: torch.dtype | None = None,
    card: str = "",
) -> None:
    """Write the released layout: params.json, shards, tokenizer.model.

    Args:
        model: what to write.
        path: a folder that is not there yet.
        tokenizer: of the model.
        shards: into how many files, as for so many GPUs.
        dtype: of the files; None: of the model, bit for bit.
        card: the text of README.md.

    Raises:
        ValueError: if the folder is there, or the model cannot be cut so.

    Chapter: notebooks/11_generation.ipynb
    """
    with _whole(Path(path)) as folder:
        folder.mkdir()
        meta.write(_in_type(model, dtype), folder, shards)
        if tokenizer is not None:
            tokenizer.save(folder / "tokenizer.model")
        _add_card(folder, card)


def save_hf(
    model: Transformer,
    path: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype | None = None,
    card: str = "",
    file_bytes: int = 5 * 10**9,
) -> None:
    """Write a folder for AutoModelForCausalLM and AutoTokenizer.

    Args:
        model: what to write.
        path: a folder that is not there yet.
        tokenizer: of the model.
        dtype: of the files; None: of the model, bit for bit.
        card: the text of README.md, which is the model card there.
        file_bytes: begin another file beyond this size.

    Raises:
        ValueError: if the folder is there, or a package is missing.

    Chapter: notebooks/11_generation.ipynb
    """
    with _whole(Path(path)) as folder:
        folder.mkdir()
        ids = {} if tokenizer is None else {
            "bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
        hf.write(_in_type(model, dtype), folder, file_bytes,
                 {f"{name}_id": i for name, i in ids.items() if i >= 0})
        _add_card(folder, card)
        if tokenizer is None:
            return
        if isinstance(tokenizer, JsonTokenizer):
            plain = tokenizer.json()
        else:
            plain = to_tokenizer_json(tokenizer)
            tokenizer.save(folder / "tokenizer.model")
        (folder / "tokenizer.json").write_text(plain, encoding="utf-8")
        ends = {name: tokenizer.piece(i) for name, i in ids.items() if i >= 0}
        # Under LlamaTokenizer's name it would be built anew from
        # tokenizer.model, without the second space of to_tokenizer_json.
        (folder / "tokenizer_config.json").write_text(json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", **ends,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.config.max_seq_len}), encoding="utf-8")


def save_gguf(
    model: Transformer,
    path: str | Path,
    *,
    tokenizer: Tokenizer,
    dtype: torch.dtype | None = None,
    card: str = "",
) -> None:
    """Write one GGUF file, which llama.cpp reads; the card lies beside it.

    Args:
        model: what to write.
        path: a file that is not there yet.
        tokenizer: of the model; it is inside the file.
        dtype: of the matrices; None: of the model, bit for bit.
        card: the text of a Markdown file beside it.

    Raises:
        ValueError: if the file is there, a package is missing, or the
            tokenizer is not SentencePiece's.

    Chapter: notebooks/11_generation.ipynb
    """
    path = Path(path)
    beside = path.with_suffix(".md")
    if card and beside.exists():
        raise ValueError(f"the card {beside} is there; choose another name")
    with _whole(path) as partial:
        gguf.write(_in_type(model, dtype), partial, tokenizer, path.stem)
    if card:
        beside.write_text(card, encoding="utf-8")


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A place to write that becomes `path` once all is written."""
    if path.exists():
        raise ValueError(f"out={path} is there already; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)


def _in_type(model: Transformer, dtype: torch.dtype | None) -> Transformer:
    """The model itself, or a copy of another type."""
    copied = model if dtype is None else copy.deepcopy(model).to(dtype)
    return _finite(copied, "the copy to be written")


def _add_card(folder: Path, card: str) -> None:
    """README.md, which is where people look."""
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")
