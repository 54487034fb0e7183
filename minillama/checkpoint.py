"""Checkpoints: written whole or not at all, read strictly.

A checkpoint is a folder `OUT/checkpoints/step-00000250` with the weights
(safetensors), the model's shape (JSON) and the state of the training. It is
written under another name, flushed to the disk, then renamed, so that a kill
at any moment leaves the last good one. Nothing that is read can run code.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from minillama import sharded
from minillama.config import ModelConfig
from minillama.files import fingerprint, flush, manifest, read_manifest
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer

WEIGHTS, SHAPE, TRAINING, MANIFEST = (
    "model.safetensors", "config.json", "training.pt", "manifest.json")


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be trusted; the message says why."""


def save(
    out: Path,
    step: int,
    model: Transformer,
    training: dict[str, Any],
    *,
    keep_last: int,
    write: Callable[[Path], None] | None = None,
) -> Path:
    """Write one checkpoint atomically, then drop the oldest ones.

    Args:
        out: folder of the run.
        step: optimiser steps done.
        model: its weights are stored in their own dtype.
        training: tensors, numbers and strings in dicts and lists: optimiser,
            scaler, data position, random number generators.
        keep_last: how many checkpoints stay.
        write: writes the weights into a folder in another way than one file.

    Returns:
        The folder of the new checkpoint.

    Raises:
        ValueError: if there is a checkpoint of this step already; nothing
            could replace it in one step.

    Chapter: notebooks/10_training.ipynb
    """
    folder = Path(out) / "checkpoints"
    final = folder / f"step-{step:08d}"
    partial = writing(out, step)
    if final.exists():
        raise ValueError(
            f"{final} exists already; move it away, or choose another --out")
    _sweep(folder)
    partial.mkdir(parents=True)
    if write is None:
        save_file(weights_of(model), partial / WEIGHTS)
    else:
        write(partial)
    (partial / SHAPE).write_text(
        json.dumps(model.config.to_dict(), indent=1), encoding="utf-8")
    torch.save(training, partial / TRAINING)
    files = {path.name: fingerprint(path)
             for path in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(manifest(step, files), encoding="utf-8")
    for path in [*partial.iterdir(), partial]:
        flush(path)
    os.replace(partial, final)
    for path in (folder, folder.parent):
        flush(path)
    # A checkpoint that is half deleted must not look like one.
    for old in checkpoints(out)[:-keep_last]:
        os.replace(old, folder / f"removing-{old.name}")
    _sweep(folder)
    return final


def writing(out: Path, step: int) -> Path:
    """Where a checkpoint is until it is whole."""
    return Path(out) / "checkpoints" / f"writing-{step:08d}"


def _sweep(folder: Path) -> None:
    """Delete what a kill left half written or half deleted."""
    for pattern in ("writing-*", "removing-*"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict, a shared matrix once (safetensors refuses it twice)."""
    weights = {name: w.detach().contiguous()
               for name, w in model.state_dict().items()}
    if model.config.tie_embeddings:
        del weights["output.weight"]
    return weights


def checkpoints(out: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted((Path(out) / "checkpoints").glob("step-*"))


def read(folder: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read one checkpoint after checking every byte of it.

    Returns:
        `step`, `config` (ModelConfig), `weights` (state dict) and `training`
        as given to `save`.

    Raises:
        DamagedCheckpoint: naming the file and what is wrong with it.

    Chapter: notebooks/10_training.ipynb
    """
    folder = Path(folder)
    try:
        return {
            "step": verified_step(folder),
            "config": read_config(folder),
            "weights": (
                sharded.read(folder) if sharded.holds(folder)
                else load_file(folder / WEIGHTS, device=str(device))),
            "training": read_training(folder),
        }
    except DamagedCheckpoint:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError,
            SafetensorError, pickle.UnpicklingError) as e:
        raise DamagedCheckpoint(
            f"checkpoint {folder} cannot be read: {e}; delete it to fall "
            "back on the one before") from e


def read_training(folder: Path) -> dict[str, Any]:
    """What `save` was given as `training`; check the folder before."""
    return torch.load(
        Path(folder) / TRAINING, map_location="cpu", weights_only=True)


def verified_step(folder: Path) -> int:
    """The step in the manifest, once every file is as it was written.

    Raises:
        DamagedCheckpoint: naming the files that are not.
    """
    step, damaged = read_manifest(folder / MANIFEST)
    if damaged:
        raise DamagedCheckpoint(
            f"{', '.join(str(folder / name) for name in damaged)} is not "
            "what was written (size or sha256 differs); delete this "
            "checkpoint to fall back on the one before")
    return step


def read_config(folder: Path) -> ModelConfig:
    """The model's shape as stored beside its weights."""
    text = (Path(folder) / SHAPE).read_text(encoding="utf-8")
    return ModelConfig.from_dict(json.loads(text))


def load_weights(model: Transformer, weights: dict[str, Any]) -> None:
    """Put weights into a model; every name and shape must fit.

    Raises:
        ValueError: listing what is missing, unexpected or of another shape.

    Chapter: notebooks/10_training.ipynb
    """
    expected = weights_of(model)
    problems = [f"missing {n}" for n in expected if n not in weights]
    problems += [f"unexpected {n}" for n in weights if n not in expected]
    problems += [
        f"{n} is {tuple(w.shape)}, the model wants {tuple(expected[n].shape)}"
        for n, w in weights.items()
        if n in expected and w.shape != expected[n].shape]
    if problems:
        raise ValueError(
            "the weights do not fit the model: " + "; ".join(problems[:5])
            + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            + "; build the model with the config stored beside them")
    with torch.no_grad():
        # Not into `expected`, which may hold copies; a tied matrix stays.
        for name, weight in model.state_dict().items():
            if name in weights:
                sharded.fill(weight, weights[name])


def load_model(
    folder: Path, device: str | torch.device = "cpu"
) -> tuple[Transformer, Tokenizer]:
    """Model and tokenizer of a run, from its newest checkpoint.

    Args:
        folder: what `train --out` wrote.
        device: where the model goes.

    Returns:
        The model in float32 and evaluation mode, and its tokenizer.

    Raises:
        ValueError: if there is no checkpoint, or it is damaged.

    Chapter: notebooks/11_generation.ipynb
    """
    found = checkpoints(folder)
    if not found:
        raise ValueError(
            f"checkpoint={folder} holds no checkpoint; give the folder that "
            "`minillama train --out` wrote")
    stored = read(found[-1])
    model = Transformer(stored["config"])
    load_weights(model, stored["weights"])
    return (model.to(device).eval(),
            Tokenizer(Path(folder) / "tokenizer.model"))
