"""From a run to the files of others, as the command line does it.

Own text, own model: `train`, then `convert` to each layout, then the readers
of others: `gguf`'s for GGUF, transformers for its folder, and this package
for the way back. The model card is held against the run's own files, its
carbon against the paper's formula worked out here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from minillama import checkpoint, samples, weights
from minillama.cli import main
from minillama.weights.card import card
from tests.small import sentences

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of six steps on a text of its own."""
    folder = tmp_path_factory.mktemp("own")
    text, out = folder / "my.txt", folder / "run"
    text.write_text(sentences(600), encoding="utf-8")
    assert main([
        "train", "--data", str(text), "--out", str(out), "--steps", "6",
        "--dim", "32", "--n-layers", "2", "--n-heads", "2", "--vocab-size",
        "320", "--max-seq-len", "32", "--batch-size", "4", "--device", "cpu",
        "--dtype", "fp32", "--log-every", "2", "--eval-every", "0",
        "--sample-prompt", "A fox"]) == 0
    return out


def convert(run: Path, to: str, out: Path, *more: str) -> int:
    """The command."""
    return main(["convert", "--from", str(run), "--to", to, "--out", str(out),
                 *more])


def test_own_text_own_model_in_gguf(run, tmp_path, capsys):
    """Tensor by tensor what was trained, and the vocabulary with it."""
    gguf = pytest.importorskip("gguf")
    out = tmp_path / "mine.gguf"
    assert convert(run, "gguf", out) == 0
    assert capsys.readouterr().out == f"{out}: torch.float32 as it was\n"
    reader = gguf.GGUFReader(out)
    model, tokenizer = weights.load(run)
    found = {t.name: np.array(t.data).tobytes() for t in reader.tensors}
    trained = checkpoint.weights_of(model)
    assert len(found) == len(trained) == 2 * 9 + 3
    for name, w in trained.items():
        assert found[weights.gguf.gguf_name(name)] == w.numpy().tobytes()
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    assert pieces == [tokenizer.piece(i) for i in range(320)]
    assert "# run" in (tmp_path / "mine.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("to", ["meta", "hf"])
def test_there_and_back(run, tmp_path, to):
    more = ["--shards", "2"] if to == "meta" else []
    assert convert(run, to, tmp_path / "out", *more) == 0
    assert len(list((tmp_path / "out").glob("*.pth"))) == 2 * (to == "meta")
    ours, _ = weights.load(run)
    back, tokenizer = weights.load(tmp_path / "out")
    for name, w in ours.state_dict().items():
        assert back.state_dict()[name].equal(w), name
    assert back.config.max_seq_len == 32
    assert tokenizer.to_bytes() == (run / "tokenizer.model").read_bytes()


def test_a_narrower_type_says_so(run, tmp_path, capsys):
    assert convert(run, "hf", tmp_path / "h", "--dtype", "bf16") == 0
    assert "bfloat16, rounded from torch.float32" in capsys.readouterr().out
    text = (tmp_path / "h" / "README.md").read_text(encoding="utf-8")
    assert "**rounded from torch.float32**" in text
    assert convert(tmp_path / "h", "meta", tmp_path / "m",
                   "--dtype", "fp32") == 0
    assert "float32, widened from torch.bfloat16" in capsys.readouterr().out
    assert convert(tmp_path / "h", "hf", tmp_path / "other",
                   "--dtype", "fp16") == 0
    assert "float16, rounded from torch.bfloat16" in capsys.readouterr().out
    text = (tmp_path / "other" / "README.md").read_text(encoding="utf-8")
    assert "**rounded from torch.bfloat16**" in text
    half, _ = weights.load(run, dtype=torch.bfloat16)
    assert weights.load(tmp_path / "m")[0].output.weight.bfloat16().equal(
        half.output.weight)


def test_what_cannot_be_converted(run, tmp_path, capfd):
    assert convert(tmp_path, "hf", tmp_path / "h") == 2
    assert "is no folder of weights" in capfd.readouterr().err
    assert convert(run, "hf", run) == 2
    assert "is there already" in capfd.readouterr().err
    weights.save_meta(samples.load_mini()[0], tmp_path / "m")
    assert convert(tmp_path / "m", "gguf", tmp_path / "x.gguf") == 2
    assert "has no tokenizer" in capfd.readouterr().err
    assert not (tmp_path / "x.gguf").exists()


def test_the_card_says_what_the_run_says(run, tmp_path):
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    (tmp_path / "result.json").write_bytes((run / "result.json").read_bytes())
    speeds = [(2, 64.0), (4, 128.0), (4, 128.0), (6, 64.0)]
    (tmp_path / "speed.jsonl").write_text("\n".join(
        json.dumps({"step": s, "tokens_per_s": v}) for s, v in speeds),
        encoding="utf-8")
    model, _ = weights.load(run)
    text = card(model, tmp_path, watts=360.0)
    assert f"{result['bits_per_byte']:.3f} bits per byte" in text
    assert "6 steps of 4 x 32 tokens" in text and "my.txt" in text or (
        "prepared" in text)
    # 2 * 128 / 64 + 2 * 128 / 128 + 2 * 128 / 64 s = 10 s at 360 W: 1 Wh.
    assert "0.00278 hours" in text and "= 0.0011 kWh" in text
    assert "kWh; at 0.385 kg a kWh 0.00042" in text
    assert "says nothing about its training" in card(model, samples.MINI
                                                     .parent)
    # Nobody's folders stand in the shipped run, which read the plays.
    shipped = card(model, samples.MINI)
    assert "- text: the plays of Shakespeare" in shipped
    assert "2,000 steps of 32 x 32 tokens" in shipped


def test_training_goes_on_from_any_layout(run, tmp_path):
    """The first loss is the loaded model's, whatever --preset says."""
    out = tmp_path / "h"
    assert convert(run, "hf", out) == 0
    text = run.parent / "my.txt"
    words = ["train", "--data", str(text), "--init-from", str(out), "--steps",
             "2", "--max-seq-len", "32", "--batch-size", "4", "--device",
             "cpu", "--dtype", "fp32", "--eval-every", "0", "--seed", "3",
             "--sample-prompt", "A fox"]
    assert main([*words, "--out", str(tmp_path / "on")]) == 0
    lines = (tmp_path / "on" / "metrics.jsonl").read_text(encoding="utf-8")
    first = json.loads(lines.splitlines()[0])["loss"]
    from dataclasses import replace

    from minillama.config import ModelConfig, TrainConfig
    from minillama.data.corpus import prepare
    from minillama.train import IGNORE, new_state, next_token_loss

    model, tokenizer = weights.load(out)
    data = prepare(text, 320, tokenizer=tokenizer)
    state = new_state(TrainConfig(
        replace(ModelConfig.from_dict(model.config.to_dict()),
                max_seq_len=32), data=data, batch_size=4, seed=3,
        device="cpu", dtype="fp32"))
    batch = next(state.batches)
    with torch.no_grad():
        want = next_token_loss(model, batch.inputs, batch.targets)
    count = (batch.targets != IGNORE).sum()
    assert first == pytest.approx(float(want / count), abs=1e-5)


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_shards_are_for_metas_layout_alone(run, tmp_path, to, capsys):
    assert main(["convert", "--from", str(run), "--to", to, "--out",
                 str(tmp_path / "o"), "--shards", "2"]) == 2
    assert "shards=2 is for --to meta" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
