"""Training, read aloud from top to bottom (paper, section 2.3).

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from minillama import checkpoint
from minillama.batches import Batch, Batches, open_streams
from minillama.config import TrainConfig
from minillama.generate import generate
from minillama.metrics import (
    Meter, MetricsFile, device_peak, open_tracker, read_metrics)
from minillama.model import Transformer
from minillama.optim import clip_grad_norm, cosine_lr, decay_groups
from minillama.tokenizer import Tokenizer

IGNORE = -100
"""A target that is not scored."""

# What a resumed run must have in common with the one it continues.
_BINDING = ("model", "steps", "batch_size", "max_lr", "warmup_steps",
            "weight_decay", "beta1", "beta2", "grad_clip", "seed")


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is NaN or infinite; nothing was updated."""


@dataclass
class State:
    """Everything that changes during a run."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    batches: Batches
    dtype: torch.dtype
    loss_fn: Callable[..., Tensor]
    step: int = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.tok_embeddings.weight.device


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    out: Path
    step: int
    finished: bool
    """False if the run was asked to stop before its last step."""
    val_loss: float | None = None
    """Nats per token on all validation text."""
    bits_per_byte: float | None = None
    """The same in bits per byte of text, comparable across tokenizers."""
    metrics: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """The records of metrics.jsonl."""


def next_token_loss(
    model: nn.Module,
    inputs: Int[Tensor, "B T"],
    targets: Int[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """Cross-entropy summed over the targets that are not IGNORE, in nats."""
    logits = model(inputs)  # (B, T, V)
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(),
        ignore_index=IGNORE, reduction="sum")


def train_step(
    state: State, batch: Batch, config: TrainConfig
) -> dict[str, Any]:
    """One update of the weights, whatever the number of micro-batches.

    The loss is the mean over all targets of the batch: each micro-batch
    contributes its sum, divided by the count of the whole, so that gradient
    accumulation equals the big batch.

    Returns:
        The record of metrics.jsonl: step, loss (nats per token), lr and
        grad_norm (before clipping); `skipped` and `scale` where fp16
        overflowed and the update was left out.

    Raises:
        NonFiniteLoss: if loss or gradient norm is not finite in bf16 or
            fp32; the weights are as before the step.

    Chapter: notebooks/10_training.ipynb
    """
    # 1) learning rate
    lr = cosine_lr(state.step, max_lr=config.max_lr,
                   warmup_steps=config.warmup_steps, total_steps=config.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    # 2) forward and backward, one micro-batch at a time
    micro = config.micro_batch_size or len(batch.inputs)
    count = int((batch.targets != IGNORE).sum())
    loss = torch.zeros((), device=state.device)
    for inputs, targets in zip(
            batch.inputs.split(micro), batch.targets.split(micro)):
        inputs, targets = inputs.to(state.device), targets.to(state.device)
        with precision(state.device, state.dtype):
            part = state.loss_fn(state.model, inputs, targets) / count
        state.scaler.scale(part).backward()
        loss += part.detach()
    # 3) clip the gradient
    state.scaler.unscale_(state.optimizer)
    norm = clip_grad_norm(state.model.parameters(), config.grad_clip)
    record = {"step": state.step, "loss": loss.item(), "lr": lr,
              "grad_norm": norm.item()}
    # 4) check that all is finite; only fp16 may skip a step
    finite = math.isfinite(record["loss"] + record["grad_norm"])
    if not finite:
        if not state.scaler.is_enabled():
            raise _explain(record, batch)
        record |= {"skipped": True, "scale": state.scaler.get_scale(),
                   "loss": _plain(record["loss"]), "grad_norm": None}
    # 5) update; 6) forget the gradient
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    return record


def _plain(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _explain(record: dict[str, Any], batch: Batch) -> NonFiniteLoss:
    last = batch.first_sample + len(batch.inputs) - 1
    return NonFiniteLoss(
        f"step {record['step']}: loss {record['loss']}, gradient norm "
        f"{record['grad_norm']} on samples {batch.first_sample} to {last}; "
        "the weights are as before this step. Lower --max-lr, lengthen "
        "--warmup-steps, or look at these samples")


@torch.no_grad()
def evaluate_loss(
    model: Transformer,
    tokenizer: Tokenizer,
    ids: Int[np.ndarray, "N"],
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 16,
) -> tuple[float, float]:
    """Loss on a text, each token predicted once, in windows of max_seq_len.

    Args:
        model: the model.
        tokenizer: tells how many bytes of text the tokens stand for.
        ids: documents, each with its BOS and EOS.
        dtype: precision of the matrix products.
        batch_size: windows at a time.

    Returns:
        Nats per predicted token, and bits per byte: all nats (those for the
        ends of documents too) over ln 2 and the bytes of the text.

    Raises:
        ValueError: if there is nothing to predict.

    Chapter: notebooks/10_training.ipynb
    """
    if len(ids) < 2:
        raise ValueError("the validation text is empty; give more text")
    length, device = model.config.max_seq_len, model.output.weight.device
    stream = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    windows = -(-(len(ids) - 1) // length)
    padded = F.pad(stream, (0, windows * length + 1 - len(ids)), value=IGNORE)
    inputs = padded[:-1].view(windows, length).clamp(min=0)
    targets = padded[1:].view(windows, length)
    nats, was_training = 0.0, model.training
    model.eval()
    for x, y in zip(inputs.split(batch_size), targets.split(batch_size)):
        with precision(device, dtype):
            nats += next_token_loss(model, x.to(device), y.to(device)).item()
    model.train(was_training)
    n_bytes = tokenizer.count_bytes(ids)
    return nats / (len(ids) - 1), nats / math.log(2) / n_bytes


def fit(
    config: TrainConfig,
    *,
    evaluate: Callable[[Transformer, Tokenizer], dict[str, Any]] | None = None,
    model: Transformer | None = None,
    log: Callable[[str], None] | None = tqdm.write,
) -> Result:
    """Train a model as `config` says.

    Writes into `config.out`: checkpoints, `metrics.jsonl` (each step once),
    `speed.jsonl`, `samples/`, `loss.png` and `result.json`. SIGTERM writes a
    checkpoint and ends; `resume` goes on from the last one, to the same bits
    on the same machine.

    Args:
        config: `data` must be a folder that `data.corpus.prepare` made.
        evaluate: called with model and tokenizer at each evaluation; its
            numbers join the record of that step.
        model: another model of this interface instead of the LLaMA that
            `config.model` describes, for experiments.
        log: receives lines of progress; None keeps silent.

    Raises:
        ValueError: if data, model and earlier run do not fit together.
        NonFiniteLoss: see `train_step`.

    Chapter: notebooks/10_training.ipynb
    """
    say = log or (lambda line: None)
    # 1) where things are
    out = _open_folder(config)
    tokenizer = _tokenizer(config)
    shutil.copyfile(config.data / "tokenizer.model", out / "tokenizer.model")
    held_out = validation_ids(config.data)
    # 2) model, optimiser and data, new or as the last checkpoint left them
    state = new_state(config, model)
    if config.resume:
        _resume(state, out, config)
        say(f"resumed after step {state.step}")
    metrics = MetricsFile(out / "metrics.jsonl", done=state.step)
    track = open_tracker(config.tracker, out)
    meter = Meter(config.model, config.model.max_seq_len,
                  device_peak(state.device))
    say(f"{sum(p.numel() for p in state.model.parameters()):,} parameters, "
        f"{config.steps} steps of {config.batch_size} x "
        f"{config.model.max_seq_len} tokens, {state.dtype} on {state.device}")
    # 3) the steps
    bar = tqdm(total=config.steps, initial=state.step, unit="step",
               disable=log is None or not sys.stderr.isatty())
    with bar, contextlib.closing(metrics), stop_signal() as asked_to_stop:
        while state.step < config.steps and not asked_to_stop.is_set():
            batch = next(state.batches)
            state.step += 1
            record = train_step(state, batch, config)
            meter.add(batch.inputs.numel())
            if _due(state.step, config.eval_every, config.steps):
                record |= _look(state, tokenizer, held_out, config, say)
                if evaluate:
                    record |= evaluate(state.model, tokenizer)
            metrics.write(record)
            track(record)
            bar.update()
            if _due(state.step, config.log_every, config.steps):
                say(_line(record, _log_speed(out, state.step, meter)))
            if _due(state.step, config.checkpoint_every, config.steps) or (
                    asked_to_stop.is_set()):
                _save(state, out, config)
    # 4) what it came to
    if state.step < config.steps:
        say(f"stopped after step {state.step}; --resume goes on")
        return Result(out, state.step, False,
                      metrics=read_metrics(out / "metrics.jsonl"))
    return _finish(state, tokenizer, held_out, out, say)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU."""
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as e:
            raise ValueError(
                f"device={name!r} cannot be used here ({e}); try 'cpu' or "
                "'auto'") from e
    if torch.cuda.is_available():
        return torch.device("cuda")
    mps = torch.backends.mps.is_available()
    return torch.device("mps" if mps else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is the fastest type that the hardware itself computes in.

    bf16 on CUDA from capability 8.0 and on CPUs with bf16 instructions; fp16
    on older CUDA devices (they say yes to bf16, and emulate it); else fp32.
    """
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16,
                "fp16": torch.float16}[name]
    if device.type == "cuda":
        new = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if new else torch.float16
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if device.type == "cpu" and probe is not None and probe():
        return torch.bfloat16
    return torch.float32


def precision(
    device: torch.device, dtype: torch.dtype
) -> contextlib.AbstractContextManager[Any]:
    """Autocast for matrix products in 16 bits; nothing in float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def validation_ids(folder: Path) -> Int[np.ndarray, "N"]:
    """All held-out tokens of a folder of shards, source after source."""
    streams = open_streams(folder, "validation").values()
    parts = [s.read(0, len(s)) for s in streams]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


@contextlib.contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that a step is never cut in two."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


def _open_folder(config: TrainConfig) -> Path:
    """Make the folder of the run; refuse to mix two runs in one."""
    out, run = Path(config.out), Path(config.out) / "run.json"
    mine = config.to_dict()
    if not config.resume and checkpoint.checkpoints(out):
        raise ValueError(
            f"out={out} already holds a run; add --resume to continue it, or "
            "choose another --out")
    if config.resume:
        if not checkpoint.checkpoints(out):
            raise ValueError(
                f"out={out} holds no checkpoint to resume from; leave out "
                "--resume to start")
        theirs = json.loads(run.read_text(encoding="utf-8"))["config"]
        differ = [f"{name}: {theirs[name]} then, {mine[name]} now"
                  for name in _BINDING if theirs[name] != mine[name]]
        if differ:
            raise ValueError(
                f"the run in {out} was started with other settings ("
                + "; ".join(differ) + "); give the same to resume, or "
                "--init-from to start a new run from its weights")
    out.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    run.write_text(json.dumps(
        {"config": mine, "versions": versions}, indent=1), encoding="utf-8")
    return out


def _tokenizer(config: TrainConfig) -> Tokenizer:
    """The tokenizer of the data, which must fit the model."""
    if config.data is None:
        raise ValueError(
            "data=None: fit wants a folder of shards; make one with "
            "minillama.data.corpus.prepare(None, vocab_size)")
    tokenizer = Tokenizer(Path(config.data) / "tokenizer.model")
    if tokenizer.vocab_size != config.model.vocab_size:
        raise ValueError(
            f"the tokenizer in {config.data} has {tokenizer.vocab_size} "
            f"pieces, the model vocab_size={config.model.vocab_size}; make "
            "them equal")
    return tokenizer


def new_state(
    config: TrainConfig, model: Transformer | None = None
) -> State:
    """A run at step 0: model, optimiser, scaler and batches.

    Args:
        config: `data` must be a folder that `data.corpus.prepare` made.
        model: another model of this interface, as in `fit`.

    Chapter: notebooks/10_training.ipynb
    """
    torch.use_deterministic_algorithms(config.deterministic)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    if model is None:
        model = Transformer(config.model)
        model.init_weights(torch.Generator().manual_seed(config.seed))
    if config.init_from is not None:
        source, _ = checkpoint.load_model(config.init_from)
        checkpoint.load_weights(model, checkpoint.weights_of(source))
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(
        decay_groups(model, config.weight_decay), lr=config.max_lr,
        betas=(config.beta1, config.beta2), fused=True)
    scaler = torch.amp.GradScaler(
        device.type, enabled=dtype == torch.float16)
    batches = Batches(
        config.data, seq_len=config.model.max_seq_len,
        batch_size=config.batch_size, seed=config.seed)
    loss_fn = torch.compile(next_token_loss) if config.compile else (
        next_token_loss)
    return State(model, optimizer, scaler, batches, dtype, loss_fn)


def _save(state: State, out: Path, config: TrainConfig) -> None:
    """One checkpoint with all that a bitwise continuation needs."""
    checkpoint.save(out, state.step, state.model, {
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "batches": state.batches.state_dict(),
        "rng": {"cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all()},
    }, keep_last=config.keep_last)


def _resume(state: State, out: Path, config: TrainConfig) -> None:
    """Put the newest checkpoint back in place."""
    stored = checkpoint.read(checkpoint.checkpoints(out)[-1])
    checkpoint.load_weights(state.model, stored["weights"])
    training = stored["training"]
    state.optimizer.load_state_dict(training["optimizer"])
    state.scaler.load_state_dict(training["scaler"])
    state.batches.load_state_dict(training["batches"])
    torch.set_rng_state(training["rng"]["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(training["rng"]["cuda"])
    state.step = stored["step"]


def _look(
    state: State,
    tokenizer: Tokenizer,
    held_out: Int[np.ndarray, "N"],
    config: TrainConfig,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Validation loss on part of the held-out text, and a sample."""
    sample = _sample(state, tokenizer, config)
    folder = Path(config.out) / "samples"
    folder.mkdir(exist_ok=True)
    (folder / f"step-{state.step:08d}.txt").write_text(
        sample, encoding="utf-8")
    say("\n" + sample.strip() + "\n")
    if len(held_out) < 2:
        return {}
    loss, bits = evaluate_loss(
        state.model, tokenizer, held_out[:config.eval_tokens],
        dtype=state.dtype)
    return {"val_loss": loss, "bits_per_byte": bits}


def _sample(state: State, tokenizer: Tokenizer, config: TrainConfig) -> str:
    """A few lines, drawn from a seed that depends on the step alone."""
    generator = torch.Generator(state.device).manual_seed(
        config.seed + state.step)
    state.model.eval()
    text = generate(state.model, tokenizer, [config.sample_prompt],
                    max_new_tokens=100, generator=generator)[0]
    state.model.train()
    return text


def _log_speed(out: Path, step: int, meter: Meter) -> dict[str, Any]:
    """Append this interval's speed to speed.jsonl and begin the next."""
    speed = {"step": step, **meter.read()}
    with open(out / "speed.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(speed) + "\n")
    meter.start()
    return speed


def _line(record: dict[str, Any], speed: dict[str, Any]) -> str:
    """One line of progress."""
    words = [f"step {record['step']:>6}"]
    for name, label in (("loss", "loss"), ("val_loss", "validation"),
                        ("bits_per_byte", "bits/byte")):
        if record.get(name) is not None:
            words.append(f"{label} {record[name]:.3f}")
    words.append(f"{speed['tokens_per_s']:,.0f} tokens/s")
    if speed["mfu"] is not None:
        words.append(f"MFU {speed['mfu']:.1%}")
    if record.get("skipped"):
        words.append(f"skipped: fp16 overflow at scale {record['scale']:g}")
    return "  ".join(words)


def _finish(
    state: State,
    tokenizer: Tokenizer,
    held_out: Int[np.ndarray, "N"],
    out: Path,
    say: Callable[[str], None],
) -> Result:
    """Score all held-out text once and draw the loss curve."""
    loss = bits = None
    if len(held_out) > 1:
        loss, bits = evaluate_loss(
            state.model, tokenizer, held_out, dtype=state.dtype)
        say(f"validation: {loss:.3f} nats per token, {bits:.3f} bits per "
            "byte on all held-out text")
    (out / "result.json").write_text(json.dumps(
        {"step": state.step, "val_loss": loss, "bits_per_byte": bits}),
        encoding="utf-8")
    records = read_metrics(out / "metrics.jsonl")
    try:
        from minillama.plots.training import save_loss_curve
        save_loss_curve(records, out / "loss.png")
    except ImportError:
        say("no loss.png: matplotlib is not installed")
    state.model.eval()
    return Result(out, state.step, True, loss, bits, records)
