"""Training, read aloud from top to bottom (paper, section 2.3).

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from minillama.batches import Batch
from minillama.config import TrainConfig
from minillama.devices import precision
from minillama.generate import generate
from minillama.metrics import (
    Meter, MetricsFile, open_tracker, plain, read_metrics)
from minillama.model import Transformer
from minillama.optim import cosine_lr
from minillama.runs import (
    NonFiniteLoss, Result, State, begin, lenient, log_speed, not_finite,
    open_folder, open_tokenizer, progress_line, resume_state, save_state,
    stop_signal, write_result)
from minillama.shards import validation_ids
from minillama.tokenizer import Tokenizer

IGNORE = -100
"""A target that is not scored."""


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
    accumulation equals the big batch. Of many processes each does its share,
    and losses, counts and gradients are averaged.

    Returns:
        The record of metrics.jsonl: step, loss (nats per token), lr and
        grad_norm (before clipping); `skipped` and `scale` where fp16
        overflowed and the update was left out.

    Raises:
        NonFiniteLoss: if loss or gradient norm is not finite in bf16 or
            fp32, or in fp16 at a scale below 1; the weights are as before
            the step.

    Chapter: notebooks/10_training.ipynb
    """
    # 1) learning rate
    lr = cosine_lr(state.step, max_lr=config.max_lr,
                   warmup_steps=config.warmup_steps, total_steps=config.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    # 2) forward and backward, one micro-batch at a time
    micro = config.micro_batch_size or len(batch.inputs)
    count = state.mean((batch.targets != IGNORE).sum())
    loss = torch.zeros((), device=state.device)
    for inputs, targets in zip(
            batch.inputs.split(micro), batch.targets.split(micro)):
        inputs, targets = inputs.to(state.device), targets.to(state.device)
        with precision(state.device, state.dtype):
            part = state.loss_fn(state.model, inputs, targets) / count
        state.scaler.scale(part).backward()
        loss = loss + part.detach()
    # 3) clip the gradient
    state.scaler.unscale_(state.optimizer)
    norm = state.clip(state.model.parameters(), config.grad_clip)
    record = {"step": state.step, "loss": state.mean(loss), "lr": lr,
              "grad_norm": norm.item()}
    # 4) check that all is finite; only fp16 may skip a step, and only as
    #    long as a smaller scale can help
    if not math.isfinite(record["loss"] + record["grad_norm"]):
        if not state.scaler.is_enabled() or state.scaler.get_scale() < 1:
            raise not_finite(record, batch)
        record |= {"skipped": True, "scale": state.scaler.get_scale(),
                   "loss": plain(record["loss"]), "grad_norm": None}
    # 5) update; 6) forget the gradient
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    return record


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
    # The first token is given, not predicted.
    n_bytes = tokenizer.count_bytes(ids) - tokenizer.count_bytes(ids[:1])
    if not n_bytes:
        raise ValueError("the validation tokens hold no text; give more")
    return nats / (len(ids) - 1), nats / math.log(2) / n_bytes


def fit(
    config: TrainConfig,
    *,
    evaluate: Callable[[Transformer, Tokenizer], dict[str, Any]] | None = None,
    model: Transformer | None = None,
    state: State | None = None,
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
        state: a run at step 0 that the caller made, with batches or a loss of
            its own; None: `new_state`.
        log: receives lines of progress; None keeps silent.

    Raises:
        ValueError: if data, model and earlier run do not fit together.
        NonFiniteLoss: see `train_step`.

    Chapter: notebooks/10_training.ipynb
    """
    # 1) where things are
    tokenizer = open_tokenizer(config)
    out = open_folder(config)
    tokenizer.save(out / "tokenizer.model")
    held_out = validation_ids(config.data)
    # 2) model, optimiser and data, new or as the last checkpoint left them
    state = state or new_state(config, model)
    say = log if log and state.lead else (lambda line: None)
    if config.resume:
        resume_state(state, out)
        say(f"resumed after step {state.step}")
    track = open_tracker(config.tracker if state.lead else "none", out)
    metrics = MetricsFile(out / "metrics.jsonl" if state.lead else None,
                          done=state.step)
    meter = Meter(config.model, config.model.max_seq_len, state.peak())
    say(state.describe(config))
    # 3) the steps
    quiet = not (log and state.lead and sys.stderr.isatty())
    bar = tqdm(total=config.steps, initial=state.step, disable=quiet)
    with bar, contextlib.closing(metrics), stop_signal() as asked_to_stop:
        while state.step < config.steps:
            batch = next(state.batches)
            state.step += 1
            record = train_step(state, batch, config)
            meter.add(batch.inputs.numel() * state.shares)
            if _due(state, config.eval_every, config):
                with meter.paused():
                    record |= _look(state, tokenizer, held_out, config, say)
                    if evaluate:
                        record |= evaluate(state.model, tokenizer)
            metrics.write(record)
            track(record)
            bar.update()
            if state.lead and _due(state, config.log_every, config):
                say(progress_line(record, log_speed(out, state.step, meter)))
            # Asked once, of all: the signal may come at any moment.
            stop = state.mean(asked_to_stop.is_set()) > 0
            if stop or _due(state, config.checkpoint_every, config):
                with meter.paused():
                    metrics.sync()
                    save_state(state, out, config.keep_last)
            if stop:
                break
    # 4) what it came to
    return _finish(state, tokenizer, held_out, config, say)


def _due(state: State, every: int, config: TrainConfig) -> bool:
    return state.step == config.steps or (
        every > 0 and state.step % every == 0)


def new_state(config: TrainConfig, model: Transformer | None = None) -> State:
    """A run at step 0: model, optimiser, scaler and batches.

    Args:
        config: `data` must be a folder that `data.corpus.prepare` made.
        model: another model of this interface, as in `fit`.

    Chapter: notebooks/10_training.ipynb
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from minillama import parallel
        return parallel.begin(config, next_token_loss, model)
    loss_fn = torch.compile(next_token_loss) if config.compile else (
        next_token_loss)
    return begin(config, loss_fn, model)


def _look(
    state: State,
    tokenizer: Tokenizer,
    held_out: Int[np.ndarray, "N"],
    config: TrainConfig,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Validation loss on part of the held-out text, and a sample."""
    sample = _sample(state, tokenizer, config)
    if state.lead:
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
    # Shards arrive in the precision of training; the cache is in fp32.
    with precision(state.device, state.dtype), lenient():
        text = generate(state.model, tokenizer, [config.sample_prompt],
                        max_new_tokens=100, generator=generator)[0]
    state.model.train()
    return text


def _finish(
    state: State,
    tokenizer: Tokenizer,
    held_out: Int[np.ndarray, "N"],
    config: TrainConfig,
    say: Callable[[str], None],
) -> Result:
    """After the last step, score all held-out text and draw the loss curve.
    """
    out = Path(config.out)
    records = read_metrics(out / "metrics.jsonl")
    if state.step < config.steps:
        say(f"stopped after step {state.step}; --resume goes on")
        return Result(out, state.step, False, metrics=records)
    loss = bits = None
    if len(held_out) > 1:
        loss, bits = evaluate_loss(
            state.model, tokenizer, held_out, dtype=state.dtype)
        say(f"validation: {loss:.3f} nats per token, {bits:.3f} bits per "
            "byte on all held-out text")
    if state.lead:
        write_result(out, state.step, loss, bits, records, say)
    state.model.eval()
    return Result(out, state.step, True, loss, bits, records)
