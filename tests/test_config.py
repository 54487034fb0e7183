"""Settings: presets against Table 2, refusals that say what would fit.

Table 2 and the released `params.json` are written out here by hand and held
against the presets. Each refusal has to name field, value and remedy, and
several problems come in one message. What goes through JSON comes back equal.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.config import (
    GenerateConfig, ModelConfig, PresetName, RopeScaling, TrainConfig)
from minillama.model import count_parameters
from minillama.optim import cosine_lr
from minillama.swiglu import ffn_hidden_dim

PRESETS = get_args(PresetName)

TABLE_2 = {  # dim, heads, layers, peak lr, tokens; then F and eps as released
    "7B": (4096, 32, 32, 3.0e-4, 1.0e12, 11008, 1e-6),
    "13B": (5120, 40, 40, 3.0e-4, 1.0e12, 13824, 1e-6),
    "33B": (6656, 52, 60, 1.5e-4, 1.4e12, 17920, 1e-6),
    "65B": (8192, 64, 80, 1.5e-4, 1.4e12, 22016, 1e-5),
}


@pytest.mark.parametrize("name", TABLE_2)
def test_the_paper_presets_are_table_2(name):
    """Shape, epsilon and vocabulary of the release."""
    dim, heads, layers, _, _, hidden, eps = TABLE_2[name]
    c = ModelConfig.preset(name)
    assert (c.dim, c.n_heads, c.n_layers, c.norm_eps) == (
        dim, heads, layers, eps)
    assert ffn_hidden_dim(c.dim, c.multiple_of) == hidden
    assert (c.vocab_size, c.max_seq_len, c.rope_theta) == (32000, 2048, 1e4)
    assert c.head_dim == 128 and c.kv_heads == heads
    assert c.rope_scaling is None and not c.tie_embeddings


@pytest.mark.parametrize("name", TABLE_2)
def test_the_paper_recipes_are_section_2_3(name):
    """Peak rate, 4M tokens a batch, 2,000 warm-up steps, all tokens."""
    _, _, _, lr, tokens, _, _ = TABLE_2[name]
    c = TrainConfig.from_preset(name)
    batch = c.batch_size * c.model.max_seq_len
    assert (c.max_lr, c.warmup_steps, batch) == (lr, 2000, 2**22)
    assert 0 <= tokens - c.steps * batch < batch
    assert (c.beta1, c.beta2, c.weight_decay, c.grad_clip) == (
        0.9, 0.95, 0.1, 1.0)


@pytest.mark.parametrize("name", [n for n in PRESETS if n[0].isdigit()])
def test_a_name_is_the_count(name):
    """All parameters, both tables included, within 10 % of the name."""
    promised = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    count = count_parameters(ModelConfig.preset(name))
    assert abs(count / promised - 1) < 0.10


def test_mini_fits_the_wheel():
    """2 bytes a number, and room for its tokenizer, within 2 MB."""
    assert count_parameters(ModelConfig.preset("mini")) <= 950_000
    assert 0.9e6 < count_parameters(ModelConfig.preset("toy")) < 1.1e6


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_everything_and_every_field_can_be_set(name):
    """One dial, and each field on top of it."""
    c = TrainConfig.from_preset(name)
    assert c.preset == name and c.model == ModelConfig.preset(name)
    assert c.warmup_steps < c.steps
    changed = TrainConfig.from_preset(name, max_lr=0.5)
    assert changed == dataclasses.replace(c, max_lr=0.5)
    other = ModelConfig.preset(name, norm_eps=0.25)
    assert other == dataclasses.replace(c.model, norm_eps=0.25)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    """Both classes say the same."""
    for make in (ModelConfig.preset, TrainConfig.from_preset):
        with pytest.raises(ValueError, match=r"preset='70B'.*try.*'65B'"):
            make("70B")


MODEL_REFUSALS = {
    "dim=0": (dict(dim=0), r"dim=0 must be at least 1"),
    "n_layers=0": (dict(n_layers=0), r"n_layers=0 must be at least 1"),
    "n_heads=-1": (dict(n_heads=-1), r"n_heads=-1 must be at least 1"),
    "n_kv_heads=0": (dict(n_kv_heads=0), r"n_kv_heads=0 must be at least 1"),
    "ffn_dim=0": (dict(ffn_dim=0), r"ffn_dim=0 must be at least 1"),
    "multiple_of=0": (dict(multiple_of=0), r"multiple_of=0 must be at leas"),
    "vocab_size=0": (dict(vocab_size=0), r"vocab_size=0 must be at least 1"),
    "max_seq_len=0": (dict(max_seq_len=0), r"max_seq_len=0 must be at leas"),
    "odd head": (dict(dim=100, n_heads=8, n_kv_heads=8),
                 r"dim=100 must be a multiple of 2 \* n_heads=16.*try dim=112"
                 ),
    "kv": (dict(n_heads=32, n_kv_heads=5),
           r"n_kv_heads=5 must divide n_heads=32; try one of \[1, 2, 4, 8, "),
    "eps": (dict(norm_eps=0.0), r"norm_eps=0.0 must be above 0"),
    "nan": (dict(norm_eps=math.nan), r"norm_eps=nan must be above 0"),
    "theta": (dict(rope_theta=0.0), r"rope_theta=0.0 must be above 0"),
}


@pytest.mark.parametrize("case", MODEL_REFUSALS)
def test_a_shape_that_does_not_fit_is_refused(case):
    """Field, value, and what would fit."""
    fields, message = MODEL_REFUSALS[case]
    with pytest.raises(ValueError, match="ModelConfig: .*" + message):
        ModelConfig(**fields)


def test_the_remedies_work():
    """What the messages propose is accepted."""
    assert ModelConfig(dim=112, n_heads=8).head_dim == 14
    for heads in (1, 2, 4, 8, 16, 32):
        assert ModelConfig(n_kv_heads=heads).kv_heads == heads


TRAIN_REFUSALS = {
    "steps": (dict(steps=0), r"steps=0 must be at least 1"),
    "batch_size": (dict(batch_size=0), r"batch_size=0 must be at least 1"),
    "micro": (dict(batch_size=12, micro_batch_size=5),
              r"micro_batch_size=5 must divide batch_size=12; try one of "
              r"\[1, 2, 3, 4, 6, 12\]"),
    "log_every": (dict(log_every=0), r"log_every=0 must be at least 1"),
    "checkpoint_every": (dict(checkpoint_every=0), r"checkpoint_every=0 mus"),
    "keep_last": (dict(keep_last=0), r"keep_last=0 must be at least 1"),
    "eval_tokens": (dict(eval_tokens=0), r"eval_tokens=0 must be at least"),
    "max_lr": (dict(max_lr=0.0), r"max_lr=0.0 must be above 0"),
    "lr nan": (dict(max_lr=math.nan), r"max_lr=nan must be above 0"),
    "clip": (dict(grad_clip=-1.0), r"grad_clip=-1.0 must be above 0"),
    "beta1": (dict(beta1=1.0), r"beta1=1.0 must be in \[0, 1\)"),
    "beta2": (dict(beta2=-0.1), r"beta2=-0.1 must be in \[0, 1\)"),
    "decay": (dict(weight_decay=-0.1), r"weight_decay=-0.1 must not be neg"),
    "warm-up": (dict(warmup_steps=-1), r"warmup_steps=-1 must not be negat"),
    "eval": (dict(eval_every=-5), r"eval_every=-5 must not be negative"),
}


@pytest.mark.parametrize("case", TRAIN_REFUSALS)
def test_a_run_that_cannot_work_is_refused(case):
    """Field, value, and what would fit."""
    fields, message = TRAIN_REFUSALS[case]
    with pytest.raises(ValueError, match="TrainConfig: .*" + message):
        TrainConfig.from_preset("toy", **fields)


@pytest.mark.parametrize("steps, warmup", [
    (1500, 100), (101, 100), (100, 10), (50, 5), (9, 0), (1, 0)])
def test_a_short_run_climbs_for_a_tenth_of_itself(steps, warmup):
    """A preset's warm-up fits its own steps; fewer steps need no more flags.
    """
    config = TrainConfig.from_preset("toy", steps=steps)
    assert config.warmup_steps == warmup
    assert cosine_lr(steps, max_lr=1.0, warmup_steps=config.warmup_steps,
                     total_steps=steps) == pytest.approx(0.1)


def test_all_problems_come_at_once():
    """Two wrong fields, one message."""
    with pytest.raises(ValueError, match=r"dim=0 .*; vocab_size=-3 "):
        ModelConfig(dim=0, vocab_size=-3)
    with pytest.raises(ValueError, match=r"steps=0 .*max_lr=-1.0 .*beta1=2"):
        TrainConfig.from_preset("toy", steps=0, max_lr=-1.0, beta1=2.0)


@settings(max_examples=50, deadline=None)
@given(heads=st.integers(1, 8), half=st.integers(1, 8),
       layers=st.integers(1, 9), tied=st.booleans(),
       scaling=st.sampled_from([None, "linear", "llama3"]),
       factor=st.floats(1, 100), eps=st.floats(1e-9, 1e-1))
def test_json_brings_back_the_same_shape(heads, half, layers, tied, scaling,
                                         factor, eps):
    """to_dict, through JSON text, from_dict."""
    config = ModelConfig(
        dim=2 * heads * half, n_heads=heads, n_layers=layers,
        tie_embeddings=tied, norm_eps=eps,
        rope_scaling=scaling and RopeScaling(kind=scaling, factor=factor))
    text = json.dumps(config.to_dict())
    assert ModelConfig.from_dict(json.loads(text)) == config


def test_a_foreign_dictionary_is_refused_with_the_odd_names():
    """One name too many, one missing."""
    good = ModelConfig().to_dict()
    with pytest.raises(ValueError, match=r"fields \['n_experts'\] are"):
        ModelConfig.from_dict({**good, "n_experts": 8})
    del good["rope_theta"]
    with pytest.raises(ValueError, match=r"fields \['rope_theta'\] are"):
        ModelConfig.from_dict(good)


def test_a_run_fits_into_json():
    """Paths become text with forward slashes, the model a dictionary."""
    c = TrainConfig.from_preset("toy", data=Path("a") / "b")
    values = json.loads(json.dumps(c.to_dict()))
    assert values["data"] == "a/b" and values["out"] == "runs/toy"
    assert ModelConfig.from_dict(values["model"]) == c.model


@pytest.mark.parametrize("owner", [
    ModelConfig, TrainConfig, GenerateConfig, RopeScaling])
def test_settings_are_frozen_and_each_has_its_sentence(owner):
    """A string stands under every field, and nothing can be assigned."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(owner)).body[0].body
    for node, after in zip(body, body[1:]):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(after, ast.Expr), node.target.id
            assert isinstance(after.value, ast.Constant), node.target.id
            assert after.value.value.rstrip().endswith("."), node.target.id
    assert owner.__dataclass_params__.frozen


def test_settings_do_not_wait_for_torch():
    """`minillama --help` would take seconds otherwise."""
    code = ("import sys, minillama.config as c; c.ModelConfig.preset('7B'); "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
