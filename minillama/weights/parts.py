"""What all formats share: check the names, then copy tensor by tensor.

A reader of a format hands over `Parts`: for each of our weights the pieces it
is stored in, as tensors that are mapped from the files, and the axis along
which they are put together. Nothing is read from the disk before it is copied
to its place, so memory holds the model and one matrix at most.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minillama.checkpoint import weights_of
from minillama.config import ModelConfig
from minillama.model import Transformer

Parts = dict[str, tuple[list[Tensor], int]]
"""Our name -> the stored pieces, and the axis that joins them."""

Arrange = Callable[[str, Tensor, int], Tensor]


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a model, a tied matrix once."""
    with torch.device("meta"):
        return {name: tuple(w.shape)
                for name, w in weights_of(Transformer(config)).items()}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: naming the file, if it is missing or is not one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); get the file again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object; get the file again")
    return values


def plain_tensors(path: Path) -> dict[str, Tensor]:
    """A `.pth` file, mapped into memory; nothing in it can run code.

    Raises:
        ValueError: if it holds anything but tensors by name.
    """
    try:
        found = torch.load(
            path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is refused: it is not a file of plain tensors that "
            f"torch.save wrote ({str(error).splitlines()[0]}); get it again "
            "from a source you trust") from error
    odd = ([name for name, value in found.items()
            if not (isinstance(value, Tensor) and isinstance(name, str))]
           if isinstance(found, dict) else [type(found).__name__])
    if odd:
        raise ValueError(
            f"{path} is refused: {odd[0]} is not a tensor; it should hold "
            "tensors by name and nothing else")
    return found


def refuse_unlike(
    where: Path,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Tensor],
) -> None:
    """Raise one ValueError that names what is missing, odd or misshapen."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    for name, tensor in found.items():
        if name not in expected:
            problems.append(f"{name} is no weight of this model")
        elif tuple(tensor.shape) != expected[name]:
            problems.append(f"{name} is {tuple(tensor.shape)}, the config "
                            f"asks for {expected[name]}")
        elif not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
            problems.append(f"{name} is {tensor.dtype}; quantised weights "
                            "are not read")
    if problems:
        more = len(problems) - 4
        raise ValueError(
            f"{where}: " + "; ".join(problems[:4])
            + (f"; and {more} more" if more > 0 else "")
            + "; get the file again, or the config that belongs to it")


def assemble(
    config: ModelConfig,
    parts: Parts,
    dtype: torch.dtype | None = None,
    arrange: Arrange | None = None,
) -> Transformer:
    """Build the model and copy every piece to its place, once.

    Args:
        config: the shape, which the pieces have been checked against.
        parts: see the top of this module.
        dtype: of the model; None: of the files, the widest if they differ.
        arrange: puts the rows of a piece in our order, given its name and
            the head size; None: they are in it.

    Returns:
        The model on the CPU, in evaluation mode.
    """
    if dtype is None:
        dtype = functools.reduce(torch.promote_types, (
            piece.dtype for pieces, _ in parts.values() for piece in pieces))
    with torch.device("meta"):
        model = Transformer(config).to(dtype)
    model.to_empty(device="cpu")
    if config.tie_embeddings:  # to_empty made two of the one
        model.output.weight = model.tok_embeddings.weight
    with torch.no_grad():
        for name, room in weights_of(model).items():
            pieces, axis = parts[name]
            for place, piece in zip(room.chunk(len(pieces), axis), pieces):
                place.copy_(arrange(name, piece, config.head_dim)
                            if arrange else piece)
    return model.eval()
