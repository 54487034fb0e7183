"""What a computation really did: its kernels, its bytes, its errors.

Kernels and bytes are read from PyTorch's profiler; nothing is worked out from
what the code says it does.

Chapter: notebooks/12_efficiency.ipynb
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from minillama.attention import Backend, attend


class Memory(NamedTuple):
    """Bytes of tensors, measured from the moment a computation began."""

    kept: int
    """Still there when it ended, its result included."""
    peak: int
    """The most that was there at any moment."""


def memory(run: Callable[[], Any]) -> Memory:
    """Bytes that `run` leaves behind, and the most it held at once.

    The sum of the profiler's memory events, to the byte on a CPU; CUDA's
    allocator rounds every tensor up to 512. Hold on to what existed before:
    what is freed meanwhile would count if a profile saw it come.

    Chapter: notebooks/12_efficiency.ipynb
    """
    gc.collect()  # or old garbage is freed, and counted, meanwhile
    with profiled(profile_memory=True) as profiler:
        result = run()
    events = [event for event in profiler.profiler.kineto_results.events()
              if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    del result  # not before the profile had ended
    return Memory(live, peak)


def kernels(run: Callable[[], Any]) -> list[str]:
    """The operators of attention that a computation ran, by PyTorch's names.

    Such as `_scaled_dot_product_flash_attention_for_cpu`; `softmax` where the
    formula was written out or PyTorch fell back to it, which stores the
    scores; `TiledAttention` for our tiles.

    Chapter: notebooks/12_efficiency.ipynb
    """
    with profiled() as profiler:
        run()
    names = {event.name.rpartition("::")[2] for event in profiler.events()}
    fused = {name for name in names if name == "TiledAttention" or (
        "attention" in name and not name.endswith("backward")
        and name != "scaled_dot_product_attention")}
    inner = {"_flash_attention_forward", "_efficient_attention_forward",
             "_scaled_dot_product_attention_math"}
    return sorted(fused - inner) or sorted(names & {"softmax"})


CASES = {
    "square": (4, 4, 64, 64), "odd": (4, 4, 37, 37),
    "shared heads": (4, 2, 64, 64), "shared, odd": (6, 2, 37, 37),
    "a cache": (4, 4, 5, 37), "shared, a cache": (4, 1, 5, 37),
    "one query": (4, 2, 1, 37)}
"""(H, G, T, S) of the rows of `deviations`."""


class Deviation(NamedTuple):
    """One backend on one case, beside the formula in float64."""

    backend: str
    dtype: str
    case: str
    """One of `CASES`."""
    output: float | None
    """Largest difference, over the largest number; None: it cannot run."""
    gradient: float | None
    """The same, the worst of the gradients of q, k and v."""
    note: str
    """The kernel that ran, or why none did."""


def deviations(device: str = "cpu") -> list[Deviation]:
    """Every backend on every case in 32 and 16 bits, against float64.

    Chapter: notebooks/12_efficiency.ipynb
    """
    return [
        _deviation(backend, dtype, case, device)
        for backend in ("eager", "tiled", "sdpa", "xformers")
        for dtype in (torch.float32, torch.bfloat16) for case in CASES]


def _deviation(
    backend: Backend, dtype: torch.dtype, case: str, device: str
) -> Deviation:
    heads, groups, queries, keys = CASES[case]
    draw, k_size = torch.Generator().manual_seed(0), 16
    narrow = [torch.randn(2, h, t, k_size, generator=draw).to(device, dtype)
              for h, t in ((heads, queries), (groups, keys), (groups, keys))]
    row = backend, str(dtype).removeprefix("torch."), case
    try:
        ran = kernels(lambda: attend(*narrow, backend=backend))
        got = _with_gradients(narrow, backend)
    except ValueError as reason:
        return Deviation(*row, None, None, str(reason))
    want = _with_gradients([x.cpu().double() for x in narrow], "eager")
    gaps = [((a.cpu().double() - b).abs().max() / b.abs().max()).item()
            for a, b in zip(got, want)]
    return Deviation(*row, gaps[0], max(gaps[1:]), " ".join(ran))


def _with_gradients(tensors: list[Tensor], backend: Backend) -> list[Tensor]:
    """The output, and the gradients of half the sum of its squares."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = attend(*leaves, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, out.detach())]


@contextlib.contextmanager
def profiled(**options: bool) -> Iterator[profile]:
    """A profile of the CPU's side, and of CUDA's where there is one."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    profiler = profile(activities=activities, **options)
    with _no_announcement():
        profiler.start()
    try:
        yield profiler
    finally:
        with _no_announcement():
            profiler.stop()


@contextlib.contextmanager
def _no_announcement() -> Iterator[None]:
    """Keep the profiler's own lines, written below Python, off stderr."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
