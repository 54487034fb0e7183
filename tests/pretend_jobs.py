"""What the process of tests/test_devices.py does, on two devices.

Prints one JSON object: what each job gave on the CPU and on the pretended
device, or the fault that it ended with.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests import pretend  # first: it changes PyTorch

import torch

from benchmarks import generation, gpu
from minillama import cli
from minillama.config import ModelConfig, TrainConfig
from minillama.data.corpus import prepare
from minillama.fast import FastTransformer
from minillama.generate import next_tokens
from minillama.metrics import read_metrics
from minillama.train import fit

MODEL = ModelConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2,
                    vocab_size=300, max_seq_len=32, multiple_of=16)


def text(folder: Path) -> Path:
    """Some lines of which no two are alike."""
    path = folder / "lines.txt"
    path.write_text("".join(
        f"the cat {i} sat on the mat and {'abcdefgh'[i % 8:]} ran to house "
        f"{7 * i} of the king\n\n" for i in range(900)), encoding="utf-8")
    return path


def config(folder: Path, device: str, **settings: Any) -> TrainConfig:
    """A run of six steps with samples, checkpoints and evaluation."""
    return replace(
        TrainConfig.from_preset("mini"), data=prepare(text(folder), 300),
        model=MODEL, device=device, dtype="fp32", out=str(folder / "run"),
        steps=6, batch_size=4, micro_batch_size=2, eval_every=3,
        checkpoint_every=3, warmup_steps=1, **settings)


def losses(run: TrainConfig) -> list[float]:
    """Of every step."""
    return [r["loss"] for r in fit(run, log=lambda *words: None).metrics]


def train(folder: Path, device: str) -> list[float]:
    """Train, and go on from a checkpoint that another device left."""
    first = losses(config(folder, device))
    other = {"cpu": pretend.NAME, pretend.NAME: "cpu"}[device]
    on = folder / "run" / "checkpoints"
    for newest in sorted(on.iterdir())[-1:]:
        newest.rename(folder / newest.name)
    again = losses(config(folder, other, resume=True))
    return first + again


def by_hand(folder: Path, device: str) -> list[float]:
    """The backward pass that is written out."""
    return losses(config(folder, device, recompute="by_hand"))


def write(folder: Path, device: str) -> list[list[int]]:
    """Two texts over the end of the context, by both forms of the model."""
    model = generation.make_model(MODEL, torch.device("cpu")).to(device)
    return [torch.stack(list(next_tokens(
        form, [[1, 2, 3], [5]], max_new_tokens=40, temperature=0.7,
        top_p=0.9, generator=torch.Generator(device).manual_seed(3)))).tolist()
        for form in (model, FastTransformer(model))]


def verbs(folder: Path, device: str) -> list[str]:
    """What people type."""
    said = []
    tune = folder / "tune.jsonl"
    tune.write_text("\n".join(
        json.dumps({"instruction": f"say {i}", "input": "",
                    "output": f"word {i}"}) for i in range(40)),
        encoding="utf-8")
    for words, typed in (
            ("generate --prompt KING --max-new-tokens 20 --temperature 0", ""),
            ("chat --max-new-tokens 9 --temperature 0", "hello\n"),
            ("eval --limit 3 --tasks plays --dtype fp32 --json "
             "--batch-tokens 2048", ""),
            (f"finetune --data {tune} --out {folder / 'tuned'} --steps 3 "
             "--batch-size 4 --dtype fp32", "")):
        out, sys.stdin = io.StringIO(), io.StringIO(typed)
        with contextlib.redirect_stdout(out):
            code = cli.main([*words.split(), "--device", device])
        assert code == 0, (words, code)
        said.append(out.getvalue().replace(f"{pretend.NAME}:0", "cpu"))
    # Speeds and paths differ.
    return [*said[:-1], str([round(r["loss"], 4) for r in read_metrics(
        folder / "tuned" / "metrics.jsonl") if "loss" in r])]


def benchmark(folder: Path, device: str) -> list[float]:
    """First losses of all sides of `benchmarks/gpu.py`."""
    rows = [run["row"] for run in gpu.measure(gpu.arguments(
        f"--preset mini --device {device} --steps 1 --warm-up 1 --length 16 "
        "--layers 1 --batch-size 2 --modes none by_hand --compile no "
        "--backends sdpa eager tiled".split()))]
    return [row["first_loss"] for row in rows]


JOBS: dict[str, Callable[[Path, str], Any]] = {
    job.__name__: job for job in (train, by_hand, write, verbs, benchmark)}


def main(folder: Path) -> None:
    """Every job on both devices."""
    found: dict[str, dict[str, Any]] = {}
    for name, job in JOBS.items():
        for device in ("cpu", pretend.NAME):
            place = folder / name / device
            place.mkdir(parents=True)
            try:
                one = job(place, device)
            except Exception:  # to be read in the test's report
                one = traceback.format_exc(limit=-6)
            found.setdefault(name, {})[device] = one
    print(json.dumps(found))


if __name__ == "__main__":
    with pretend.Everywhere():
        main(Path(sys.argv[1]))
