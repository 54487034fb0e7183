"""What a run leaves behind: losses, speed, and where else to send them.

`metrics.jsonl` holds what the mathematics decides (loss, learning rate,
gradient norm), one line a step, and is the same to the byte after any number
of interruptions. `speed.jsonl` holds what the machine decides.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from minillama.config import ModelConfig
from minillama.files import needs
from minillama.model import flops_per_token

PEAK_FLOPS = {
    # Dense bf16 (V100, T4: fp16) with fp32 accumulation, from data sheets.
    "H200": 989.4e12, "H100": 989.4e12, "A100": 312e12, "L40S": 362e12,
    "L4": 121e12, "A10G": 70e12, "V100": 125e12, "T4": 65e12,
}
"""Operations per second of devices we know; others print no MFU."""


def peak_flops(device_name: str) -> float | None:
    """The peak of a device by its name, or None if it is not known."""
    words = device_name.replace("-", " ").split()
    if "H100" in words and "PCIe" in words:
        return 756e12
    if "NVL" in words:  # slower than the modules of the same name
        return None
    return next((peak for name, peak in PEAK_FLOPS.items() if name in words),
                None)


class Meter:
    """Tokens per second and model FLOPs utilisation (MFU) since `start`.

    MFU = tokens/s * flops_per_token / peak (Chowdhery et al. 2022, appendix
    B). On a device whose peak is unknown it is None rather than wrong.

    Args:
        config: the model, for its FLOPs.
        seq_len: T of the batches.
        peak: operations per second of all devices together, or None.
        clock: seconds, for tests.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(
        self,
        config: ModelConfig,
        seq_len: int,
        peak: float | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.flops = flops_per_token(config, seq_len)
        self.peak, self.clock = peak, clock
        self.start()

    def start(self) -> None:
        """Begin a new interval."""
        self.tokens, self.since = 0, self.clock()

    def add(self, tokens: int) -> None:
        """Count tokens trained on."""
        self.tokens += tokens

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside, which is not training."""
        begun = self.clock()
        yield
        self.since += self.clock() - begun

    def read(self) -> dict[str, Any]:
        """`seconds`, `tokens_per_s` and `mfu` (None if unknown) so far."""
        seconds = self.clock() - self.since
        rate = self.tokens / seconds if seconds > 0 else 0.0
        mfu = rate * self.flops / self.peak if self.peak else None
        return {"seconds": seconds, "tokens_per_s": rate, "mfu": mfu}


class MetricsFile:
    """A file of JSON lines with each step exactly once and in order.

    Args:
        path: the file; None writes nothing, for all processes but one.
        done: steps that the resumed checkpoint has behind it; lines after
            them, whole or torn by a kill, are cut off.

    Raises:
        ValueError: if a line of the steps done is missing.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(self, path: Path | None, done: int = 0) -> None:
        self.path = Path(path or os.devnull)
        self.real = path is not None
        kept = self._kept_bytes(done) if self.real else 0
        if self.real and self.path.exists():
            os.truncate(self.path, kept)
        self.file = open(self.path, "a", encoding="utf-8", newline="\n")

    def _kept_bytes(self, done: int) -> int:
        """Length of the first `done` lines, which must be steps 1..done."""
        text = self.path.read_bytes() if self.path.exists() else b""
        lines = text.splitlines(keepends=True)[:done]
        try:
            steps = [json.loads(line)["step"] for line in lines]
        except (ValueError, KeyError, TypeError):
            steps = []
        whole = b"".join(lines)
        if steps != list(range(1, done + 1)) or (
                done and not whole.endswith(b"\n")):
            raise ValueError(
                f"{self.path} does not hold steps 1 to {done}, which the "
                "checkpoint has behind it; restore the file, or start anew "
                "with another --out")
        return len(whole)

    def write(self, record: dict[str, Any]) -> None:
        """Append one line and hand it to the operating system."""
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Put the lines on the disk, before a checkpoint relies on them."""
        if self.real:
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def plain(value: float) -> float | None:
    """A number that JSON can hold: it has no infinity."""
    return value if math.isfinite(value) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a file of JSON lines."""
    text = Path(path).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def open_tracker(name: str, out: Path) -> Callable[[dict[str, Any]], None]:
    """A function that takes one record and shows it elsewhere.

    Args:
        name: `none`, `tensorboard` or `wandb`.
        out: folder of the run.

    Raises:
        ValueError: if the package behind the name is not installed.
    """
    if name == "none":
        return lambda record: None
    if name == "tensorboard":
        with needs("tracker=tensorboard needs `pip install tensorboard`"):
            from torch.utils.tensorboard import SummaryWriter
        writer = SummaryWriter(out / "tensorboard")

        def show(record: dict[str, Any]) -> None:
            for key, value in record.items():
                if key != "step" and value is not None:
                    writer.add_scalar(key, value, record["step"])
            writer.flush()  # it does not do so by itself at the end
        return show
    with needs("tracker=wandb needs `pip install wandb`"):
        import wandb
    run = wandb.init(project="minillama", name=Path(out).name, dir=str(out))
    return lambda record: run.log(record, step=record["step"])


def device_peak(device: torch.device) -> float | None:
    """Peak operations per second of one device, None if not known."""
    if device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device))
