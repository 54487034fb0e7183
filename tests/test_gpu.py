"""The benchmarks of one GPU and of recompute: what they run and count.

Nothing here is timed. The whole path runs at a tiny size on the CPU, where
every model has to begin with the same loss; utilisation is held against the
paper's own speed, and the number of layers that fit against bytes added up by
hand.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from benchmarks import gpu, recompute
from minillama.config import ModelConfig
from minillama.model import Transformer
from tests.small import MODEL

TINY = ("--preset mini --device cpu --steps 2 --warm-up 1 --length 16 "
        "--layers 1 --new-tokens 3 --batch-size 2").split()


def test_the_whole_path_runs_and_all_begin_alike():
    run = gpu.measure(gpu.arguments([
        *TINY, "--backends", "sdpa", "xformers", "--modes", "none", "full",
        "by_hand"]))
    rows = run["rows"]
    ran = [name for name, row in rows.items() if "skipped" not in row]
    assert ran[:3] == ["minillama, sdpa, none", "minillama, sdpa, full",
                       "minillama, sdpa, by_hand"]
    assert "Hugging Face, sdpa" in ran
    assert "xformers" in rows["minillama, xformers, none"]["skipped"]
    assert "minillama, xformers, by_hand" not in rows
    for name in ran:
        assert rows[name]["last_loss"] < rows[name]["first_loss"]
        assert rows[name]["mfu_6n"] is None  # the CPU's peak is not known
    assert run["settings"]["layers"] == 1
    assert run["settings"]["seq_len"] == 16
    assert torch.__version__.startswith(run["versions"]["torch"])
    assert run["generation"]["limit"] < run["generation"]["seconds_per_token"]
    table = gpu.summarise([run])
    assert set(table) == set(ran)
    base = table["Hugging Face, sdpa"]
    assert base["over_hugging_face"] == 1.0


def test_unequal_models_are_not_compared(monkeypatch):
    """A rival with other weights begins with another loss."""
    rows = {"minillama, sdpa, none": {"first_loss": 6.28},
            "litgpt": {"first_loss": 9.0}, "other": {"skipped": "absent"}}
    gpu.agree(rows)
    with pytest.raises(RuntimeError, match="do not compute the same"):
        gpu.agree({**rows, "Hugging Face, sdpa": {"first_loss": 6.35}})


def test_utilisation_is_the_papers_at_the_papers_speed():
    """380 tokens a second on an A100: 47.7 % by 6 N, 1 % less without the
    embedding, and the causal half of attention adds 1 %."""
    found = gpu.utilisation(ModelConfig.preset("65B"), 380.0, 312e12)
    assert found["mfu_6n"] == pytest.approx(0.477, abs=5e-4)
    assert found["mfu_6n_no_embedding"] == pytest.approx(0.4753, abs=5e-4)
    assert found["mfu_with_attention"] == pytest.approx(0.4851, abs=1e-3)
    assert set(gpu.utilisation(MODEL, 1.0, None).values()) == {None}


def test_layers_that_fit_are_added_up_by_hand():
    """7B in fp32 on 80 GB: 18 bytes a weight, 202,383,360 weights a layer."""
    config, length = ModelConfig.preset("7B"), 2048
    kept = 2 * 6 * 4096 + 4 * 11_008 + 4 * 32  # selective, a token
    layer = 202_383_360 * 18 + length * (kept + 4 * 4096)
    rest = (2 * 32_000 * 4096 + 4096) * 18 + 12 * length * 32_000
    for free in (30e9, 80e9):
        got = gpu.layers_that_fit(
            config, int(free), batch=1, mode="selective", weights=4)
        assert got == int((0.9 * free - rest) / layer)
    assert gpu.layers_that_fit(
        config, 10**9, batch=1, mode="full", weights=4) == 0


def test_backends_reach_the_layers_and_by_hand_keeps_its_own():
    model = Transformer(MODEL)
    gpu.ours(model, "tiled", "full")
    at = model.layers[0].attention
    assert at.attend.keywords == {"backend": "tiled"}
    model = Transformer(MODEL)
    loss = gpu.ours(model, "tiled", "by_hand")
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    loss(tokens, tokens).backward()  # would refuse another attention


@pytest.mark.skipif(importlib.util.find_spec("litgpt") is None,
                    reason="litgpt is not installed")
def test_litgpts_model_has_our_shape():
    config = ModelConfig.preset("mini")
    theirs = gpu.litgpt(config, torch.device("cpu"))
    ours = Transformer(config)
    assert sum(p.numel() for p in theirs.parameters()) == sum(
        p.numel() for p in ours.parameters())


def test_modes_that_take_turns_compute_the_same(monkeypatch):
    """And a mode that does not is refused before the clock starts."""
    sides = recompute.make_sides(MODEL, 2, torch.device("cpu"))
    found = [run() for run in sides.values()]  # losses and gradients
    assert list(sides) == list(recompute.MODES)
    for one in found:
        assert one == pytest.approx(found[0], rel=1e-5)
    real = recompute.recompute.apply

    def broken(model, mode):
        if mode == "full":
            with torch.no_grad():
                model.layers[0].attention.wq.weight.mul_(50)
        return real(model, mode)

    monkeypatch.setattr(recompute.recompute, "apply", broken)
    with pytest.raises(RuntimeError, match="full computes"):
        recompute.make_sides(MODEL, 2, torch.device("cpu"))


def test_a_row_a_mode_beside_none():
    run = {"peaks": dict.fromkeys(recompute.MODES, 2e6) | {"none": 4e6},
           "times": {clock: dict.fromkeys(recompute.MODES, [3.0, 3.0])
                     | {"none": [2.0, 2.0]} for clock in ("wall", "cpu")}}
    rows = recompute.summarise([run])
    assert rows["full"]["time"] == 1.5 and rows["full"]["peak"] == 0.5
    assert rows["none"]["peak_mb"] == 4.0
