"""minillama/train.py, runs.py and devices.py: one step, and a whole run.

Oracles: a training loop written out here (PyTorch's mean cross-entropy, its
AdamW, its clipping) in float64; Hugging Face's Llama over 200 steps; a loop
over single tokens for the evaluation; a golden curve of fifty losses. The
rest are promises: what a run leaves behind, what stops it, what it refuses.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minillama import checkpoint, devices, runs, train
from minillama.batches import Batch
from minillama.checkpoint import checkpoints, load_model, read
from minillama.config import ModelConfig
from minillama.data.corpus import prepare
from minillama.devices import choose_device, choose_dtype
from minillama.metrics import MetricsFile, read_metrics
from minillama.model import Transformer
from minillama.optim import cosine_lr
from minillama.shards import validation_ids
from minillama.tokenizer import Tokenizer
from minillama.train import (
    IGNORE, NonFiniteLoss, evaluate_loss, fit, new_state, next_token_loss,
    train_step)
from tests.small import (
    MODEL, VOCAB, corpus, needs_compiler, run_config, sentences, tokenizer_of,
    write_shards)

GOLDEN = Path(__file__).parent / "golden" / "loss_curve.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus."""
    return corpus(tmp_path_factory.mktemp("data"))


def _copy_of_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


# -- one step --------------------------------------------------------------


def _masked_batch() -> Batch:
    """Six rows of which 32, 20, 1, 0, 3 and 32 targets are scored."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (6, 33), generator=draw)
    targets = tokens[:, 1:].clone()
    for row, scored in enumerate((32, 20, 1, 0, 3, 32)):
        targets[row, scored:] = IGNORE
    return Batch(tokens[:, :-1], targets, 0)


def _written_out(model: Transformer, batch: Batch, lr: float) -> list[float]:
    """Two steps on the whole batch at once, with PyTorch's own parts."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1},
         {"params": vectors, "weight_decay": 0.0}],
        lr=lr, betas=(0.9, 0.95), fused=False)
    numbers = []
    for _ in range(2):
        logits = model(batch.inputs)
        loss = F.cross_entropy(logits.transpose(1, 2), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        numbers += [loss.item(), norm.item()]
    return numbers


@pytest.mark.oracle
@pytest.mark.parametrize("micro", [None, 1, 2, 3, 6])
def test_accumulation_equals_the_big_batch(
    tmp_path: Path, data: Path, micro: int | None
) -> None:
    """Each token counts once, however few of its micro-batch are scored.

    The mean of the micro-batches' means would be off by a factor here. In
    float64, to 1e-12, two steps long so that the optimiser's state counts.
    """
    config = run_config(data, tmp_path, batch_size=6, micro_batch_size=micro,
                        max_lr=1e-2, warmup_steps=0, steps=10 ** 9)
    state = new_state(config, Transformer(MODEL).double())
    expected = Transformer(MODEL).double()
    expected.load_state_dict(state.model.state_dict())
    numbers = _written_out(expected, _masked_batch(), lr=1e-2)
    records = []
    for step in (1, 2):
        state.step = step
        records.append(train_step(state, _masked_batch(), config))
    ours = [r[name] for r in records for name in ("loss", "grad_norm")]
    assert ours == pytest.approx(numbers, rel=1e-12)
    for p, q in zip(state.model.parameters(), expected.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_each_record_says_what_the_step_did(
    tmp_path: Path, data: Path
) -> None:
    """Learning rate of the schedule, norm before clipping, mean loss."""
    config = run_config(data, tmp_path, grad_clip=1e-3)
    state = new_state(config)
    for step in range(1, 13):
        state.step = step
        batch = next(state.batches)
        with torch.no_grad():
            logits = state.model(batch.inputs)
        mean = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        record = train_step(state, batch, config)
        assert record["step"] == step
        assert record["loss"] == pytest.approx(float(mean), rel=1e-5)
        assert record["lr"] == cosine_lr(
            step, max_lr=1e-2, warmup_steps=3, total_steps=12)
        assert record["grad_norm"] > 0.05  # far above where it is clipped
        for group in state.optimizer.param_groups:
            assert group["lr"] == record["lr"]
        assert all(p.grad is None for p in state.model.parameters())
        assert json.loads(json.dumps(record)) == record


def test_first_loss_and_overfitting_one_batch(
    tmp_path: Path, data: Path
) -> None:
    """ln V before any step, near 0 after 120 on the same four sequences."""
    config = run_config(data, tmp_path, steps=120, warmup_steps=10)
    state = new_state(config)
    batch = next(state.batches)
    losses = []
    for state.step in range(1, 121):
        losses.append(train_step(state, batch, config)["loss"])
    # Logits of a fresh model are close to 0, so all pieces are as likely.
    assert losses[0] == pytest.approx(math.log(VOCAB), abs=0.1)
    assert losses[-1] < 0.05


@pytest.fixture
def fp16(tmp_path: Path, data: Path) -> Any:
    """A run in fp16 on the CPU, and one batch."""
    config = run_config(data, tmp_path / "run", dtype="fp16")
    state = new_state(config)
    assert state.dtype == torch.float16 and state.scaler.is_enabled()
    state.step = 1
    return state, config, next(state.batches)


def test_fp16_skips_a_step_that_overflows(fp16: Any) -> None:
    """Weights and moments stay, the scale is halved, the record says so."""
    state, config, batch = fp16
    train_step(state, batch, config)
    state.scaler.update(2.0 ** 40)
    before = _copy_of_weights(state.model)
    moments = [{k: v.clone() for k, v in s.items()}
               for s in state.optimizer.state.values()]
    state.step = 2
    record = train_step(state, batch, config)
    assert record["skipped"] and record["scale"] == 2.0 ** 40
    assert record["grad_norm"] is None and math.isfinite(record["loss"])
    assert "Infinity" not in json.dumps(record)
    assert state.scaler.get_scale() == 2.0 ** 39
    for name, weight in state.model.named_parameters():
        assert torch.equal(weight, before[name])
    for old, new in zip(moments, state.optimizer.state.values()):
        torch.testing.assert_close(old, new, rtol=0, atol=0)
    line = runs.progress_line(record, {"tokens_per_s": 10.0, "mfu": 0.5})
    assert "skipped: fp16 overflow at scale 1.09951e+12" in line
    assert "MFU 50.0%" in line
    state.scaler.update(2.0 ** 10)
    state.step = 3
    record = train_step(state, batch, config)
    assert "skipped" not in record and record["grad_norm"] > 0
    assert not torch.equal(state.model.output.weight, before["output.weight"])


def test_fp16_gradients_are_those_of_fp32(fp16: Any, data: Path) -> None:
    """Unscaled before they are clipped: norms agree to fp16's precision."""
    state, config, batch = fp16
    exact = new_state(replace(config, dtype="fp32"))
    exact.step = 1
    norms = [train_step(s, batch, config)["grad_norm"]
             for s in (state, exact)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)


def test_fp16_gives_up_when_no_scale_helps(fp16: Any) -> None:
    """A model that has diverged does not skip steps for ever."""
    state, config, batch = fp16
    with torch.no_grad():
        state.model.norm.weight.fill_(math.nan)
    with pytest.raises(NonFiniteLoss, match="step"):
        for state.step in range(1, 12):
            assert train_step(state, batch, config)["loss"] is None
            if state.step == 1:
                state.scaler.update(16.0)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(
    tmp_path: Path, data: Path, dtype: str, value: float
) -> None:
    """Step and samples are named; weights and moments are as before."""
    config = run_config(data, tmp_path, dtype=dtype)
    state = new_state(config)
    state.step = 1
    train_step(state, next(state.batches), config)
    with torch.no_grad():
        state.model.output.weight[7] = value
    before = _copy_of_weights(state.model)
    state.step = 2
    with pytest.raises(NonFiniteLoss, match=(
            "step 2: loss (nan|inf), .* on samples 4 to 7; the weights are "
            "as before.*Lower --max-lr")):
        train_step(state, next(state.batches), config)
    for name, weight in state.model.named_parameters():
        assert torch.equal(weight.nan_to_num(5), before[name].nan_to_num(5))
    assert {float(s["step"]) for s in state.optimizer.state.values()} == {1.0}


# -- precision and device ---------------------------------------------------


@pytest.mark.parametrize("capability, expected", [
    ((7, 0), torch.float16), ((7, 5), torch.float16),
    ((8, 0), torch.bfloat16), ((8, 9), torch.bfloat16),
    ((9, 0), torch.bfloat16), ((12, 0), torch.bfloat16)])
def test_cuda_is_asked_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int],
    expected: torch.dtype,
) -> None:
    """A T4 (7.5) says yes to bf16 and emulates it: it gets fp16."""
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a: True)
    assert choose_dtype("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize("has, expected", [
    (True, torch.bfloat16), (False, torch.float32)])
def test_other_devices_have_their_type(
    monkeypatch: pytest.MonkeyPatch, has: bool, expected: torch.dtype
) -> None:
    """CPUs by their instructions, MPS fp32, and what is asked for."""
    monkeypatch.setattr(
        torch.cpu, "_is_avx512_bf16_supported", lambda: has, raising=False)
    assert choose_dtype("auto", torch.device("cpu")) == expected
    assert choose_dtype("auto", torch.device("mps")) == torch.float32
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16),
                        ("fp16", torch.float16)):
        assert choose_dtype(name, torch.device("cpu")) == dtype


def test_devices_are_chosen_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA, then MPS, then the CPU; nonsense is refused in one line."""
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"),
                                (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda c=cuda: c)
        monkeypatch.setattr(
            torch.backends.mps, "is_available", lambda m=mps: m)
        assert choose_device("auto").type == expected
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device='gpu' .*try 'cpu'"):
        choose_device("gpu")


def test_only_16_bits_are_autocast() -> None:
    """And only the matrix products."""
    x = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with devices.precision(torch.device("cpu"), dtype):
            assert (x @ x).dtype == dtype and (x + x).dtype == torch.float32


# -- evaluation ------------------------------------------------------------

TEXTS = [
    "The fox sells every song.", " two  spaces\n\nand lines\t",
    "雨が降る 🌧️🦊👩‍👩‍👧 Grüße", "▁ marks a space ▁", "é" * 40, "x",
]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_evaluation_against_single_tokens(
    data: Path, batch_size: int
) -> None:
    """Each token predicted once; bytes are those of the text itself.

    The text is mostly spelt in byte pieces, begins with spaces and holds the
    marker itself, where a count of piece names would go wrong.
    """
    tokenizer = tokenizer_of(data)
    ids = np.array([i for text in TEXTS
                    for i in tokenizer.encode(text, bos=True, eos=True)])
    model = Transformer(MODEL).double()
    assert len(ids) > 3 * MODEL.max_seq_len
    nats = 0.0
    for place in range(1, len(ids)):
        start = (place - 1) // MODEL.max_seq_len * MODEL.max_seq_len
        context = torch.tensor(ids[start:place])[None]
        with torch.no_grad():
            logits = model(context)[0, -1]
        nats -= float(logits.log_softmax(-1)[ids[place]])
    loss, bits = evaluate_loss(model, tokenizer, ids, batch_size=batch_size)
    assert loss == pytest.approx(nats / (len(ids) - 1), rel=1e-12)
    size = sum(len(text.encode("utf-8")) for text in TEXTS)
    assert bits == pytest.approx(nats / math.log(2) / size, rel=1e-12)


def test_evaluation_of_a_piece_of_text(data: Path) -> None:
    """The first token is given: its bytes are not counted either."""
    tokenizer = tokenizer_of(data)
    ids = np.array(tokenizer.encode("the old map by the river"))
    loss, bits = evaluate_loss(Transformer(MODEL), tokenizer, ids)
    size = tokenizer.count_bytes(ids[1:])
    assert bits == pytest.approx(loss * (len(ids) - 1) / math.log(2) / size)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_model_as_it_was(
    data: Path, training: bool
) -> None:
    """Mode and gradients; nothing is drawn either."""
    model, tokenizer = Transformer(MODEL).train(training), tokenizer_of(data)
    before = torch.get_rng_state()
    evaluate_loss(model, tokenizer, validation_ids(data)[:100])
    assert model.training == training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_of_nothing_is_refused(data: Path) -> None:
    """No token to predict, or tokens without text."""
    tokenizer, model = tokenizer_of(data), Transformer(MODEL)
    for ids in ([], [1]):
        with pytest.raises(ValueError, match="empty"):
            evaluate_loss(model, tokenizer, np.array(ids, dtype=np.int64))
    with pytest.raises(ValueError, match="no text"):
        evaluate_loss(model, tokenizer, np.array([1, 2, 1, 2]))


# -- curves ----------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.slow
def test_200_steps_overlay_hugging_faces(tmp_path: Path, data: Path) -> None:
    """Same weights, batches and schedule: losses within 1e-4 all along.

    Their side is LlamaForCausalLM, torch.optim.AdamW and PyTorch's clipping;
    the schedule is written out. In float32, with one thread.
    """
    from minillama.weights.hf import hf_name, to_halves
    from tests.test_model import hf_model

    model = ModelConfig.preset("mini", vocab_size=VOCAB, max_seq_len=32)
    config = run_config(data, tmp_path, model=model, steps=200, max_lr=1e-3,
                        warmup_steps=20)
    state = new_state(config)
    theirs = hf_model(model, torch.float32).train()
    theirs.load_state_dict({
        hf_name(name): to_halves(name, weight, model.head_dim)
        for name, weight in state.model.state_dict().items()})
    weights = list(theirs.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.1},
         {"params": [p for p in weights if p.ndim == 1], "weight_decay": 0}],
        lr=1.0, betas=(0.9, 0.95))
    furthest, losses = 0.0, []
    for step in range(1, 201):
        state.step, batch = step, next(state.batches)
        record = train_step(state, batch, config)
        angle = math.pi * (step - 20) / 180
        lr = 1e-3 * (step / 20 if step < 20 else
                     0.1 + 0.9 * (1 + math.cos(angle)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = lr
        logits = theirs(input_ids=batch.inputs, use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        furthest = max(furthest, abs(losses[-1] - record["loss"]))
    assert furthest < 1e-4
    assert losses[-1] < losses[0] / 2, "the curve has to go somewhere"


def golden_losses(folder: Path) -> list[float]:
    """Fifty steps on bytes, so that no tokenizer has a say.

    `python -m tests.test_train` writes them anew.
    """
    text = sentences(300).encode("utf-8")
    data = write_shards(folder / "data", {
        "bytes": [[1, *(byte + 3 for byte in text[:9000]), 2],
                  [1, *(byte + 3 for byte in text[9000:]), 2]]},
        vocab_size=259)
    config = run_config(
        data, folder / "run", steps=50, warmup_steps=5, max_lr=1e-2,
        micro_batch_size=2, model=replace(MODEL, vocab_size=259))
    state = new_state(config)
    losses = []
    for state.step in range(1, 51):
        losses.append(train_step(state, next(state.batches), config)["loss"])
    return losses


def test_golden_loss_curve(tmp_path: Path) -> None:
    """Fifty losses, committed, to 2e-4.

    Processors differ by about 1e-5 after so many steps; a change of seed,
    order, initialisation, schedule or arithmetic by far more. Whoever
    changes one of them on purpose writes the file anew, and says so.
    """
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["losses"]
    losses = golden_losses(tmp_path)
    assert len(golden) == 50 and golden[-1] < 0.75 * golden[0]
    assert losses == pytest.approx(golden, abs=2e-4)


# -- whole runs ------------------------------------------------------------


def test_a_run_leaves_what_it_promises(tmp_path: Path, data: Path) -> None:
    """Files, records, lines of progress, and the result."""
    lines: list[str] = []
    seen: list[int] = []

    def evaluate(model: Transformer, tokenizer: Tokenizer) -> dict[str, Any]:
        assert model.training, "sampling and scoring must not change that"
        seen.append(tokenizer.vocab_size)
        return {"extra": 0.5}

    config = run_config(data, tmp_path / "deep" / "run")
    result = fit(config, evaluate=evaluate, log=lines.append)
    out = config.out
    assert (result.out, result.step, result.finished) == (out, 12, True)
    records = read_metrics(out / "metrics.jsonl")
    assert result.metrics == records
    assert [r["step"] for r in records] == list(range(1, 13))
    assert seen == [VOCAB, VOCAB]
    for record in records:
        looked = record["step"] in (6, 12)
        assert set(record) == {"step", "loss", "lr", "grad_norm"} | (
            {"val_loss", "bits_per_byte", "extra"} if looked else set())
    model, tokenizer = load_model(out)
    assert tokenizer.to_bytes() == tokenizer_of(data).to_bytes()
    held_out = validation_ids(data)
    loss, bits = evaluate_loss(model, tokenizer, held_out)
    assert (result.val_loss, result.bits_per_byte) == (loss, bits)
    assert evaluate_loss(model, tokenizer, held_out[:256])[0] == (
        records[-1]["val_loss"])
    assert json.loads((out / "result.json").read_text("utf-8")) == {
        "step": 12, "val_loss": loss, "bits_per_byte": bits}
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    samples = sorted(p.name for p in (out / "samples").iterdir())
    assert samples == ["step-00000006.txt", "step-00000012.txt"]
    sample = (out / "samples" / samples[0]).read_text("utf-8")
    assert sample.startswith("A fox") and any("A fox" in x for x in lines)
    speed = read_metrics(out / "speed.jsonl")
    assert [s["step"] for s in speed] == [4, 8, 12]
    assert all(s["tokens_per_s"] > 0 and s["mfu"] is None for s in speed)
    assert any(line.startswith("step      4  loss ") for line in lines)
    assert any("bits per byte on all held-out text" in x for x in lines)
    stored = json.loads((out / "run.json").read_text("utf-8"))
    assert stored["versions"]["torch"] == torch.__version__
    assert stored["config"]["steps"] == 12


def test_losses_are_on_the_disk_before_a_checkpoint_is(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or after a power cut the checkpoint would miss lines it needs."""
    calls: list[str] = []
    for owner, name in ((MetricsFile, "sync"), (checkpoint, "save")):
        def noted(*args: Any, _real: Any = getattr(owner, name),
                  _name: str = name, **kwargs: Any) -> Any:
            calls.append(_name)
            return _real(*args, **kwargs)
        monkeypatch.setattr(owner, name, noted)
    fit(run_config(data, tmp_path / "run"), log=None)
    assert calls == ["sync", "save"] * 3


def test_samples_differ_from_look_to_look(
    tmp_path: Path, data: Path
) -> None:
    """Even of a model that hardly moves: their seed hangs on the step."""
    config = run_config(data, tmp_path / "run", max_lr=1e-12)
    fit(config, log=None)
    texts = [p.read_text("utf-8")
             for p in (config.out / "samples").iterdir()]
    assert len(texts) == 2 and texts[0] != texts[1]


def test_the_same_seed_is_the_same_run(tmp_path: Path, data: Path) -> None:
    """Whatever was drawn before it; another seed is another run."""
    losses, states = [], []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        config = run_config(data, tmp_path / str(number), seed=seed)
        losses.append([r["loss"] for r in fit(config, log=None).metrics])
        stored = read(checkpoints(config.out)[-1])["training"]
        states.append(stored["rng"]["cpu"].tolist())
    assert losses[0] == losses[1] != losses[2]
    # Another model might drop out: the global generator is the run's too.
    assert states[0] == states[1] != states[2]


def test_a_run_in_silence(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """log=None prints nothing, and works outside the main thread."""
    results: list[Any] = []
    config = run_config(data, tmp_path / "run", eval_every=0, steps=5)
    thread = threading.Thread(
        target=lambda: results.append(fit(config, log=None)))
    thread.start()
    thread.join()
    assert results[0].finished and capfd.readouterr() == ("", "")


def test_another_model_of_the_same_interface(
    tmp_path: Path, data: Path
) -> None:
    """What `fit` is given is what it trains."""
    model = Transformer(MODEL)
    before = _copy_of_weights(model)
    with torch.no_grad():
        logits = model(next(new_state(run_config(
            data, tmp_path)).batches).inputs)
    result = fit(run_config(data, tmp_path / "run"), model=model, log=None)
    assert result.metrics[0]["loss"] == pytest.approx(
        float(F.cross_entropy(logits.flatten(0, 1), next(new_state(run_config(
            data, tmp_path)).batches).targets.flatten())), rel=1e-5)
    assert all(not torch.equal(p, before[n])
               for n, p in model.named_parameters())
    assert not model.training


def test_a_run_stops_on_a_loss_that_is_not_finite(
    tmp_path: Path, data: Path
) -> None:
    """The step is not logged and the last good checkpoint stays."""

    class Poisoned(Transformer):
        def forward(self, tokens, start_pos=0, cache=None):
            logits = super().forward(tokens, start_pos, cache)
            return logits * (math.nan if steps[-1] == 6 else 1.0)

    steps = [0]
    config = run_config(data, tmp_path / "run", eval_every=0)
    batches = runs.Batches.__next__

    def counted(self: Any) -> Batch:
        steps.append(steps[-1] + 1)
        return batches(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Batches, "__next__", counted)
        with pytest.raises(NonFiniteLoss, match="step 6.*samples 20 to 23"):
            fit(config, model=Poisoned(MODEL), log=None)
    assert [r["step"] for r in read_metrics(
        config.out / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert [p.name for p in checkpoints(config.out)] == ["step-00000004"]
    # Without the poison the run goes on from there.
    assert fit(replace(config, resume=True), log=None).finished


def test_starting_from_other_weights(tmp_path: Path, data: Path) -> None:
    """The first loss is that of the loaded model; the old run stays."""
    first = fit(run_config(data, tmp_path / "first"), log=None)
    stored = (checkpoints(first.out)[-1] / "model.safetensors").read_bytes()
    config = run_config(data, tmp_path / "second", init_from=first.out,
                        seed=5, warmup_steps=0)
    second = fit(config, log=None)
    model, _ = load_model(first.out)
    batch = next(new_state(replace(config, init_from=None)).batches)
    with torch.no_grad():
        logits = model(batch.inputs)
    expected = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    assert second.metrics[0]["loss"] == pytest.approx(float(expected))
    assert second.metrics[0]["loss"] < first.metrics[0]["loss"] - 0.5
    assert (checkpoints(first.out)[-1] / "model.safetensors"
            ).read_bytes() == stored


def test_other_weights_must_fit(tmp_path: Path, data: Path) -> None:
    """Shape and tokenizer; a folder without a checkpoint is refused too."""
    first = fit(run_config(data, tmp_path / "first", steps=4), log=None)
    start = run_config(data, tmp_path / "second", init_from=first.out)
    with pytest.raises(ValueError, match="do not fit the model.*norm.weight"):
        new_state(replace(start, model=replace(MODEL, dim=64)))
    with pytest.raises(ValueError, match="is no folder of weights"):
        new_state(replace(start, init_from=tmp_path))
    text = tmp_path / "other.txt"
    text.write_text(sentences(600, seed=9).upper(), encoding="utf-8")
    other = prepare(text, VOCAB, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="another tokenizer"):
        new_state(replace(start, data=other))


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, data: Path
) -> Path:
    """The folder of a run of 12 steps."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return fit(run_config(data, out), log=None).out


CHANGED: dict[str, Any] = {
    "steps": 13, "batch_size": 8, "max_lr": 1e-3, "warmup_steps": 2,
    "weight_decay": 0.2, "beta1": 0.8, "beta2": 0.9, "grad_clip": 2.0,
    "seed": 2, "model": replace(MODEL, norm_eps=1e-5)}


@pytest.mark.parametrize("name", CHANGED)
def test_resume_refuses_other_mathematics(
    finished: Path, data: Path, name: str
) -> None:
    """Both values are named, nothing is touched."""
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    config = run_config(
        data, finished, resume=True, **{name: CHANGED[name]})
    with pytest.raises(ValueError, match=f"other settings.*{name}: .* then"):
        fit(config, log=None)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_resume_takes_other_manners(
    tmp_path: Path, finished: Path, data: Path
) -> None:
    """Where to log and look does not change the mathematics."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(checkpoints(out)[-1])
    result = fit(run_config(data, out, resume=True, log_every=1,
                            checkpoint_every=100, eval_every=0), log=None)
    assert result.finished
    theirs = read_metrics(finished / "metrics.jsonl")
    assert [r["loss"] for r in result.metrics] == [
        r["loss"] for r in theirs]


def test_folders_that_hold_a_run_or_none(
    tmp_path: Path, finished: Path, data: Path
) -> None:
    """Neither is mixed up with the other."""
    with pytest.raises(ValueError, match="already holds a run.*--resume"):
        fit(run_config(data, finished), log=None)
    with pytest.raises(ValueError, match="no checkpoint to resume.*--resume"):
        fit(run_config(data, tmp_path, resume=True), log=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"config": {}}'])
def test_damaged_settings_are_refused(
    tmp_path: Path, finished: Path, data: Path, content: str | None
) -> None:
    """In one line, not with a traceback."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "run.json").unlink()
    if content is not None:
        (out / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="run.json.*cannot be read"):
        fit(run_config(data, out, resume=True), log=None)


def test_damaged_checkpoint_names_the_way_back(
    tmp_path: Path, finished: Path, data: Path
) -> None:
    """Once it is deleted, the one before takes over."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    newest = checkpoints(out)[-1]
    (newest / "training.pt").write_bytes(b"")
    config = run_config(data, out, resume=True)
    with pytest.raises(ValueError, match="delete this checkpoint"):
        fit(config, log=None)
    shutil.rmtree(newest)
    result = fit(config, log=None)
    assert (out / "metrics.jsonl").read_bytes() == (
        finished / "metrics.jsonl").read_bytes() and result.finished


def test_data_must_fit_the_model(tmp_path: Path, data: Path) -> None:
    """No data, another vocabulary, another text on resume, a long prompt."""
    config = run_config(data, tmp_path / "run")
    with pytest.raises(ValueError, match="data=None"):
        fit(replace(config, data=None), log=None)
    with pytest.raises(ValueError, match="has 320 pieces.*vocab_size=300"):
        fit(replace(config, model=replace(MODEL, vocab_size=300)), log=None)
    with pytest.raises(ValueError, match="sample_prompt=.*max_seq_len=32"):
        fit(replace(config, sample_prompt="Zw" * 30), log=None)
    assert not checkpoints(config.out)
    fit(config, log=None)
    longer = corpus(tmp_path / "longer", count=700)
    shutil.rmtree(checkpoints(config.out)[-1])
    with pytest.raises(ValueError, match="tokens=.*same data"):
        fit(replace(config, data=longer, resume=True), log=None)


def _signal(where: str, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Send SIGTERM once, from one place of the loop."""
    sent: list[int] = []

    def send() -> None:
        if not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)

    def after(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            send()
            return value
        return wrapped

    if where == "save":
        patch.setattr(checkpoint, "save", after(checkpoint.save))
    if where == "batch":
        patch.setattr(runs.Batches, "__next__", after(
            runs.Batches.__next__))
    if where == "evaluate":
        return {"evaluate": lambda model, tokenizer: send() or {}}
    return {}


@pytest.mark.parametrize("where, last", [
    ("batch", 1), ("save", 5), ("evaluate", 6)])
def test_sigterm_never_loses_a_step(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, where: str,
    last: int,
) -> None:
    """Wherever it strikes: what is logged is in the checkpoint."""
    handler = signal.getsignal(signal.SIGTERM)
    config = run_config(data, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        result = fit(config, log=None, **_signal(where, patch))
    assert signal.getsignal(signal.SIGTERM) == handler
    assert (result.step, result.finished) == (last, False)
    assert [r["step"] for r in result.metrics] == list(range(1, last + 1))
    assert read(checkpoints(config.out)[-1])["step"] == last
    assert fit(replace(config, resume=True), log=None).finished


def test_a_corpus_without_held_out_text(tmp_path: Path, data: Path) -> None:
    """Training goes on; there is just nothing to validate on."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    index = json.loads((folder / "index.json").read_text("utf-8"))
    for source in index["sources"].values():
        source["validation"] = []
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    result = fit(run_config(folder, tmp_path / "run"), log=None)
    assert result.finished and result.val_loss is None
    assert "val_loss" not in result.metrics[-1]


def test_no_picture_without_matplotlib(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and the run is fine."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(
        __import__("sys").modules, "matplotlib.figure", None)
    monkeypatch.setitem(
        __import__("sys").modules, "matplotlib.backends.backend_agg", None)
    lines: list[str] = []
    result = fit(run_config(data, tmp_path / "run"), log=lines.append)
    assert result.finished and "no loss.png: matplotlib" in " ".join(lines)


def test_deterministic_is_asked_for_and_taken_back(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag of PyTorch follows the setting of the newest run.

    On a GPU cuBLAS refuses without a variable of its own.
    """
    config = run_config(data, tmp_path)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # to be put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        new_state(replace(config, deterministic=True))
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        new_state(config)
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_only_samples_may_differ_from_run_to_run(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU can only warn of, in top-p, must not loosen the steps: the
    backward pass of one of its attentions asks for the strict form."""
    warns = torch.is_deterministic_algorithms_warn_only_enabled
    seen: dict[str, set[bool]] = {"sample": set(), "step": set()}
    for name, where in (("generate", "sample"), ("train_step", "step")):
        def spy(*args: Any, real: Any = getattr(train, name),
                where: str = where, **options: Any) -> Any:
            seen[where].add(warns())
            return real(*args, **options)

        monkeypatch.setattr(train, name, spy)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        fit(replace(run_config(data, tmp_path / "run"), deterministic=True,
                    eval_every=1), log=lambda line: None)
        assert seen == {"sample": {True}, "step": {False}}
        assert torch.are_deterministic_algorithms_enabled() and not warns()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_compiled_is_eager(
    tmp_path: Path, data: Path, no_shape_checks: None
) -> None:
    """Three steps, in two micro-batches, to 1e-5."""
    records = []
    for compiled in (False, True):
        config = run_config(
            data, tmp_path, compile=compiled, micro_batch_size=2,
            model=replace(MODEL, n_layers=1))
        state = new_state(config)
        assert (state.loss_fn is next_token_loss) != compiled
        for state.step in (1, 2, 3):
            records.append(train_step(state, next(state.batches), config))
    for eager, compiled in zip(records[:3], records[3:]):
        assert compiled == pytest.approx(eager, rel=1e-5)


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(
            {"what": "test_golden_loss_curve in tests/test_train.py",
             "losses": golden_losses(Path(temporary))}, indent=1) + "\n",
            encoding="utf-8")
