"""A run: what changes in it, its folder, and what is left there.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from minillama import checkpoint, recompute, sharded, weights
from minillama.batches import Batch, Batches
from minillama.config import TrainConfig
from minillama.devices import choose_device, choose_dtype
from minillama.files import replace_bytes
from minillama.metrics import Meter, device_peak
from minillama.model import Transformer
from minillama.optim import clip_grad_norm, decay_groups
from minillama.tokenizer import Tokenizer

# What a resumed run must have in common with the one it continues.
_BINDING = ("model", "steps", "batch_size", "max_lr", "warmup_steps",
            "weight_decay", "beta1", "beta2", "grad_clip", "seed")


def open_folder(config: TrainConfig) -> Path:
    """Make the folder of a run; refuse to mix two runs in one.

    Raises:
        ValueError: if there is a run in it already and `resume` is not set,
            if there is none and it is, or if the settings differ.
    """
    out = Path(config.out)
    done = checkpoint.checkpoints(out)
    if config.resume and not done:
        raise ValueError(
            f"out={out} holds no checkpoint to resume from; leave out "
            "--resume to start")
    if done and not config.resume:
        raise ValueError(
            f"out={out} already holds a run; add --resume to continue it, or "
            "choose another --out")
    if config.resume:
        _check_settings(config, out / "run.json")
        return out
    out.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    replace_bytes(out / "run.json", json.dumps(
        {"config": config.to_dict(), "versions": versions}, indent=1).encode())
    return out


def _check_settings(config: TrainConfig, run: Path) -> None:
    """Refuse to go on with settings that would change the mathematics."""
    mine = config.to_dict()
    try:
        theirs = json.loads(run.read_bytes())["config"]
        differ = [f"{name}: {theirs[name]} then, {mine[name]} now"
                  for name in _BINDING if theirs[name] != mine[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{run}, the settings of the run, cannot be read ({error!r}); "
            "use --init-from to start a new run from its weights"
        ) from error
    if differ:
        raise ValueError(
            f"the run in {run.parent} was started with other settings ("
            + "; ".join(differ) + "); give the same to resume, or "
            "--init-from to start a new run from its weights")


def open_tokenizer(config: TrainConfig) -> Tokenizer:
    """The tokenizer of the data, which must fit model and sample.

    Raises:
        ValueError: if it does not, or there is no data.
    """
    if config.data is None:
        raise ValueError(
            "data=None: fit wants a folder of shards; make one with "
            "minillama.data.corpus.prepare(None, vocab_size)")
    tokenizer = weights.open_tokenizer(config.data) or Tokenizer(
        Path(config.data) / "tokenizer.model")
    if tokenizer.vocab_size != config.model.vocab_size:
        raise ValueError(
            f"the tokenizer in {config.data} has {tokenizer.vocab_size} "
            f"pieces, the model vocab_size={config.model.vocab_size}; make "
            "them equal")
    prompt = len(tokenizer.encode(config.sample_prompt, bos=True))
    if prompt >= config.model.max_seq_len:
        raise ValueError(
            f"sample_prompt={config.sample_prompt!r} has {prompt} tokens and "
            f"leaves no room in max_seq_len={config.model.max_seq_len}; "
            "shorten it")
    return tokenizer


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is NaN or infinite; nothing was updated."""


def not_finite(record: dict[str, Any], batch: Batch) -> NonFiniteLoss:
    """Which step and samples it was, and what to try."""
    last = batch.first_sample + len(batch.inputs) - 1
    return NonFiniteLoss(
        f"step {record['step']}: loss {record['loss']}, gradient norm "
        f"{record['grad_norm']} on samples {batch.first_sample} to {last}; "
        "the weights are as before this step. Lower --max-lr, lengthen "
        "--warmup-steps, or look at these samples")


@dataclass
class State:
    """Everything that changes during a run.

    Chapter: notebooks/10_training.ipynb
    """

    model: Transformer
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    batches: Iterator[Batch]
    dtype: torch.dtype
    loss_fn: Callable[..., Tensor]
    step: int = 0
    # What many processes do in another way (minillama/parallel.py).
    lead: bool = True
    """Whether this process prints, and writes the files of the run."""
    shares: int = 1
    """Into how many parts each batch is dealt."""
    devices: int = 1
    """Processes in all, each with one device."""
    mean: Callable[[float], float] = float
    """A number's mean over all processes."""
    clip: Callable[..., Tensor] = clip_grad_norm
    """Clips the gradient by its norm over all processes."""
    save: Callable[..., None] | None = None
    """Writes a checkpoint together with the others, as `save_state` does."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.tok_embeddings.weight.device

    def peak(self) -> float | None:
        """Operations per second of all devices, None if not known."""
        one = device_peak(self.device)
        return one and one * self.devices

    def describe(self, config: TrainConfig) -> str:
        """What is about to be trained, in one line."""
        parameters = sum(p.numel() for p in self.model.parameters())
        return (f"{parameters:,} parameters, {config.steps} steps of "
                f"{config.batch_size} x {config.model.max_seq_len} tokens, "
                f"{self.dtype} on {self.device}"
                + (f" x {self.devices}" if self.devices > 1 else ""))


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


def begin(
    config: TrainConfig,
    loss_fn: Callable[..., Tensor],
    model: Transformer | None = None,
    batches: Iterator[Batch] | None = None,
    *,
    wrap: Callable[[Transformer], Transformer] | None = None,
    rank: int = 0,
    shares: int = 1,
) -> State:
    """A run at step 0; see `train.new_state`.

    Args:
        config: of the run.
        loss_fn: (model, inputs, targets) -> summed loss.
        model: instead of the one that `config.model` describes.
        batches: instead of those in `config.data`; like `Batches` an endless
            iterator with `state_dict` and `load_state_dict`.
        wrap: spreads the model over many processes.
        rank, shares: this process reads part `rank` of `shares` of a batch.

    Raises:
        ValueError: if the settings ask for many processes and there is one.
    """
    wanted = (config.dp_replicate * (config.dp_shard or 1)
              * config.tensor_parallel)
    if wrap is None and wanted > 1:
        raise ValueError(
            f"dp_replicate={config.dp_replicate}, dp_shard={config.dp_shard} "
            f"and tensor_parallel={config.tensor_parallel} ask for {wanted} "
            f"processes, and this is one; start torchrun --nproc-per-node "
            f"{wanted} -m minillama train")
    # Even asking for the default imports a compiler: two seconds.
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(config.deterministic)
    # LLaMA draws nothing while it trains; another model might drop out.
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    if model is None:
        model = Transformer(config.model)
        model.init_weights(torch.Generator().manual_seed(config.seed))
    if config.init_from is not None:
        _start_from(model, config)
    model = model.to(device).train()
    model = wrap(model) if wrap else recompute.apply(model, config.recompute)
    optimizer = torch.optim.AdamW(
        decay_groups(model, config.weight_decay), lr=config.max_lr,
        betas=(config.beta1, config.beta2), fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    batches = batches or Batches(
        config.data, seq_len=config.model.max_seq_len,
        batch_size=config.batch_size, seed=config.seed, rank=rank,
        world_size=shares)
    return State(model, optimizer, scaler, batches, dtype, loss_fn)


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """What differs from run to run is a warning here, if it is refused else.

    For samples: a GPU has no other way to add up the probabilities of top-p.
    """
    strict = torch.are_deterministic_algorithms_enabled()
    if strict:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        if strict:
            torch.use_deterministic_algorithms(True)


def _start_from(model: Transformer, config: TrainConfig) -> None:
    """Take over weights from a folder, if its tokenizer is the same."""
    source, theirs = weights.load(config.init_from)
    checkpoint.load_weights(model, checkpoint.weights_of(source))
    mine = open_tokenizer(config)
    if theirs is None or theirs.to_bytes() != mine.to_bytes():
        raise ValueError(
            f"init_from={config.init_from} was trained with another "
            f"tokenizer than that of {config.data}; prepare the data "
            "with its tokenizer")


def save_state(state: State, out: Path, keep_last: int) -> None:
    """One checkpoint with all that a bitwise continuation needs."""
    if state.save:
        state.save(state, out, keep_last)
        return
    checkpoint.save(out, state.step, state.model, {
        **position(state), "optimizer": state.optimizer.state_dict(),
    }, keep_last=keep_last)


def position(state: State) -> dict[str, Any]:
    """Where a run stands, beside its weights and their moments."""
    return {
        "scaler": state.scaler.state_dict(),
        "batches": state.batches.state_dict(),
        "rng": {"cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all()},
    }


def resume_state(state: State, out: Path) -> None:
    """Put the newest checkpoint back in place.

    One process or many may have written it, and one or many may read it.
    """
    folder = checkpoint.checkpoints(out)[-1]
    if sharded.holds(folder):
        state.step = checkpoint.verified_step(folder)
        training = checkpoint.read_training(folder)
        sharded.load(folder, sharded.tensors(state.model, state.optimizer))
    else:
        stored = checkpoint.read(folder)
        state.step, training = stored["step"], stored["training"]
        checkpoint.load_weights(state.model, stored["weights"])
        _load_moments(state.optimizer, training["optimizer"])
    if training["scaler"]:  # empty unless it was trained in fp16
        state.scaler.load_state_dict(training["scaler"])
    state.batches.load_state_dict(training["batches"])
    torch.set_rng_state(training["rng"]["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(training["rng"]["cuda"])


def _load_moments(
    optimizer: torch.optim.Optimizer, stored: dict[str, Any]
) -> None:
    """Put AdamW's moments in place, or this process's parts of them."""
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    if not any(isinstance(w, DTensor) for w in weights):
        optimizer.load_state_dict(stored)
        return
    for number, weight in enumerate(weights):
        moments = stored["state"][number]
        for name in ("exp_avg", "exp_avg_sq"):
            part = optimizer.state[weight][name] = torch.zeros_like(weight)
            sharded.fill(part, moments[name])
        optimizer.state[weight]["step"] = moments["step"].to(weight.device)


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


def log_speed(out: Path, step: int, meter: Meter) -> dict[str, Any]:
    """Append this interval's speed to speed.jsonl and begin the next."""
    speed = {"step": step, **meter.read()}
    with open(out / "speed.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(speed) + "\n")
    meter.start()
    return speed


def progress_line(record: dict[str, Any], speed: dict[str, Any]) -> str:
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


def write_result(
    out: Path,
    step: int,
    val_loss: float | None,
    bits_per_byte: float | None,
    records: list[dict[str, Any]],
    say: Callable[[str], None],
) -> None:
    """Write result.json and draw the loss curve."""
    replace_bytes(out / "result.json", json.dumps({
        "step": step, "val_loss": val_loss,
        "bits_per_byte": bits_per_byte}).encode())
    try:
        from minillama.plots.training import save_loss_curve
        save_loss_curve(records, out / "loss.png")
    except ImportError:
        say("no loss.png: matplotlib is not installed")
