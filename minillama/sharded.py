"""Tensors written by many processes, read back by any other number.

Every process writes the parts it holds (torch.distributed.checkpoint); a
reader of any layout asks for the parts it needs. One process asks for all.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.tensor import DTensor, distribute_tensor

INDEX = ".metadata"
"""The file that says which part of which tensor lies where."""


class _Plain(pickle.Unpickler):
    """Reads the index, and refuses everything that is no plain record."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("pathlib"):
            return Path  # written on another system, maybe
        record = module in ("torch.distributed.checkpoint.metadata",
                            "torch.distributed.checkpoint.filesystem")
        tame = {"torch": ("Size", "float32", "float64", "bfloat16", "float16",
                          "int64", "strided", "contiguous_format"),
                "torch.serialization": ("_get_layout",),
                "collections": ("OrderedDict",)}
        if record or name in tame.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"{INDEX} names {module}.{name}, which is no part of an index")


class Reader(FileSystemReader):
    """A reader to which nothing that it reads can bring code to run."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index; the library's own way would run what it says."""
        with open(Path(self.path) / INDEX, "rb") as file:
            try:
                metadata = _Plain(file).load()
            except (pickle.UnpicklingError, EOFError) as error:
                raise ValueError(
                    f"{self.path} cannot be trusted: {error}; delete this "
                    "checkpoint to fall back on the one before") from error
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def holds(folder: Path) -> bool:
    """Whether a folder was written by `write`."""
    return (Path(folder) / INDEX).is_file()


def tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """All that a step changes, by name: weights and AdamW's moments.

    The tensors themselves, not copies: what is loaded into them has been
    loaded into the run. Moments of a fresh optimiser begin as zeros.
    """
    flat: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        state = optimizer.state[weight]
        if not state:
            state["step"] = torch.zeros((), device=weight.device)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        flat[f"weights/{name}"] = weight.detach()
        flat |= {f"optimizer/{name}/{key}": value
                 for key, value in state.items()}
    return flat


def write(folder: Path, flat: dict[str, Tensor]) -> None:
    """Write this process's parts; every process has to call it."""
    dcp.save(flat, storage_writer=dcp.FileSystemWriter(folder))


def load(folder: Path, flat: dict[str, Tensor]) -> None:
    """Fill tensors of any layout in place; every process has to call it.

    Raises:
        ValueError: naming what is missing, left over or of another shape.
    """
    stored = {name: tuple(entry.size) for name, entry
              in Reader(folder).read_metadata().state_dict_metadata.items()}
    mine = {name: tuple(tensor.shape) for name, tensor in flat.items()}
    if odd := sorted(name for name in {**stored, **mine}
                     if stored.get(name) != mine.get(name)):
        raise ValueError(
            f"the checkpoint {folder} does not fit the model in {odd[:5]}; "
            "build the model with the config stored beside it")
    _load(folder, flat, alone=not dist.is_initialized())


def _load(folder: Path, flat: dict[str, Tensor], *, alone: bool) -> None:
    """Fill tensors in place, without a word about there being one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is dis")
        dcp.load(flat, storage_reader=Reader(folder), no_dist=alone)


def read(folder: Path, prefix: str = "weights/") -> dict[str, Tensor]:
    """Whole tensors whose names begin with `prefix`, for one process."""
    entries = Reader(folder).read_metadata().state_dict_metadata
    flat = {name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in entries.items() if name.startswith(prefix)}
    _load(folder, flat, alone=True)
    return {name.removeprefix(prefix): t for name, t in flat.items()}


@torch.no_grad()
def fill(target: Tensor, whole: Tensor) -> None:
    """Put this process's part of a whole tensor into its place."""
    if isinstance(target, DTensor):
        whole = distribute_tensor(
            whole.to(target.device), target.device_mesh, target.placements,
            src_data_rank=None).to_local()
        target = target.to_local()
    target.copy_(whole)
