"""minillama/layout.py: which layouts are possible, by plain division.

Every tensor-parallel size up to the number of heads is tried against the
remainders themselves, worked out here for the four models of the paper and
for a model with shared key and value heads.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from minillama.config import ModelConfig
from minillama.layout import Layout


def test_the_sizes_multiply():
    layout = Layout(dp_replicate=4, dp_shard=64, tensor_parallel=8)
    assert layout.data_parallel == 256
    assert layout.world_size == 2048
    assert Layout().world_size == 1


@pytest.mark.parametrize("preset, sizes", [
    # heads, feed-forward width, vocabulary
    ("7B", (32, 11008, 32000)), ("13B", (40, 13824, 32000)),
    ("33B", (52, 17920, 32000)), ("65B", (64, 22016, 32000)),
    ("1.1B", (32, 4, 5632, 32000)),
])
@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_a_size_fits_if_nothing_is_left_over(preset, sizes,
                                             sequence_parallel):
    model = ModelConfig.preset(preset)
    if sequence_parallel:
        sizes += (2048,)
    for t in range(1, sizes[0] + 1):
        layout = Layout(tensor_parallel=t,
                        sequence_parallel=sequence_parallel)
        fits = all(size % t == 0 for size in sizes)
        assert (layout.misfits(model, 2048) == []) == fits, t


def test_the_sequence_has_to_divide_too():
    """Three GPUs divide 12 heads and these widths, but not 32 positions."""
    model = ModelConfig(dim=48, n_heads=12, ffn_dim=96, vocab_size=96)
    assert Layout(tensor_parallel=3).misfits(model, 32) == [
        "tensor_parallel=3 does not divide seq_len=32; try one of [1, 2, 4]"]
    alone = Layout(tensor_parallel=3, sequence_parallel=False)
    assert alone.misfits(model, 32) == []


def test_the_remedy_works():
    model = ModelConfig.preset("33B")
    first, *_ = Layout(tensor_parallel=8).misfits(model, 2048)
    assert first == ("tensor_parallel=8 does not divide n_heads=52; "
                     "try one of [1, 2, 4]")
    for t in (1, 2, 4):
        assert Layout(tensor_parallel=t).misfits(model, 2048) == []


def test_less_than_one_gpu_is_refused():
    with pytest.raises(ValueError, match=(
            "Layout: dp_shard=0 must be at least 1; tensor_parallel=-2 "
            "must be")):
        Layout(dp_shard=0, tensor_parallel=-2)


def test_importing_it_costs_no_torch():
    script = "import sys, minillama.layout\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script],
                          check=False).returncode == 0
