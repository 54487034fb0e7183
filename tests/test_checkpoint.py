"""minillama/checkpoint.py: whole or not at all, strict, and never code.

Round trips are compared bit by bit. Crashes are of two kinds: an exception
before each single file operation of a write in turn (through Python's audit
events), and real kills of a forked process at random moments. After each,
the newest checkpoint must be one that was written, and writing must go on.
Damage: every byte of the manifest, bytes all over the other files, files cut
short or gone; and a pickle that would run code if it were let.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minillama import checkpoint
from minillama.checkpoint import (
    MANIFEST, SHAPE, TRAINING, WEIGHTS, DamagedCheckpoint, checkpoints,
    load_model, load_weights, read, save, weights_of)
from minillama.files import manifest
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from tests.small import MODEL, VOCAB, sentences

FILES = (WEIGHTS, SHAPE, TRAINING, MANIFEST)


def _model(seed: int, **changes: Any) -> Transformer:
    model = Transformer(replace(MODEL, **changes))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def _training(step: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(step)
    return {
        "optimizer": {"state": {0: {"exp_avg": torch.randn(
            1000, generator=draw)}}, "param_groups": [{"lr": 0.1 * step}]},
        "scaler": {}, "batches": {"counts": {"plays": step}},
        "rng": {"cpu": torch.get_rng_state(), "cuda": []}}


def _write(out: Path, step: int, keep_last: int = 2) -> Path:
    return save(out, step, _model(step), _training(step), keep_last=keep_last)


def _assert_is(stored: dict[str, Any], step: int) -> None:
    """What was read is what `_write` wrote, to the bit."""
    assert stored["step"] == step and stored["config"] == MODEL
    expected = weights_of(_model(step))
    assert stored["weights"].keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(stored["weights"][name], weight)
        assert stored["weights"][name].dtype == weight.dtype
    mine, theirs = stored["training"], _training(step)
    assert torch.equal(mine["optimizer"]["state"][0]["exp_avg"],
                       theirs["optimizer"]["state"][0]["exp_avg"])
    assert mine["optimizer"]["param_groups"] == (
        theirs["optimizer"]["param_groups"])
    assert mine["batches"] == theirs["batches"]


def test_round_trip_is_bitwise(tmp_path: Path) -> None:
    """Weights, shape, numbers, tensors; names that any system takes."""
    model, training = _model(12), _training(12)
    state = torch.get_rng_state()
    folder = save(tmp_path / "a run", 12, model, training, keep_last=1)
    stored = read(folder)
    _assert_is(stored, 12)
    assert torch.equal(stored["training"]["rng"]["cpu"], state)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    for path in tmp_path.rglob("*"):
        assert not set('<>:"|?*\\') & set(path.name)
        assert not path.name.endswith((".", " "))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_keep_their_bits(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """Weights are stored as they are, not as float32."""
    model = _model(1).to(dtype)
    stored = read(save(tmp_path, 1, model, {}, keep_last=1))["weights"]
    other = _model(2).to(dtype)
    load_weights(other, stored)
    for a, b in zip(model.parameters(), other.parameters()):
        assert a.dtype == dtype and torch.equal(a, b)


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    """And are one matrix again after loading."""
    model = _model(1, tie_embeddings=True)
    folder = save(tmp_path, 1, model, {}, keep_last=1)
    assert "output.weight" not in load_file(folder / WEIGHTS)
    stored = read(folder)
    other = Transformer(stored["config"])
    load_weights(other, stored["weights"])
    assert torch.equal(other.output.weight, model.tok_embeddings.weight)
    assert other.output.weight is other.tok_embeddings.weight


def test_keep_last(tmp_path: Path) -> None:
    """The newest stay, by number and not by time or alphabet."""
    for step in (5, 9, 10, 11, 100):
        _write(tmp_path, step, keep_last=3)
    assert [p.name for p in checkpoints(tmp_path)] == [
        "step-00000010", "step-00000011", "step-00000100"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3
    _assert_is(read(checkpoints(tmp_path)[-1]), 100)


def test_files_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut could leave a whole name on half a file."""
    calls: list[str] = []
    flush, rename = checkpoint.flush, os.replace
    monkeypatch.setattr(checkpoint, "flush", lambda path: (
        calls.append(path.name), flush(path)))
    monkeypatch.setattr(os, "replace", lambda a, b: (
        calls.append("rename"), rename(a, b)))
    _write(tmp_path, 1)
    assert set(calls[:5]) == {*FILES, "writing-00000001"}
    assert calls[5:] == ["rename", "checkpoints", tmp_path.name]


def test_a_step_is_written_once(tmp_path: Path) -> None:
    """A good checkpoint is not put at risk for the same step."""
    _write(tmp_path, 3)
    with pytest.raises(ValueError, match="step-00000003 exists already"):
        save(tmp_path, 3, _model(99), {}, keep_last=2)
    _assert_is(read(checkpoints(tmp_path)[-1]), 3)


class _Crash(BaseException):
    """The power goes: no handler of the package may stop it."""


_watch: dict[str, Any] = {"folder": None}


def _hook(event: str, args: tuple[Any, ...]) -> None:
    """Count operations on files below a folder; crash before one of them."""
    if _watch["folder"] is None or event not in _EVENTS:
        return
    paths = [os.fspath(a) for a in args if isinstance(a, str | os.PathLike)]
    if any(path.startswith(_watch["folder"]) for path in paths):
        _watch["seen"].append(event)
        if len(_watch["seen"]) == _watch["at"]:
            raise _Crash


_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir",
           "shutil.rmtree", "os.listdir", "os.scandir", "os.truncate"}


@pytest.fixture(scope="module")
def crash_at() -> Iterator[Callable[[Path, int], None]]:
    """Crash before operation number `at` below a folder; 0 only counts."""
    sys.addaudithook(_hook)  # it cannot be removed, only sent to sleep

    def begin(folder: Path | None, at: int = 0) -> list[str]:
        _watch.update(folder=str(folder) if folder else None, at=at, seen=[])
        return _watch["seen"]

    yield begin
    begin(None)


def test_a_crash_before_any_operation_loses_nothing(
    tmp_path: Path, crash_at: Callable[..., list[str]]
) -> None:
    """The third write breaks off before its 1st, 2nd, ... last operation."""
    before = tmp_path / "before"
    _write(before, 1)
    _write(before, 2)
    count = tmp_path / "count"
    shutil.copytree(before, count)
    seen = crash_at(count)
    _write(count, 3)
    crash_at(None)
    # Opened: three files, and for the flush six files and folders. Renamed:
    # into place, and the oldest out of the way.
    assert seen.count("open") >= 8 and seen.count("os.rename") == 2
    outcomes = []
    for at in range(1, len(seen) + 1):
        out = tmp_path / f"at-{at}"
        shutil.copytree(before, out)
        crash_at(out, at)
        with pytest.raises(_Crash):
            _write(out, 3)
        crash_at(None)
        newest = read(checkpoints(out)[-1])
        assert len(checkpoints(out)) >= 2
        for folder in checkpoints(out):
            step = read(folder)["step"]
            _assert_is(read(folder), step)
        outcomes.append(newest["step"])
        if newest["step"] == 2:
            _write(out, 3)
        _write(out, 4)
        names = sorted(p.name for p in (out / "checkpoints").iterdir())
        assert names == ["step-00000003", "step-00000004"]
    assert outcomes == sorted(outcomes) and {2, 3} == set(outcomes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_kill_inside_the_write(tmp_path: Path) -> None:
    """Twenty-four kills -9 of a process that does nothing but write.

    In turn: as soon as a write has begun; a random part of a write later;
    and at random after the first write is done.
    """
    draw = random.Random(0)
    models = [_model(step) for step in range(4)]
    begun = time.perf_counter()
    for step in range(1, 6):
        _write(tmp_path / "timed", step)
    one_write = (time.perf_counter() - begun) / 5
    folder, inside, step = tmp_path / "checkpoints", 0, 0
    for number in range(24):
        child = os.fork()
        if child == 0:
            # Only _exit leaves a forked copy of pytest without a trace.
            try:
                for later in range(step + 1, step + 1000):
                    save(tmp_path, later, models[later % 4],
                         _training(later), keep_last=2)
            finally:
                os._exit(1)
        end = time.monotonic() + 60
        # Names sort by their numbers; the child may be several steps ahead.
        while not any(
                path.name > f"step-{step:08d}" for path in folder.glob(
                    "step-*" if number % 3 == 2 else "writing-*")):
            assert time.monotonic() < end, "the child writes nothing"
            time.sleep(0.0005)
        if number % 3:
            time.sleep(number % 3 * one_write * draw.random())
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        left = {p.name for p in folder.glob("*-*")}
        inside += any(not name.startswith("step-") for name in left)
        for kept in checkpoints(tmp_path):
            stored = read(kept)
            assert kept.name == f"step-{stored['step']:08d}"
            assert stored["training"]["batches"]["counts"]["plays"] == (
                stored["step"])
        if step:
            assert checkpoints(tmp_path), "all good checkpoints were lost"
            assert stored["step"] >= step
        step = stored["step"] if checkpoints(tmp_path) else 0
    assert step >= 8 and inside >= 3


def _copies(tmp_path: Path) -> Callable[[], Path]:
    """A fresh copy of one checkpoint at every call."""
    original = _write(tmp_path / "run", 7)
    target = tmp_path / "copy" / original.name

    def copy() -> Path:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(original, target)
        return target

    return copy


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_byte_is_refused(tmp_path: Path, name: str) -> None:
    """With the file, and what to do. Every byte of the small files."""
    folder = _copies(tmp_path)()
    whole = (folder / name).read_bytes()
    places = range(len(whole)) if len(whole) < 2000 else sorted(
        {0, 7, 8, 100, len(whole) // 3, len(whole) // 2, len(whole) - 1})
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (folder / name).write_bytes(damaged)
        with pytest.raises(DamagedCheckpoint) as caught:
            read(folder)
        assert "delete" in str(caught.value)
        assert "one before" in str(caught.value)
        if name != MANIFEST:
            assert name in str(caught.value)
    (folder / name).write_bytes(whole)
    _assert_is(read(folder), 7)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [None, 0, 10])
def test_a_cut_or_missing_file_is_refused(
    tmp_path: Path, name: str, size: int | None
) -> None:
    """Gone, empty, or ten bytes long."""
    folder = _copies(tmp_path)()
    if size is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])
    with pytest.raises(DamagedCheckpoint, match="step-00000007"):
        read(folder)


def test_manifests_from_elsewhere_are_refused(tmp_path: Path) -> None:
    """Valid JSON of another kind, or one that leaves a file out."""
    folder = _copies(tmp_path)()
    for text in ("[]", "{}", '"step"', '{"step": 7, "files": []}', "7"):
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        with pytest.raises(DamagedCheckpoint):
            read(folder)
    files = {name: checkpoint.fingerprint(folder / name)
             for name in (WEIGHTS, SHAPE)}
    (folder / MANIFEST).write_text(
        manifest(7, files), encoding="utf-8")
    with pytest.raises(DamagedCheckpoint, match=TRAINING):
        read(folder)


class _Bomb:
    """Unpickled without care, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """Even under a manifest that vouches for it; and nothing was run."""
    folder, trace = _copies(tmp_path)(), tmp_path / "trace"
    torch.save({"optimizer": _Bomb(trace)}, folder / TRAINING)
    torch.load(folder / TRAINING, weights_only=False)
    assert trace.exists(), "the bomb is a dud: the test proves nothing"
    trace.unlink()
    files = {name: checkpoint.fingerprint(folder / name)
             for name in (WEIGHTS, SHAPE, TRAINING)}
    (folder / MANIFEST).write_text(
        manifest(7, files), encoding="utf-8")
    with pytest.raises(DamagedCheckpoint, match="cannot be read"):
        read(folder)
    # A bare pickle, without torch's envelope.
    (folder / TRAINING).write_bytes(pickle.dumps(_Bomb(trace), 2))
    files[TRAINING] = checkpoint.fingerprint(folder / TRAINING)
    (folder / MANIFEST).write_text(
        manifest(7, files), encoding="utf-8")
    with pytest.raises(DamagedCheckpoint, match="cannot be read"):
        read(folder)
    assert not trace.exists()


def test_weights_that_do_not_fit_are_listed() -> None:
    """Missing, unexpected, other shape; and the model stays as it was."""
    model = _model(1)
    good = weights_of(_model(2))
    bad = {**good, "extra.weight": torch.zeros(2),
           "norm.weight": torch.zeros(33)}
    del bad["layers.1.attention.wq.weight"]
    before = {n: w.clone() for n, w in weights_of(model).items()}
    with pytest.raises(ValueError) as caught:
        load_weights(model, bad)
    message = str(caught.value)
    assert "missing layers.1.attention.wq.weight" in message
    assert "unexpected extra.weight" in message
    assert "norm.weight is (33,), the model wants (32,)" in message
    for name, weight in weights_of(model).items():
        assert torch.equal(weight, before[name])
    with pytest.raises(ValueError, match="; and 16 more; build the model"):
        load_weights(model, {})
    load_weights(model, good)
    assert torch.equal(model.norm.weight, good["norm.weight"])


def test_load_model_takes_the_newest(tmp_path: Path) -> None:
    """In evaluation mode, on the CPU, in float32, with its tokenizer."""
    tokenizer = Tokenizer.train(
        sentences(200), VOCAB, tmp_path / "tokenizer.model")
    save(tmp_path, 1, _model(1), {}, keep_last=2)
    save(tmp_path, 2, _model(2).bfloat16(), {}, keep_last=2)
    model, theirs = load_model(tmp_path)
    assert not model.training
    assert theirs.to_bytes() == tokenizer.to_bytes()
    for a, b in zip(model.parameters(), _model(2).parameters()):
        assert a.dtype == torch.float32
        assert torch.equal(a, b.bfloat16().float())


def test_load_model_says_what_is_missing(tmp_path: Path) -> None:
    """No folder, no checkpoint, a damaged one, no tokenizer."""
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="holds no checkpoint.*--out"):
            load_model(folder)
    folder = _write(tmp_path, 1)
    with pytest.raises(ValueError, match="tokenizer"):
        load_model(tmp_path)
    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(ValueError, match="not what was written"):
        load_model(tmp_path)


def test_a_shape_of_another_version_is_refused(tmp_path: Path) -> None:
    """Fields that are not known here, under a good manifest."""
    folder = _copies(tmp_path)()
    shape = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
    (folder / SHAPE).write_text(
        json.dumps({**shape, "experts": 8}), encoding="utf-8")
    files = {name: checkpoint.fingerprint(folder / name)
             for name in (WEIGHTS, SHAPE, TRAINING)}
    (folder / MANIFEST).write_text(
        manifest(7, files), encoding="utf-8")
    with pytest.raises(DamagedCheckpoint, match="experts"):
        read(folder)


def test_weights_reach_a_model_of_any_layout() -> None:
    """A matrix whose columns lie in one piece is filled, not a copy of it."""
    source, target = Transformer(MODEL), Transformer(MODEL)
    for weight in target.parameters():
        if weight.ndim == 2:
            weight.data = weight.data.T.contiguous().T
    load_weights(target, weights_of(source))
    for mine, theirs in zip(target.parameters(), source.parameters()):
        assert torch.equal(mine, theirs)
