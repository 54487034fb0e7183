"""The experiments of the training chapter: fair, resumable, as committed.

Arms that are compared have the same number of parameters (within 1 %) and
see the same text; a killed run goes on where it was and ends with the result
of an undisturbed one; the committed file holds five seeds an arm, was made
with the settings of today's code, and its summary is recomputed from its
runs with numpy.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import experiments
from minillama import ablations, train
from minillama.config import ModelConfig
from tests.small import made_up_words

ROOT = Path(__file__).resolve().parent.parent
ARMS = ["llama", "post-norm"]
CHANGES: dict[str, Any] = dict(
    steps=4, warmup_steps=2, batch_size=2,
    model=ModelConfig(16, 1, 1, multiple_of=2, vocab_size=300,
                      max_seq_len=16))
COMPARED_AT_EQUAL_SIZE = {
    name: pair for name, pair in ablations.PAIRS.items()
    if name != "small, trained longer"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No network, one second."""
    return made_up_words(tmp_path_factory.mktemp("words"), 5, 400)


def outcome(results: dict[str, Any]) -> dict[str, Any]:
    """Everything but the time it took."""
    runs = [{k: v for k, v in run.items() if k != "seconds"}
            for run in results["runs"]]
    return {**results, "runs": runs}


def parameters(arm: str) -> int:
    chosen = ablations.ARMS[arm]
    config = ablations.settings(arm, 1, Path("none")).model
    model = ablations.build(chosen.kind, config, 1, chosen.init)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", COMPARED_AT_EQUAL_SIZE)
def test_compared_arms_have_equal_parameters(name: str) -> None:
    first, second = map(parameters, COMPARED_AT_EQUAL_SIZE[name])
    assert second == pytest.approx(first, rel=0.01)


@pytest.mark.parametrize("name", COMPARED_AT_EQUAL_SIZE)
def test_compared_arms_differ_in_one_choice(name: str) -> None:
    one, two = (ablations.settings(arm, 3, Path("none")).to_dict()
                for arm in COMPARED_AT_EQUAL_SIZE[name])
    allowed = {"warmup_steps"} if "no-warm-up" == (
        COMPARED_AT_EQUAL_SIZE[name][1]) else set()
    shapes = (one.pop("model"), two.pop("model"))
    assert {k for k in one if one[k] != two[k]} <= allowed
    assert {k for k in shapes[0] if shapes[0][k] != shapes[1][k]} <= {
        "ffn_dim"}


def test_the_last_pair_costs_the_same_to_train() -> None:
    spent = []
    for arm in ablations.PAIRS["small, trained longer"]:
        config = ablations.settings(arm, 1, Path("none"))
        model = ablations.build("llama", config.model)
        spent.append(ablations.costs(model, config))
    large, small = spent
    assert small["training_flops"] == pytest.approx(
        large["training_flops"], rel=0.01)
    assert small["tokens"] > 3 * large["tokens"]
    assert (small["inference_flops_per_token"]
            < large["inference_flops_per_token"] / 3)


def test_all_arms_of_a_seed_see_the_same_text(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list] = {}
    real = train.train_step

    def spy(state, batch, config):
        seen.setdefault(arm, []).append(batch.inputs.tolist())
        return real(state, batch, config)

    monkeypatch.setattr(train, "train_step", spy)
    for arm in ("llama", "no-warm-up", "relu"):
        ablations.run(arm, 2, data, **CHANGES | {"warmup_steps": 1})
    assert seen["llama"] == seen["no-warm-up"] == seen["relu"]
    assert len({str(batch) for batch in seen["llama"]}) == 4


def test_interrupted_experiments_go_on_where_they_were(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = experiments.experiments(
        tmp_path / "whole.json", data, ARMS, 2, **CHANGES)
    real, trained = ablations.run, []

    def fragile(arm, seed, *args, **kwargs):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((arm, seed))
        return real(arm, seed, *args, **kwargs)

    monkeypatch.setattr(ablations, "run", fragile)
    out = tmp_path / "cut.json"
    with pytest.raises(KeyboardInterrupt):
        experiments.experiments(out, data, ARMS, 2, **CHANGES)
    assert len(experiments.load(out)["runs"]) == 3
    trained.clear()
    again = experiments.experiments(out, data, ARMS, 2, **CHANGES)
    assert trained == [("post-norm", 2)]
    assert outcome(again) == outcome(whole)
    assert outcome(experiments.load(out)) == outcome(whole)


def test_a_killed_process_leaves_a_whole_file(
    data: Path, tmp_path: Path
) -> None:
    """kill -9 at some moment after the first result."""
    out = tmp_path / "results.json"
    script = (
        "import sys, torch; from pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        "from minillama.config import ModelConfig\n"
        "from benchmarks import experiments as e\n"
        f"e.experiments(Path({str(out)!r}), Path({str(data)!r}), "
        f"{ARMS!r}, 9, **{CHANGES!r})\n")
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT,
        stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not out.is_file() and process.poll() is None:
            assert time.monotonic() < deadline, "no result in two minutes"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    before = experiments.load(out)["runs"]
    assert 1 <= len(before)
    after = experiments.experiments(out, data, ARMS, 9, **CHANGES)
    assert after["runs"][:len(before)] == before
    pairs = [(run["arm"], run["seed"]) for run in after["runs"]]
    assert sorted(pairs) == sorted(
        (arm, seed) for arm in ARMS for seed in range(1, 10))


def test_other_settings_make_old_runs_void(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.json"
    experiments.experiments(out, data, ["llama"], 1, **CHANGES)
    second = experiments.experiments(
        out, data, ["llama"], 1, **CHANGES | {"max_lr": 1e-3})
    assert len(second["runs"]) == 1
    assert second["settings"]["llama"]["max_lr"] == 1e-3
    fresh = experiments.experiments(
        tmp_path / "fresh.json", data, ["llama"], 1,
        **CHANGES | {"max_lr": 1e-3})
    assert outcome(second) == outcome(fresh)


def test_an_arm_that_broke_down_has_no_mean() -> None:
    runs = [{"arm": arm, "seed": seed, "bits_per_byte": bits}
            for arm, values in (("llama", (2.0, 2.2, 2.4)),
                                ("post-norm", (3.0, None, 3.1)))
            for seed, bits in enumerate(values, start=1)]
    summary = experiments.summarise(runs)
    assert summary["arms"]["llama"] == {
        "finished": 3, "mean": 2.2, "sd": 0.2}
    assert summary["arms"]["post-norm"] == {
        "finished": 2, "mean": None, "sd": None}
    assert summary["pairs"] == {}
    assert "-" in experiments.table(summary)


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return ablations.results()


def test_committed_file_has_five_seeds_an_arm(
    committed: dict[str, Any]
) -> None:
    pairs = sorted((r["arm"], r["seed"]) for r in committed["runs"])
    assert pairs == sorted(
        (arm, seed) for arm in ablations.ARMS for seed in range(1, 6))
    for run in committed["runs"]:
        assert math.isfinite(sum(run["curve"]))
        assert 38 <= len(run["curve"]) <= 44
        assert 1.5 < run["bits_per_byte"] < 5
        assert run["parameters"] == parameters(run["arm"])


def test_committed_file_was_made_with_these_settings(
    committed: dict[str, Any]
) -> None:
    for arm in ablations.ARMS:
        stored = committed["settings"][arm]
        now = ablations.settings(arm, 1, Path("none")).to_dict()
        assert stored["kind"] == ablations.ARMS[arm].kind
        assert stored["init"] == ablations.ARMS[arm].init
        for name in set(stored) - {"kind", "init", "text"}:
            assert stored[name] == now[name], (arm, name)


def test_committed_summary_follows_from_its_runs(
    committed: dict[str, Any]
) -> None:
    bits = {arm: np.array([r["bits_per_byte"] for r in sorted(
        committed["runs"], key=lambda r: r["seed"]) if r["arm"] == arm])
        for arm in ablations.ARMS}
    summary = committed["summary"]
    assert summary == experiments.summarise(committed["runs"])
    assert set(summary["pairs"]) == set(ablations.PAIRS)
    for arm, values in bits.items():
        row = summary["arms"][arm]
        assert row["mean"] == pytest.approx(values.mean(), abs=1e-4)
        assert row["sd"] == pytest.approx(values.std(ddof=1), abs=1e-4)
    for name, (a, b) in ablations.PAIRS.items():
        d, row = bits[b] - bits[a], summary["pairs"][name]
        half = 2.7764 * d.std(ddof=1) / math.sqrt(5)
        assert row["mean"] == pytest.approx(d.mean(), abs=1e-4)
        assert row["high"] - row["low"] == pytest.approx(
            2 * half, abs=3e-4)


def test_post_norm_cannot_train_the_deep_model(
    committed: dict[str, Any]
) -> None:
    """Normalising the input makes it trainable, in all five seeds."""
    bits = {arm: [r["bits_per_byte"] for r in committed["runs"]
                  if r["arm"] == arm] for arm in ("deep", "deep, post-norm")}
    assert max(bits["deep"]) < min(bits["deep, post-norm"]) - 0.3


def test_swiglu_and_relu_are_told_apart_or_said_not_to_be(
    committed: dict[str, Any]
) -> None:
    """The chapter's verdict on SwiGLU is the one that the runs allow."""
    d = committed["summary"]["pairs"]["ReLU for SwiGLU"]
    verdict = ("worse" if d["low"] > 0 else
               "better" if d["high"] < 0 else "inside the spread")
    text = (ROOT / "notebooks" / "10_training.ipynb").read_text("utf-8")
    outputs = [line for cell in json.loads(text)["cells"]
               for output in cell.get("outputs", [])
               for line in "".join(output.get("text", "")).splitlines()]
    lines = [line for line in outputs if line.startswith("ReLU for SwiGLU")]
    assert len(lines) == 1 and lines[0].endswith(verdict)


def test_committed_file_is_small() -> None:
    assert experiments.OUT.stat().st_size < 60_000
    text = experiments.OUT.read_text(encoding="utf-8")
    assert json.loads(text)["versions"]["torch"]
