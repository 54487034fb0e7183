"""minillama/metrics.py with a clock that the test sets.

Speed and utilisation are worked out by hand for a shape small enough to
count on paper, and for LLaMA 65B on A100s, whose figure the paper implies.
The file of losses is cut, torn and spoilt in every way that a kill can.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from minillama.config import ModelConfig
from minillama.metrics import (
    Meter, MetricsFile, device_peak, open_tracker, peak_flops, read_metrics)

# D = 4, one layer, one head, F = 3, V = 5: 4 * 16 attention weights, 3 * 12
# in the feed-forward, 3 * 4 in the norms and 20 in the output make 132 that
# multiply; attention adds 6 * 1 * 4 * 10 at T = 10.
TINY = ModelConfig(dim=4, n_layers=1, n_heads=1, ffn_dim=3, vocab_size=5)
TINY_FLOPS = 6 * (64 + 36 + 12 + 20) + 240


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_known_shape_and_clock_give_the_known_utilisation() -> None:
    """50 tokens in 4 seconds of a device of 51,600 operations a second."""
    clock = _Clock()
    meter = Meter(TINY, 10, peak=51_600.0, clock=clock)
    meter.add(20)
    clock.now += 1.5
    meter.add(30)
    clock.now += 2.5
    read = meter.read()
    assert read["seconds"] == 4.0 and read["tokens_per_s"] == 12.5
    assert read["mfu"] == pytest.approx(12.5 * TINY_FLOPS / 51_600)
    assert read["mfu"] == pytest.approx(0.25)


def test_pauses_are_not_training_and_start_begins_anew() -> None:
    """Evaluation and checkpoints are left out; intervals do not mix."""
    clock = _Clock()
    meter = Meter(TINY, 10, peak=None, clock=clock)
    meter.add(10)
    clock.now += 1
    with meter.paused():
        clock.now += 50
    clock.now += 1
    assert meter.read()["tokens_per_s"] == 5.0
    meter.start()
    assert meter.read()["tokens_per_s"] == 0.0  # no time has passed
    clock.now += 2
    meter.add(3)
    assert meter.read()["tokens_per_s"] == 1.5


def test_unknown_device_has_no_utilisation() -> None:
    """None, not a guess."""
    clock = _Clock()
    meter = Meter(TINY, 10, peak=None, clock=clock)
    meter.add(5)
    clock.now += 1
    assert meter.read()["mfu"] is None
    assert device_peak(torch.device("cpu")) is None


def test_the_papers_training_speed() -> None:
    """380 tokens/s on an A100: the paper's 65B ran at about half its peak.

    The two usual figures are 47.7 % (6 N) and 49.7 % (with all of the
    attention matrix); causal attention, half of it, lies between.
    """
    meter = Meter(ModelConfig.preset("65B"), 2048, peak_flops("A100"),
                  clock=(clock := _Clock()))
    meter.add(380)
    clock.now += 1
    assert 0.47 < meter.read()["mfu"] < 0.497
    # On 2,048 of them 1.4T tokens take about 21 days.
    rate = 2048 * meter.read()["tokens_per_s"]
    assert round(1.4e12 / rate / 3600 / 24) == 21


@pytest.mark.parametrize("name, teraflops", [
    ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100-PCIE-40GB", 312),
    ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756),
    ("NVIDIA H200", 989.4), ("Tesla T4", 65), ("NVIDIA L4", 121),
    ("NVIDIA L40S", 362), ("Tesla V100-SXM2-16GB", 125),
    ("NVIDIA A10G", 70), ("NVIDIA GeForce RTX 4090", None),
    ("NVIDIA L40", None), ("Quadro T400", None), ("NVIDIA A1000", None),
    ("NVIDIA H100 NVL", None), ("", None),
])
def test_peaks_by_device_name(name: str, teraflops: float | None) -> None:
    """From data sheets; a name that only resembles one is unknown."""
    expected = None if teraflops is None else teraflops * 1e12
    assert peak_flops(name) == expected


def test_cuda_devices_are_asked_their_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The peak belongs to the device at hand."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "Tesla T4")
    assert device_peak(torch.device("cuda")) == 65e12


def _lines(*steps: int) -> bytes:
    return b"".join(
        b'{"step": %d, "loss": %f}\n' % (s, 1 / s) for s in steps)


@pytest.mark.parametrize("extra", [
    b"", _lines(4), _lines(4, 5, 6), b'{"step": 4, "lo', _lines(4) + b"{",
    b"\n", b"\0\0\0\0"])
def test_lines_after_the_checkpoint_are_cut(
    tmp_path: Path, extra: bytes
) -> None:
    """Whole, torn or garbage: steps 1 to 3 stay to the byte, 4 follows."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(_lines(1, 2, 3) + extra)
    file = MetricsFile(path, done=3)
    assert path.read_bytes() == _lines(1, 2, 3)
    file.write({"step": 4, "loss": 0.1, "grad_norm": None})
    # On the disk at once, for whoever looks, or if the process is killed.
    expected = {"step": 4, "loss": 0.1, "grad_norm": None}
    assert read_metrics(path)[-1] == expected
    file.sync()
    file.close()
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 3, 4]
    assert b"\r" not in path.read_bytes()


def test_a_run_from_the_start_leaves_nothing_of_the_last(
    tmp_path: Path,
) -> None:
    """Without a checkpoint behind it the file begins empty."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(_lines(1, 2, 3))
    MetricsFile(path).close()
    assert path.read_bytes() == b""
    fresh = tmp_path / "none.jsonl"
    MetricsFile(fresh).close()
    assert fresh.read_bytes() == b""


@pytest.mark.parametrize("content", [
    None, b"", _lines(1, 2), _lines(1, 3, 2), _lines(2, 3, 4),
    _lines(1, 2, 2), _lines(1, 2) + b'{"step": 3', _lines(1, 2, 3)[:-1],
    _lines(1, 2) + b"[]\n", b"\xff\n" + _lines(2, 3), b"\n" + _lines(1, 2)])
def test_missing_lines_are_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    """A checkpoint after step 3 needs lines 1, 2 and 3; nothing is cut."""
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="steps 1 to 3.*another --out"):
        MetricsFile(path, done=3)
    assert (path.read_bytes() if path.exists() else None) == content


def test_numbers_survive_the_file(tmp_path: Path) -> None:
    """JSON keeps every bit of a loss; the record is one plain object."""
    path = tmp_path / "m.jsonl"
    file = MetricsFile(path)
    values = [0.1 + 0.2, 1e-300, 3.0, 2.3025850929940455]
    for step, loss in enumerate(values, start=1):
        file.write({"step": step, "loss": loss})
    file.close()
    assert [json.loads(line)["loss"] for line in
            path.read_text(encoding="utf-8").splitlines()] == values


def test_no_tracker_is_silent(tmp_path: Path) -> None:
    """And makes no files."""
    open_tracker("none", tmp_path)({"step": 1, "loss": 2.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, module", [
    ("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_tracker_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    """One line with the command."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"needs `pip install {name}`"):
        open_tracker(name, tmp_path)


def test_tensorboard_gets_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for its writer records the calls; None is left out."""
    calls = []

    class SummaryWriter:
        def __init__(self, folder: Path) -> None:
            calls.append(folder)

        def add_scalar(self, key: str, value: float, step: int) -> None:
            calls.append((key, value, step))

        def flush(self) -> None:
            calls.append("on the disk")

    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    track = open_tracker("tensorboard", tmp_path)
    track({"step": 3, "loss": 2.5, "grad_norm": None})
    assert calls == [
        tmp_path / "tensorboard", ("loss", 2.5, 3), "on the disk"]


def test_wandb_gets_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its step, in a run named after the folder."""
    calls = []

    class Run:
        def log(self, record: dict, step: int) -> None:
            calls.append((record, step))

    module = type(sys)("wandb")
    module.init = lambda **settings: calls.append(settings) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    track = open_tracker("wandb", tmp_path / "mine")
    track({"step": 3, "loss": 2.5})
    assert calls[0]["name"] == "mine"
    assert calls[1] == ({"step": 3, "loss": 2.5}, 3)
