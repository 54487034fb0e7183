"""The shipped checkpoint: small, loadable, and as good as its record says.

Checked against the record of its own training (result.json), against the
held-out play scored anew, and against the words of the corpus.
"""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.first_run import WORD, share_of_words
from minillama.config import ModelConfig
from minillama.data import corpus
from minillama.generate import generate
from minillama.metrics import read_metrics
from minillama.samples import MINI, load_mini
from minillama.shards import validation_ids
from minillama.train import evaluate_loss


@pytest.fixture(scope="module")
def mini():
    return load_mini()


def test_weights_and_tokenizer_stay_under_two_megabytes():
    files = [MINI / "model.safetensors", MINI / "tokenizer.model"]
    assert sum(f.stat().st_size for f in files) <= 2_000_000


def test_shape_is_the_preset(mini):
    assert mini[0].config == ModelConfig.preset("mini")
    assert sum(p.numel() for p in mini[0].parameters()) <= 950_000


def test_held_out_bits_per_byte_are_those_of_the_record(mini):
    """The recorded score was taken before the weights were cut to bf16."""
    model, tokenizer = mini
    shards = corpus.prepare(None, tokenizer.vocab_size)
    assert (shards / "tokenizer.model").read_bytes() == (
        MINI / "tokenizer.model").read_bytes()
    ids = validation_ids(shards)
    _, bits = evaluate_loss(model, tokenizer, ids)
    record = json.loads((MINI / "result.json").read_text(encoding="utf-8"))
    assert bits == pytest.approx(record["bits_per_byte"], abs=0.01)
    assert bits < 2.12


def test_loss_curve_is_whole():
    records = read_metrics(MINI / "metrics.jsonl")
    settings = json.loads((MINI / "run.json").read_text(encoding="utf-8"))
    steps = [r["step"] for r in records]
    assert steps == list(range(1, settings["config"]["steps"] + 1))
    assert records[0]["loss"] > 6 > 3.5 > records[-1]["loss"]


def test_most_words_it_writes_are_words(mini):
    """At least four in five of 500 words stand in the plays."""
    model, tokenizer = mini
    prompts = ["KING HENRY", "HAMLET:\n", "PORTIA:\n", "IAGO:\n",
               "FALSTAFF:\n", "VIOLA:\n", "BRUTUS:\n", "ROSALIND:\n"]
    texts = generate(model, tokenizer, prompts, max_new_tokens=240,
                     generator=torch.Generator().manual_seed(1))
    words = WORD.findall(" ".join(texts).lower())[:500]
    assert len(words) == 500
    assert share_of_words(" ".join(words)) >= 0.8
