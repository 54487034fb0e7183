"""What a computation did: bytes, kernels, operations.

Bytes are held against tensors whose sizes are known beforehand; nothing may
appear on stderr, where the profiler's C++ side likes to write.
"""

from __future__ import annotations

import pytest
import torch

from minillama import profiling
from minillama.config import ModelConfig
from minillama.model import Transformer
from minillama.plots import efficiency

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


@pytest.mark.parametrize(("name", "shapes", "flops", "numbers"), [
    ("mm", [[3, 4], [4, 5]], 120, 12 + 20 + 15),
    ("bmm", [[2, 3, 4], [2, 4, 5]], 240, 24 + 40 + 30),
    ("mul", [[6, 5], [5]], 30, 30 + 5 + 30),
    ("sum", [[6, 5], [], []], 30, 30),
    # two products of 8 x 8 scores with heads of 4, half of each
    ("_scaled_dot_product_flash_attention", [[1, 2, 8, 4]] * 3,
     2 * 2 * (2 * 8 * 8 * 4) // 2, 4 * 64),
    ("view", [[6, 5]], 0, 0)])
def test_work_is_counted_from_shapes(name, shapes, flops, numbers):
    """On numbers for paper."""
    assert efficiency.counted(name, shapes) == (flops, numbers)


def test_a_models_operations_are_its_products():
    """6 operations a weight that multiplies, and the backward's attention."""
    config = ModelConfig(dim=32, n_layers=2, n_heads=2, multiple_of=8,
                         vocab_size=64, max_seq_len=16)
    model = Transformer(config)
    tokens = torch.zeros(3, 16, dtype=torch.int64)
    work = efficiency.operations(lambda: model(tokens).sum().backward())
    weights = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    weights -= model.tok_embeddings.weight.numel()
    assert work["mm"].flops == 6 * weights * tokens.numel()
    assert all(w.seconds > 0 and w.n_bytes > 0 for w in work.values())
    forward = work["scaled_dot_product_flash_attention_for_cpu"]
    backward = work["scaled_dot_product_flash_attention_for_cpu_backward"]
    assert forward.flops == 2 * 2 * 3 * 16 * 16 * 32
    assert backward.flops == 2.5 * forward.flops
