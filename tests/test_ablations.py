"""The alternatives to LLaMA's choices, checked against what defines them.

Post-norm and the ReLU layer against the formulas written with
torch.nn.functional; positions by what they can and cannot see (a bag of
tokens stays a bag without them); every model by causality, by its first loss
of ln V and by decoding with a cache; `compare` against a worked example and
by how often its interval holds the truth; `run` by being its own prefix.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from minillama import ablations
from minillama.config import ModelConfig
from minillama.model import Block
from minillama.train import next_token_loss
from tests.small import made_up_words

SMALL = ModelConfig(
    32, 2, 2, multiple_of=4, vocab_size=300, max_seq_len=24)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No network, one second."""
    return made_up_words(tmp_path_factory.mktemp("words"), 3, 800)


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, SMALL.vocab_size, shape, generator=draw)


def kind_of(name: str, **changes: object) -> torch.nn.Module:
    return ablations.build(name, replace(SMALL, **changes)).double()


def test_post_norm_normalises_after_each_addition() -> None:
    block = ablations.PostNormBlock(SMALL).double()
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    tables = (torch.ones(5, 8, dtype=torch.float64),
              torch.zeros(5, 8, dtype=torch.float64))

    def norm(y: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(y, (32,), eps=SMALL.norm_eps)

    h = norm(x + block.attention(x, tables))
    want = norm(h + block.feed_forward(h))
    torch.testing.assert_close(block(x, tables), want)
    # Pre-norm with the same weights is another function.
    pre = Block.forward(block, x, tables)
    assert (pre - want).abs().max() > 0.1


def test_relu_layer_is_its_formula_and_scales() -> None:
    layer = ablations.ReLUFeedForward(6, 10).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    want = F.linear(F.linear(x, layer.w_up.weight).clamp(min=0),
                    layer.w_down.weight)
    torch.testing.assert_close(layer(x), want)
    torch.testing.assert_close(layer(3 * x), 3 * layer(x))


@pytest.mark.parametrize("dim", [32, 64, 96])
def test_relu_block_has_as_many_parameters_as_swiglu(dim: int) -> None:
    config = ModelConfig(dim, 1, 2, multiple_of=2)

    def count(block: type[torch.nn.Module]) -> int:
        return sum(p.numel() for p in block(config).parameters())

    assert count(ablations.ReLUBlock) == count(Block)


def last_logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids)[0, -1]


def test_without_positions_one_layer_sees_a_bag() -> None:
    ids = tokens(1, 9)
    mixed = ids[:, [3, 1, 6, 0, 2, 7, 5, 4, 8]]
    bag = kind_of("no-positions", n_layers=1)
    torch.testing.assert_close(
        last_logits(bag, ids), last_logits(bag, mixed))
    for name in ("llama", "learned-positions"):
        model = kind_of(name, n_layers=1)
        gap = last_logits(model, ids) - last_logits(model, mixed)
        assert gap.abs().max() > 1e-6, name


def test_learned_positions_are_absolute() -> None:
    """A shift of the text changes them, and leaves RoPE as it was."""
    ids = tokens(1, 6)

    def moved(name: str) -> float:
        model = kind_of(name, n_layers=1)
        with torch.no_grad():
            here, there = model(ids), model(ids, start_pos=5)
        return (here - there).abs().max().item()

    assert moved("llama") < 1e-9
    assert moved("learned-positions") > 1e-4


def test_layer_norm_ignores_what_is_added_to_all_components() -> None:
    model = kind_of("layer-norm")
    x = torch.randn(3, 32, dtype=torch.float64)
    for norm in (model.norm, model.layers[1].attention_norm,
                 model.layers[1].ffn_norm):
        torch.testing.assert_close(norm(x + 7), norm(x))
        assert [*norm.state_dict()] == ["weight"]


@pytest.mark.parametrize("name", ablations.KINDS)
def test_nothing_leaks_from_the_future(name: str) -> None:
    model, ids = kind_of(name), tokens(1, 12)
    other = ids.clone()
    other[0, 7:] = (other[0, 7:] + 1) % SMALL.vocab_size
    with torch.no_grad():
        a, b = model(ids), model(other)
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert (a[:, 7:] - b[:, 7:]).abs().max() > 1e-6


@pytest.mark.parametrize("name", ablations.KINDS)
def test_decoding_with_a_cache_equals_the_full_pass(name: str) -> None:
    model, ids = kind_of(name), tokens(1, 10)
    cache = [(torch.zeros(1, 2, 24, 16, dtype=torch.float64),
              torch.zeros(1, 2, 24, 16, dtype=torch.float64))
             for _ in range(2)]
    with torch.no_grad():
        whole = model(ids)
        parts = [model(ids[:, :6], 0, cache)]
        parts += [model(ids[:, i:i + 1], i, cache) for i in range(6, 10)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("name", ablations.KINDS)
def test_first_loss_is_ln_v_and_every_weight_learns(name: str) -> None:
    model, ids = kind_of(name), tokens(4, 17)
    loss = next_token_loss(model, ids[:, :-1], ids[:, 1:]) / 64
    assert loss.item() == pytest.approx(math.log(300), abs=0.05)
    loss.backward()
    for parameter, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, parameter


def test_the_seed_decides_the_weights() -> None:
    a, b, c = (ablations.build("learned-positions", SMALL, seed=s)
               for s in (1, 1, 2))
    assert torch.equal(a.tok_embeddings.positions,
                       b.tok_embeddings.positions)
    assert not torch.equal(a.tok_embeddings.positions,
                           c.tok_embeddings.positions)


def test_xavier_draws_by_the_sizes_of_the_matrix() -> None:
    config = replace(SMALL, dim=96, ffn_dim=200)
    model = ablations.build("llama", config, init="xavier")
    for name, w in model.layers.named_parameters():
        if w.ndim == 2:
            want = math.sqrt(2 / sum(w.shape))
            assert w.std().item() == pytest.approx(want, rel=0.05), name
        else:
            assert torch.equal(w, torch.ones_like(w))
    plain = ablations.build("llama", config)
    assert torch.equal(plain.output.weight, model.output.weight)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="pots-norm.*try one of.*llama"):
        ablations.build("pots-norm", SMALL)


def run(arm: str, data: Path, **changes: object) -> dict:
    return ablations.run(arm, 1, data, model=SMALL, steps=6, warmup_steps=2,
                         batch_size=4, **changes)


def test_a_stopped_run_is_the_beginning_of_the_whole(data: Path) -> None:
    whole, part = run("llama", data), run("llama", data, until=4)
    assert whole["loss"][:4] == part["loss"]
    assert len(whole["loss"]) == 6
    # Fewer steps taken, but the bill is that of the whole schedule.
    assert whole["training_flops"] == part["training_flops"]
    assert whole["bits_per_byte"] != part["bits_per_byte"]


def test_a_run_that_breaks_has_no_result(data: Path) -> None:
    broken = run("llama", data, max_lr=1e30)
    assert broken["bits_per_byte"] is None
    assert len(broken["loss"]) < 6


def test_costs_are_those_of_the_formula(data: Path) -> None:
    result = run("llama", data)
    assert result["tokens"] == 6 * 4 * 24
    weights = result["parameters"] - 300 * 32
    per_token = 6 * weights + 6 * 2 * 32 * 24
    assert result["training_flops"] == per_token * result["tokens"]
    assert result["inference_flops_per_token"] == per_token // 3


def test_thinned_keeps_the_mean() -> None:
    draw = torch.Generator().manual_seed(1)
    losses = torch.rand(300, generator=draw).tolist()
    thin = ablations.thinned(losses, points=30)
    assert len(thin) == 30
    assert thin[0] == pytest.approx(sum(losses[:10]) / 10, abs=6e-4)
    assert sum(thin) / 30 == pytest.approx(sum(losses) / 300, abs=6e-4)
    assert ablations.thinned([1.0, 2.0, 3.0], points=40) == [1.0, 2.0, 3.0]


def test_compare_against_a_worked_example() -> None:
    """Differences 1..5: mean 3, deviation 1.5811, t(4) = 2.776."""
    zeros, ones_to_five = [0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]
    got = ablations.compare(zeros, ones_to_five)
    assert got["mean"] == pytest.approx(3)
    assert got["high"] - 3 == pytest.approx(1.9630, abs=1e-3)
    assert 3 - got["low"] == pytest.approx(1.9630, abs=1e-3)
    back = ablations.compare(ones_to_five, zeros)
    assert back["mean"] == -got["mean"]


@pytest.mark.parametrize("seeds", range(2, 11))
def test_the_interval_holds_the_truth_95_times_in_100(seeds: int) -> None:
    """4,000 draws: outside 93.6..96.4 % once in 20,000 by chance."""
    draw = torch.Generator().manual_seed(seeds)
    shared = torch.randn(4000, seeds, generator=draw) * 5
    first = shared + torch.randn(4000, seeds, generator=draw)
    second = shared + torch.randn(4000, seeds, generator=draw) + 0.7
    held = 0
    for a, b in zip(first.tolist(), second.tolist()):
        d = ablations.compare(a, b)
        held += d["low"] < 0.7 < d["high"]
    assert 0.936 < held / 4000 < 0.964


def test_compare_refuses_what_cannot_be_paired() -> None:
    for a, b in (([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([0.0] * 11,) * 2):
        with pytest.raises(ValueError, match="2 to 10"):
            ablations.compare(a, b)
