"""Five minutes on several GPUs before a run of weeks on them.

`minillama train` is started as a user starts it, and its logs are compared:
one process alone; the same steps in mixes of copies, shards and split
matrices, and in one of them with compiled layers; and a run that is killed in
the middle and goes on in another mix. What each run's speed was stands beside.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.metrics import read_metrics

TOLERANCE = 3e-3
"""Relative, in fp32: sums in another order, and steps that built on them. Two
processes of a CPU came to 6e-4; a norm that counts twice is far above."""
COMPILERS = ("g++", "clang++", "cl")
"""Of which torch.compile needs one on a CPU."""


class Finding(NamedTuple):
    """What one run showed."""

    what: str
    """The mix, in words."""
    holds: bool
    """Whether it took the steps of one process."""
    detail: str
    """By how much they differ and how fast it was; or its last line."""


def mixes(config: ModelConfig, processes: int) -> list[Layout]:
    """Copies, shards, split matrices and mixtures, as far as they fit.

    Chapter: notebooks/13_scaling.ipynb
    """
    sizes = [(processes, 1), (1, 1), (1, processes), (1, 2), (2, 2), (1, 4)]
    layouts = [Layout(copies, processes // (copies * split), split)
               for copies, split in sizes if processes % (copies * split) == 0]
    return [layout for layout in dict.fromkeys(layouts)
            if not layout.misfits(config, config.max_seq_len)]


def check(
    config: ModelConfig, processes: int, out: Path, *, steps: int = 40,
    flags: Sequence[str] = (),
) -> Iterator[Finding]:
    """Train alone, in every mix, compiled, and with a kill in the middle.

    Args:
        config: the model of `flags`, for what divides it.
        processes: GPUs of this machine, or processes of its CPU.
        out: a folder for the runs; none of them may be there.
        steps: of each run.
        flags: more of `minillama train`: the preset, the data, the device.

    Yields:
        Findings, each as soon as its run is over.

    Raises:
        ValueError: if one process alone cannot train, or nothing fits.

    Chapter: notebooks/13_scaling.ipynb
    """
    layouts = mixes(config, processes)
    if processes < 2 or not layouts:
        raise ValueError(f"cluster={processes}: nothing to compare; try 2, 4 "
                         "or 8 processes, which divide heads and vocabulary")
    flags = [*flags, "--steps", str(steps), "--dtype", "fp32", "--eval-every",
             "0", "--checkpoint-every", str(max(1, steps // 8)),
             "--log-every", str(max(1, steps // 4))]
    alone = _train(None, out / "alone", flags)
    if alone.returncode:
        raise ValueError(f"one process alone cannot train: {_last(alone)}")
    for number, layout in enumerate(layouts):
        yield _run(layout, out / f"mix-{number}", flags, out / "alone")
    if torch.cuda.is_available() or any(map(shutil.which, COMPILERS)):
        split = max(layouts, key=lambda layout: layout.tensor_parallel)
        found = _run(split, out / "compiled", [*flags, "--compile"],
                     out / "alone")
        yield found._replace(what=f"compiled, {found.what}")
    killed, last = out / "killed", layouts[-1]
    with subprocess.Popen(
            _command(layouts[0], killed, flags), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and _steps(killed) < steps // 2:
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, 9)
    found = _run(last, killed, [*flags, "--resume"], out / "alone")
    yield found._replace(what=f"killed, then {found.what}")


def _command(
    layout: Layout | None, out: Path, flags: Sequence[str]
) -> list[str]:
    """What a user would type."""
    words = ["-m", "minillama", "train", "--out", str(out), *flags]
    if layout is None:
        return [sys.executable, *words]
    for name in ("dp_replicate", "dp_shard", "tensor_parallel"):
        words += ["--" + name.replace("_", "-"), str(getattr(layout, name))]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone",
            "--nproc-per-node", str(layout.world_size), *words]


def _train(
    layout: Layout | None, out: Path, flags: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Type it, and wait for the end."""
    return subprocess.run(_command(layout, out, flags), text=True,
                          encoding="utf-8", capture_output=True, check=False)


def _last(done: subprocess.CompletedProcess[str]) -> str:
    """Our own last line of a run that failed, or the last few of others."""
    lines = done.stderr.strip().splitlines()
    ours = [line for line in lines if line.startswith("minillama: ")]
    return " | ".join([f"it ended with {done.returncode}",
                       *(ours[-1:] or lines[-3:])])


def _steps(out: Path) -> int:
    """Steps in the log so far."""
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _run(
    layout: Layout, out: Path, flags: Sequence[str], alone: Path
) -> Finding:
    """One run to its end, held against one process."""
    what = (f"{layout.dp_replicate} copies x {layout.dp_shard} shards x "
            f"{layout.tensor_parallel} parts")
    done = _train(layout, out, flags)
    if done.returncode:
        return Finding(what, False, _last(done))
    got, wanted = (read_metrics(path / "metrics.jsonl")
                   for path in (out, alone))
    if [r["step"] for r in got] != [r["step"] for r in wanted]:
        return Finding(what, False, "its log does not have each step once")
    gap = max(abs(g[name] / w[name] - 1) for g, w in zip(got, wanted)
              for name in ("loss", "grad_norm"))
    return Finding(what, gap < TOLERANCE,
                   f"losses and norms within {gap:.0e}; {_speed(out)}")


def _speed(out: Path) -> str:
    """Of the last quarter of a run."""
    lines = (out / "speed.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    mfu = "unknown" if last["mfu"] is None else f"{last['mfu']:.1%}"
    return f"{last['tokens_per_s']:,.0f} tokens/s, MFU {mfu}"
