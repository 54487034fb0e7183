"""Which device, and in which precision its matrix products are computed.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU."""
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as e:
            raise ValueError(
                f"device={name!r} cannot be used here ({e}); try 'cpu' or "
                "'auto'") from e
    if torch.cuda.is_available():
        return torch.device("cuda")
    mps = torch.backends.mps.is_available()
    return torch.device("mps" if mps else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is the fastest type that the hardware itself computes in.

    bf16 on CUDA from capability 8.0 and on CPUs with bf16 instructions; fp16
    on older CUDA devices (they say yes to bf16, and emulate it); else fp32.
    """
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16,
                "fp16": torch.float16}[name]
    if device.type == "cuda":
        new = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if new else torch.float16
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if device.type == "cpu" and probe is not None and probe():
        return torch.bfloat16
    return torch.float32


def precision(
    device: torch.device, dtype: torch.dtype
) -> contextlib.AbstractContextManager[Any]:
    """Autocast for matrix products in 16 bits; nothing in float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)
