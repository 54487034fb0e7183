"""What a computation really did: its kernels and its bytes.

Kernels and bytes are read from PyTorch's profiler; nothing is worked out from
what the code says it does.

Chapter: notebooks/12_efficiency.ipynb
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile


class Memory(NamedTuple):
    """Bytes of tensors, measured from the moment a computation began."""

    kept: int
    """Still there when it ended, its result included."""
    peak: int
    """The most that was there at any moment."""


def memory(run: Callable[[], Any]) -> Memory:
    """Bytes that `run` leaves behind, and the most it held at once.

    Chapter: notebooks/12_efficiency.ipynb
    """
    live = course(run)
    return Memory(live[-1], max(live))


def course(run: Callable[[], Any]) -> list[int]:
    """Bytes there, beyond those at the start, after each make and free.

    The running sum of the profiler's memory events, to the byte on a CPU;
    CUDA's allocator rounds every tensor up to 512. Hold on to what existed
    before: what is freed meanwhile would count if a profile saw it come.

    Chapter: notebooks/12_efficiency.ipynb
    """
    gc.collect()  # or old garbage is freed, and counted, meanwhile
    with profiled(profile_memory=True) as profiler:
        result = run()
    events = [event for event in profiler.profiler.kineto_results.events()
              if event.name() == "[memory]"]
    del result  # not before the profile had ended
    events.sort(key=lambda event: event.start_ns())
    return [0, *itertools.accumulate(event.nbytes() for event in events)]


def kernels(run: Callable[[], Any]) -> list[str]:
    """The operators of attention that a computation ran, by PyTorch's names.

    Such as `_scaled_dot_product_flash_attention_for_cpu`; `softmax` where the
    formula was written out or PyTorch fell back to it, which stores the
    scores; `TiledAttention` for our tiles.

    Chapter: notebooks/12_efficiency.ipynb
    """
    with profiled() as profiler:
        run()
    ran = {event.name.rpartition("::")[::2] for event in profiler.events()}
    fused = {name for space, name in ran if (
        name == "TiledAttention" or space.startswith("xformers")
        or (space == "aten" and name.startswith("_scaled_dot_product_")))}
    # Two names that do not say which kernel: the way back, and the formula's.
    fused = {name for name in fused if not name.endswith("_math")
             and "backward" not in name and "bwd" not in name}
    return sorted(fused) or ["softmax"] * any(
        name.endswith("softmax") for _, name in ran)


@contextlib.contextmanager
def profiled(**options: bool) -> Iterator[profile]:
    """A profile of the CPU's side, and of CUDA's where there is one."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    # Some versions of PyTorch warn that only one cycle is kept; there is one.
    profiler = profile(activities=activities, acc_events=True, **options)
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
