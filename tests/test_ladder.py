"""The equality ladder holds for the same model and falls for another.

It is itself an oracle, so what is tested is that it can say no: a forgotten
permutation, a wrong epsilon, a NaN. That the twin is right is seen in
tests/test_model.py, with a translation of Hugging Face's written there.
"""

from __future__ import annotations

import json
import math
import os

import pytest
import torch

from minillama import cli, samples, weights
from minillama.config import ModelConfig, RopeScaling
from minillama.model import Transformer
from minillama.weights import hf, ladder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers")

SHAPES = {
    "shared heads": ModelConfig(48, 2, 4, n_kv_heads=2, multiple_of=16,
                                vocab_size=61, max_seq_len=64),
    "tied, stretched": ModelConfig(
        48, 2, 4, multiple_of=16, vocab_size=61, max_seq_len=64,
        tie_embeddings=True, rope_scaling=RopeScaling(
            factor=4.0, original_max_seq_len=16)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_rung_holds(shape):
    torch.manual_seed(2)
    rungs = ladder.climb(Transformer(SHAPES[shape]))
    assert [(r.against, r.what) for r in rungs] == [
        ("Hugging Face, fp64", "logits"), ("Hugging Face, fp64", "gradients"),
        ("Hugging Face, fp32", "logits"), ("Hugging Face, fp32", "gradients"),
        ("fp64, ours in bf16", "logits")]
    assert all(rung.holds for rung in rungs), rungs
    assert all(rung.gap > 0 for rung in rungs[2:])


def test_a_forgotten_permutation_falls_off_every_rung(monkeypatch):
    torch.manual_seed(2)
    model = Transformer(SHAPES["shared heads"])
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5)
    monkeypatch.setattr(hf, "is_turned", lambda name: False)
    rungs = ladder.climb(model)
    assert not any(rung.holds for rung in rungs[:4])
    assert rungs[0].gap > 0.01


def test_not_a_number_does_not_hold():
    assert not ladder.Rung("x", "logits", math.nan, 1.0).holds
    assert ladder.Rung("x", "logits", 1.0, 1.0).holds


def test_the_command_prints_a_table_and_json(tmp_path, capsys):
    assert cli.main(["verify", "--tokens", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[1].endswith("ok")
    model, _ = samples.load_mini()
    weights.save_hf(model, tmp_path / "h")
    assert cli.main(["verify", "--checkpoint", str(tmp_path / "h"),
                     "--tokens", "12", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["what"] for row in rows} == {"logits", "gradients"}
    assert rows[0]["gap"] < 1e-12 and rows[0]["holds"]


def test_the_command_ends_in_1_when_a_rung_breaks(monkeypatch, capsys):
    monkeypatch.setattr(ladder, "climb", lambda *args, **knobs: [
        ladder.Rung("Hugging Face, fp64", "logits", 4.0, 1e-10)])
    assert cli.main(["verify"]) == 1
    assert capsys.readouterr().out.endswith("NO\n")
