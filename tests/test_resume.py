"""A run that was broken off is, at its end, the run that was not.

Nothing here knows how a run stores itself: the losses, the file of losses
and the final weights of interrupted runs are compared byte for byte with
those of one undisturbed run. Interruptions: resuming from any checkpoint;
thirty kills -9 of one run through the command line, ten of them while a
checkpoint is being written; and SIGTERM.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from minillama.checkpoint import checkpoints, read
from minillama.config import TrainConfig
from minillama.metrics import read_metrics
from minillama.train import fit
from tests.small import corpus, run_config

ROOT = Path(__file__).parent.parent
POSIX = pytest.mark.skipif(os.name != "posix", reason="kills processes")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus."""
    return corpus(tmp_path_factory.mktemp("data"))


def _assert_same_end(one: Path, other: Path) -> None:
    """Losses, weights, optimiser and data position, to the byte."""
    assert (one / "metrics.jsonl").read_bytes() == (
        other / "metrics.jsonl").read_bytes()
    a, b = checkpoints(one)[-1], checkpoints(other)[-1]
    assert a.name == b.name
    for name in ("model.safetensors", "config.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    a, b = read(a)["training"], read(b)["training"]
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    samples = [{p.name: p.read_bytes() for p in (out / "samples").iterdir()}
               for out in (one, other)]
    assert samples[0] == samples[1]


SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16, in micro-batches": {"dtype": "bf16", "micro_batch_size": 2},
    "fp16, overflows included": {"dtype": "fp16"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_resuming_anywhere_is_exact(
    tmp_path: Path, data: Path, settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From each checkpoint in turn, as if it had been killed after it."""
    # A scale so high, and so soon raised again, that steps are skipped all
    # along the run.
    monkeypatch.setattr(torch.amp, "GradScaler", partial(
        torch.amp.GradScaler, init_scale=2.0**20, growth_interval=1))
    config = run_config(
        data, tmp_path / "whole", keep_last=9, checkpoint_every=3, **settings)
    result = fit(config, log=None)
    assert len(result.metrics) == 12
    skipped = [r["step"] for r in result.metrics if r.get("skipped")]
    if settings.get("dtype") == "fp16":
        assert 1 in skipped and max(skipped) > 6 and len(skipped) < 9
    else:
        assert not skipped
    for number, kept in enumerate(checkpoints(config.out)[:-1]):
        out = tmp_path / kept.name
        shutil.copytree(config.out, out)
        for later in checkpoints(out)[number + 1:]:
            shutil.rmtree(later)
        resumed = fit(replace(config, out=out, resume=True), log=None)
        assert resumed.metrics == result.metrics
        assert resumed.val_loss == result.val_loss
        _assert_same_end(config.out, out)


def test_resume_of_a_finished_run_changes_nothing(
    tmp_path: Path, data: Path
) -> None:
    """It only says again what it came to."""
    config = run_config(data, tmp_path / "run")
    first = fit(config, log=None)
    before = (config.out / "metrics.jsonl").read_bytes()
    weights = (checkpoints(config.out)[-1] / "model.safetensors").read_bytes()
    again = fit(replace(config, resume=True), log=None)
    assert again == first
    assert (config.out / "metrics.jsonl").read_bytes() == before
    assert (checkpoints(config.out)[-1] / "model.safetensors"
            ).read_bytes() == weights


# -- through the command line ----------------------------------------------

STEPS = 240
EVERY = 3


def _arguments(data: Path, out: Path, *more: str) -> list[str]:
    config: TrainConfig = run_config(data, out)
    flags = {
        "dim": 16, "n-layers": 1, "n-heads": 1, "multiple-of": 8,
        "vocab-size": config.model.vocab_size, "max-seq-len": 16,
        "data": data, "out": out, "steps": STEPS, "batch-size": 2,
        "max-lr": 1e-2, "warmup-steps": 24, "dtype": "fp32", "device": "cpu",
        "log-every": 10, "eval-every": 80, "eval-tokens": 64,
        "checkpoint-every": EVERY, "sample-prompt": "A"}
    words = ["train"]
    for name, value in flags.items():
        words += [f"--{name}", str(value)]
    return [*words, *more]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def _start(data: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "minillama", *_arguments(data, out, *more)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=_environment())


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, data: Path
) -> Path:
    """A run that nobody interrupted, in a process of its own."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    process = _start(data, out)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert [r["step"] for r in read_metrics(out / "metrics.jsonl")] == list(
        range(1, STEPS + 1))
    return out


class _Forker:
    """Runs of the command line, each started within milliseconds."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "forker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=_environment(), text=True, encoding="utf-8")

    def start(self, arguments: list[str]) -> int:
        """Begin a run; its process number."""
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self) -> int:
        """The exit code of the run."""
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def forker() -> Iterator[_Forker]:
    """One for all tests."""
    forker = _Forker()
    yield forker
    forker.process.stdin.close()
    forker.process.stdout.close()
    forker.process.wait(timeout=30)


def _until(happens: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.0005)


def _lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@POSIX
@pytest.mark.slow
def test_thirty_kills_of_one_run(
    tmp_path: Path, data: Path, undisturbed: Path, forker: _Forker
) -> None:
    """Ten at any time after the start, ten after some step, ten in a write.

    After each the run is started again, with --resume as soon as there is a
    checkpoint, until it gets to its end. Should a run on a fast machine get
    there before its kill, it is held against the undisturbed one, and the
    next starts from nothing.
    """
    out = tmp_path / "run"
    draw = random.Random(0)
    kinds = ["early"] * 10 + ["step"] * 10 + ["write"] * 10
    draw.shuffle(kinds)
    torn = hits = 0
    for _ in range(200):
        if hits == len(kinds):
            break
        kind, goal = kinds[hits], STEPS * (hits + 1) // 32
        run = forker.start(_arguments(
            data, out, *(["--resume"] if checkpoints(out) else [])))
        _reach(out, kind, goal, draw)
        with contextlib.suppress(ProcessLookupError):  # over already
            os.kill(run, signal.SIGKILL)
        code = forker.wait()
        if code == 0:
            _assert_same_end(undisturbed, out)
            shutil.rmtree(out)
            continue
        assert code == -signal.SIGKILL, f"kill {hits} ({kind})"
        hits += 1
        torn += any((out / "checkpoints").glob("writing-*"))
        for kept in checkpoints(out):
            read(kept)
    assert hits == len(kinds)
    # Between seeing the write and the kill, a few may have finished.
    assert torn >= 2
    forker.start(_arguments(
        data, out, *(["--resume"] if checkpoints(out) else [])))
    assert forker.wait() == 0
    _assert_same_end(undisturbed, out)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        f"step-{STEPS - EVERY:08d}", f"step-{STEPS:08d}"]


def _reach(out: Path, kind: str, goal: int, draw: random.Random) -> None:
    """Wait for what the kill is to hit, or for the end of the run."""
    def over() -> bool:
        return (out / "result.json").exists()

    if kind == "early":
        time.sleep(draw.uniform(0, 0.3))
        return
    _until(lambda: _lines(out) >= goal or over())
    if kind == "step":
        time.sleep(draw.uniform(0, 0.03))
    else:
        _until(lambda: any((out / "checkpoints").glob("writing-*")) or over())


@POSIX
def test_sigterm_checkpoints_and_ends_cleanly(
    tmp_path: Path, data: Path, undisturbed: Path, forker: _Forker
) -> None:
    """Exit code 0, nothing on stderr, no step lost; the rest is exact."""
    out = tmp_path / "run"
    process = _start(data, out, "--checkpoint-every", "1000")
    _until(lambda: _lines(out) >= 7)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    done = _lines(out)
    assert 7 <= done < STEPS
    assert [p.name for p in checkpoints(out)] == [f"step-{done:08d}"]
    # Without --resume the run is not touched.
    forker.start(_arguments(data, out))
    assert forker.wait() == 2 and _lines(out) == done
    # Four more signals, in four more runs, then to the end.
    for _ in range(4):
        before = _lines(out)
        run = forker.start(_arguments(data, out, "--resume"))
        _until(lambda: _lines(out) > before)
        os.kill(run, signal.SIGTERM)
        assert forker.wait() == 0
        if _lines(out) < STEPS:
            assert checkpoints(out)[-1].name == f"step-{_lines(out):08d}"
    forker.start(_arguments(data, out, "--resume"))
    assert forker.wait() == 0
    _assert_same_end(undisturbed, out)
