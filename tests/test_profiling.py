"""What a computation did: bytes, kernels.

Bytes are held against tensors whose sizes are known beforehand; nothing may
appear on stderr, where the profiler's C++ side likes to write.
"""

from __future__ import annotations

import pytest
import torch

from minillama import profiling

MIB = 2**20


def numbers(mib):
    """A tensor of so many MiB."""
    return torch.empty(mib * MIB // 4)


def test_kept_and_peak_are_the_tensors():
    """Two live together, one is freed, one is handed out."""
    def run():
        first = numbers(3)
        second = numbers(2)
        del first
        return second, numbers(4)

    assert profiling.memory(run) == profiling.Memory(6 * MIB, 6 * MIB)

    def falling():
        big = numbers(9)
        del big
        return numbers(1)

    assert profiling.memory(falling) == profiling.Memory(MIB, 9 * MIB)


def test_what_was_there_before_does_not_count():
    before = numbers(5)
    assert profiling.memory(lambda: before.view(-1)) == (0, 0)
    held = [numbers(5)]
    assert profiling.memory(held.clear) == (0, 0)


def test_what_a_backward_pass_needs_is_kept_by_the_result():
    x = torch.ones(MIB // 4, requires_grad=True)
    # exp keeps its result for the backward pass; sum alone keeps nothing.
    assert profiling.memory(lambda: x.exp().sum()).kept == MIB + 4
    assert profiling.memory(lambda: x.sum()).kept == 4


def test_nothing_appears_on_stderr(capfd):
    profiling.memory(lambda: numbers(1))
    profiling.kernels(lambda: torch.ones(3).softmax(0))
    assert capfd.readouterr() == ("", "")


def test_an_error_inside_leaves_stderr_and_the_profiler_in_order(capfd):
    import os

    with pytest.raises(ZeroDivisionError):
        profiling.memory(lambda: 1 / 0)
    os.write(2, b"here\n")
    assert capfd.readouterr().err == "here\n"
    assert profiling.memory(lambda: numbers(1)).kept == MIB


def test_no_attention_no_kernel():
    assert profiling.kernels(lambda: torch.ones(3) + 1) == []
