"""A device that computes on the CPU and refuses what a GPU would refuse.

`--device paper` takes part in everything that a GPU would: tensors have to be
moved to it, and what lies on the CPU does not mix with what lies here. Apple's
GPUs add one refusal, which is kept too: nothing here has 64 bits and a point.
Under every tensor lies one of the CPU, which PyTorch's own kernels work on.

Importing this file changes PyTorch for the whole process, so that only
processes started for it should (`pretend_jobs.py`).

Not pretended: kernels of its own, autocast, streams, and random numbers, which
come from the CPU so that results can be compared. PyTorch's recomputation
calls back from a thread that has no place for such a device.
"""

from __future__ import annotations

from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import (
    TorchDispatchMode, return_and_correct_aliasing)
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "paper"
ATEN = torch.ops.aten
CROSSING = {ATEN.copy_.default, ATEN._to_copy.default, ATEN.index.Tensor}
"""Operations that may see both sides: an index may lie on the CPU."""


class _Module(backend_registration._DummyBackendModule):
    """What PyTorch asks of `torch.paper`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())


class Paper(torch.Tensor):
    """A tensor that says it lies on the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, under: Tensor) -> Paper:
        if under.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{NAME} has no {under.dtype}")
        self = Tensor._make_wrapper_subclass(
            cls, under.size(), strides=under.stride(),
            storage_offset=under.storage_offset(), dtype=under.dtype,
            device=torch.device(NAME, 0))
        self.under = under
        return self

    @property
    def data(self) -> Tensor:
        """The same numbers without their history."""
        return self.detach()

    @data.setter
    def data(self, other: Paper) -> None:
        Tensor.data.__set__(self, other)
        self.under = other.under

    def tolist(self) -> list[Any]:
        return self.cpu().tolist()

    def numpy(self, *args: Any, **options: Any) -> Any:
        raise TypeError(f"a tensor on {NAME} is no array; use .cpu() first")

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), options=None):
        return compute(operation, args, options or {})


def compute(operation: Any, args: tuple, options: dict[str, Any]) -> Any:
    """Carry one operation out below, if all of it lies here."""
    tensors = [x for x in tree_leaves((args, options))
               if isinstance(x, Tensor)]
    here = [x for x in tensors if isinstance(x, Paper)]
    goes = options.get("device")
    goes = goes and torch.device(goes).type
    if not here and goes != NAME:
        return operation(*args, **options)
    away = [tuple(x.shape) for x in tensors
            if x.dim() and not isinstance(x, Paper)]
    if here and away and operation not in CROSSING:
        raise RuntimeError(f"{operation}: not all tensors are on {NAME}; "
                           f"on the CPU: {away}")
    below = tree_map_only(Paper, lambda x: torch.resolve_conj(x.under), args)
    rest = tree_map_only(Paper, lambda x: x.under, options)
    if goes:
        rest["device"] = torch.device("cpu")
    out = operation(*below, **rest)
    if operation in (ATEN.copy_.default, ATEN._local_scalar_dense.default):
        return args[0] if isinstance(out, Tensor) else out
    if goes not in (None, NAME):
        return out
    out = tree_map_only(Tensor, Paper, out)
    return return_and_correct_aliasing(
        operation, args, options, out) if here else out


class Everywhere(TorchDispatchMode):
    """Also where tensors are made: `torch.zeros(3, device="paper")`."""

    def __torch_dispatch__(self, operation, types, args=(), options=None):
        return compute(operation, args, options or {})


# --- what PyTorch does below the place where `compute` listens ---------------

def _moved(real):
    """`torch.tensor` and its like: made on the CPU, then moved."""
    def made(data, *args, device=None, **options):
        out = real(data, *args, **options)
        return out if device is None else out.to(device)
    return made


class _Kind(type):
    def __instancecheck__(cls, one: Any) -> bool:
        return isinstance(one, _Generator)


_Generator = torch.Generator


class _CPUs(metaclass=_Kind):
    """A generator of the CPU, whatever the device."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:
        return _Generator("cpu")


def _fetched(real):
    """Writers of files, which reach for the memory of a tensor."""
    def write(data, *args, **options):
        return real(tree_map_only(Paper, lambda x: x.detach().cpu(), data),
                    *args, **options)
    return write


def _empty(size, stride, *, dtype=None, **options):
    return Paper(torch.empty_strided(size, stride, dtype=dtype))


def _copy(source, target, non_blocking=False):
    low = [x.under if isinstance(x, Paper) else x for x in (source, target)]
    low[1].copy_(low[0])
    return target


for name in ("tensor", "as_tensor", "asarray"):
    setattr(torch, name, _moved(getattr(torch, name)))
torch.Generator = _CPUs
torch.inference_mode = torch.no_grad  # its tensors cannot be wrapped
torch.save = _fetched(torch.save)
safetensors.torch.save_file = _fetched(safetensors.torch.save_file)
LIBRARY = torch.library.Library("aten", "IMPL")
LIBRARY.impl("empty_strided", _empty, "PrivateUse1")
LIBRARY.impl("_copy_from", _copy, "PrivateUse1")
