"""minillama/planner/memory.py: bytes counted by other means.

Without parallelism everything is added up again here, from the real model's
tensors and from what a layer keeps by its own formula; with it, properties
that must hold whatever the formula: shares shrink in proportion, sequence
parallelism saves exactly the stream's part. Serving is held against the
caches of the four models, which follow from their shapes.
"""

from __future__ import annotations

import pytest

from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.model import count_parameters
from minillama.planner import memory
from minillama.planner.count import sizes
from minillama.recompute import kept_bytes

SEVEN = ModelConfig.preset("7B")


def at(layout, config=SEVEN, seq_len=2048):
    return memory.training(config, sizes(config), layout, seq_len)


def test_one_gpu_holds_sixteen_bytes_a_parameter():
    used = at(Layout(recompute="full"))
    assert used.weights + used.gradients + used.optimizer == 16 * (
        count_parameters(SEVEN))
    assert used.activations == 0, "the worst moment is the last"


@pytest.mark.parametrize("mode", ["selective", "linear", "by_hand", "full"])
def test_activations_are_what_every_layer_keeps_and_its_input(mode):
    """While the loss is worked out all layers keep what they need."""
    used = at(Layout(micro_batch_size=64, dp_shard=8, recompute=mode))
    tokens, stream = 64 * 2048, 2 * 64 * 2048 * 4096
    assert used.logits == 12 * tokens * 32_000
    final_norm = 4 * stream  # wide, normed, times weight
    assert used.activations == 32 * (
        kept_bytes(SEVEN, mode, batch=64, length=2048) + stream) + final_norm


def test_without_recompute_no_layer_keeps_its_input_as_such():
    used = at(Layout(micro_batch_size=16, dp_shard=8, recompute="none"))
    stream = 2 * 16 * 2048 * 4096
    assert used.activations == 32 * kept_bytes(
        SEVEN, "none", batch=16, length=2048) + 4 * stream


def test_shards_share_weights_gradients_and_moments():
    one, many = (at(Layout(dp_shard=n, micro_batch_size=16))
                 for n in (2, 256))
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(one, part) == 128 * getattr(many, part)
    assert one.activations == many.activations
    copies = at(Layout(dp_replicate=8, dp_shard=256, micro_batch_size=16))
    assert copies == many


@pytest.mark.parametrize("mode, stream_wide", [
    ("selective", 2), ("linear", 2), ("full", 0)])
def test_sequence_parallelism_saves_the_stream(mode, stream_wide):
    """Korthikanti et al. 2022: what tensor parallelism left whole, is dealt
    out too: the input of each layer, and what wo and w_down put out; of the
    last norm all but what the output reads."""
    t, batch = 8, 64
    wordy = ModelConfig.preset("7B", vocab_size=256_000)
    whole, dealt = (at(Layout(
        dp_shard=8, tensor_parallel=t, sequence_parallel=s,
        micro_batch_size=batch, recompute=mode), wordy) for s in (False, True))
    assert whole.logits and dealt.logits, "the same moment"
    numbers = batch * 2048 * 4096
    saved = (32 * (1 + stream_wide) + 3) * 2 * numbers * (1 - 1 / t)
    assert whole.activations - dealt.activations == pytest.approx(saved)


def test_recomputing_more_keeps_less():
    kept = [at(Layout(dp_shard=8, micro_batch_size=16,
                      recompute=mode)).activations for mode in (
        "none", "selective", "linear", "full")]
    assert kept == sorted(kept, reverse=True)


def test_the_total_is_the_worst_of_many_moments():
    """Scores of the loss are gone before the first layer goes backward."""
    few, many = (at(Layout(dp_shard=8, micro_batch_size=batch,
                           recompute="full")) for batch in (1, 64))
    assert few.logits == 0 and many.logits > 0
    assert few.buffers > 0 == many.buffers
    for used in (few, many):
        assert used.gib()["total"] == used.total / 2**30
        assert used.total == sum(
            getattr(used, part) for part in used.gib() if part != "total")


@pytest.mark.parametrize("preset, token", [
    ("7B", 524_288), ("13B", 819_200), ("33B", 1_597_440),
    ("65B", 2_621_440)])
def test_the_cache_of_the_four_models(preset, token):
    config = ModelConfig.preset(preset)
    parameters = count_parameters(config)
    used = memory.serving(config, parameters, sequences=3, context=100)
    assert used == {"weights": 2 * parameters, "cache": 300 * token}
    split = memory.serving(config, parameters, tensor_parallel=2)
    assert split == {"weights": parameters, "cache": 1024 * token}


def test_shared_heads_shrink_the_cache():
    config = ModelConfig.preset("1.1B")
    used = memory.serving(config, 1, sequences=1, context=1)
    assert used["cache"] == 2 * 2 * 22 * 4 * 64


def test_13b_runs_on_one_v100():
    """The paper, section 3: LLaMA-13B runs on a single V100."""
    config = ModelConfig.preset("13B")
    parameters = count_parameters(config)
    used = memory.serving(config, parameters)
    assert sum(used.values()) / 2**30 < 31.7
    half = memory.serving(config, parameters, bits=8)
    assert half["weights"] == used["weights"] / 2
