"""The benchmarks: what they time, how they count, and that both sides agree.

Nothing here is timed. The harness runs on functions that move a clock by
hand, so every figure is known beforehand. Hugging Face's LLaMA with the
weights of ours must give the same logits, and both sides of each benchmark
must do the same work: the same first losses, the same text.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    dry_run, generation, harness, scaling_cpu, sentences, training)
from minillama.config import ModelConfig, TrainConfig
from minillama.model import Transformer
from minillama.weights import hf, ladder
from tests.small import MODEL, corpus

CPU = torch.device("cpu")


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float) -> Any:
        """A side that takes so long at each call, the last figure for ever.
        """
        left = list(seconds)

        def run() -> None:
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_sides_take_turns_and_swap_places() -> None:
    clock = Clock()
    harness.take_turns(
        {"a": clock.work("a", 1.0), "b": clock.work("b", 2.0)},
        turns=3, warm_up=2, clocks={"wall": clock})
    assert clock.order == ["a", "a", "b", "b", *"abbaab"]


def test_warm_up_and_the_other_side_are_not_in_the_time() -> None:
    clock = Clock()
    times = harness.take_turns(
        {"a": clock.work("a", 50.0, 1.0, 3.0), "b": clock.work("b", 9.0)},
        turns=2, warm_up=1, clocks={"wall": clock})
    assert times == {"wall": {"a": [1.0, 3.0], "b": [9.0, 9.0]}}


def test_unfinished_work_is_waited_for_within_the_time() -> None:
    clock = Clock()

    def wait() -> None:
        clock.now += 5.0

    times = harness.take_turns(
        {"a": clock.work("a", 1.0)}, turns=2, warm_up=0,
        clocks={"wall": clock}, wait=wait)
    assert times["wall"]["a"] == [6.0, 6.0]


def test_every_clock_is_read() -> None:
    wall, cpu = Clock(), Clock()

    def run() -> None:
        wall.now += 4.0
        cpu.now += 1.0

    times = harness.take_turns({"a": run}, turns=1, warm_up=0,
                               clocks={"wall": wall, "cpu": cpu})
    assert times == {"wall": {"a": [4.0]}, "cpu": {"a": [1.0]}}


def test_ratios_pair_turns_so_that_one_slow_turn_spoils_one_ratio() -> None:
    """The machine halts for both in turn 2: medians of times would lie."""
    times = {"us": [1.0, 100.0, 1.0], "them": [2.0, 300.0, 2.0]}
    assert harness.speed_ups(times, "us", "them") == [2.0, 3.0, 2.0]
    runs = [{"times": {"wall": times}}]
    assert harness.pooled(runs, "wall", "us", "them")["median"] == 2.0


def test_runs_are_pooled_by_turn_with_quartiles() -> None:
    runs = [{"times": {"wall": {"us": [1.0, 1.0], "them": [1.0, 2.0]}}},
            {"times": {"wall": {"us": [1.0] * 3, "them": [3.0, 4.0, 5.0]}}}]
    assert harness.pooled(runs, "wall", "us", "them") == {
        "median": 3.0, "low": 2.0, "high": 4.0}
    one = [{"times": {"wall": {"us": [1.0], "them": [7.0]}}}]
    assert harness.pooled(one, "wall", "us", "them") == {
        "median": 7.0, "low": 7.0, "high": 7.0}


def test_rates_are_work_over_seconds() -> None:
    runs = [{"units_per_turn": 100, "times": {"wall": {"us": [1.0, 4.0]}}},
            {"units_per_turn": 100, "times": {"wall": {"us": [2.0]}}}]
    assert harness.median_rate(runs, "us") == 50.0


def test_runs_gather_in_one_file_and_only_equal_ones_are_summed(
    tmp_path: Any,
) -> None:
    def count(runs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"row": {"runs": len(runs), "last": runs[-1]["value"]}}

    for size, value in ((8, 1.5), (4, 2.5), (8, 3.5)):
        path, summary = harness.store(
            "speed", {"settings": {"batch": size}, "value": value}, count,
            CPU, folder=tmp_path)
    assert summary == {"row": {"runs": 2, "last": 3.5}}
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["summary"] == summary
    assert [run["value"] for run in stored["runs"]] == [1.5, 2.5, 3.5]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_says_what_a_reader_needs_and_not_whose_machine_it_was(
    tmp_path: Any,
) -> None:
    import platform

    path, _ = harness.store("speed", {"settings": {}}, len, CPU,
                            folder=tmp_path)
    run = json.loads(path.read_text(encoding="utf-8"))["runs"][0]
    assert {"date", "command", "machine", "settings"} <= set(run)
    assert {"processor", "threads", "torch", "transformers"} <= set(
        run["machine"])
    text = path.read_text(encoding="utf-8") + path.name
    assert platform.node() not in text
    assert path.name.startswith("speed-")
    assert path.name.endswith(f"{torch.get_num_threads()}threads.json")


def test_a_table_lines_up() -> None:
    text = harness.table({
        "ours": {"rate": 12345.6, "x": {"median": 1.5, "low": 1, "high": 2}},
        "theirs, longer": {"rate": 7.25, "x": None}})
    assert text.splitlines() == [
        "                  rate                    x",
        "ours            12,346  1.50 (1.00 to 2.00)",
        "theirs, longer    7.25                    -"]


@pytest.mark.oracle
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_the_twin_computes_what_ours_computes(kv_heads: int | None) -> None:
    config = ModelConfig(
        dim=64, n_layers=2, n_heads=4, n_kv_heads=kv_heads, multiple_of=8,
        vocab_size=97, max_seq_len=32, norm_eps=1e-5, rope_theta=500.0)
    torch.manual_seed(3)
    ours = Transformer(config)
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    tokens = torch.randint(0, 97, (2, 32))
    with torch.no_grad():
        theirs = ladder.twin(ours).eval()(tokens).logits
        torch.testing.assert_close(ours(tokens), theirs, atol=1e-4, rtol=1e-4)


def test_the_twin_without_the_permutation_is_another_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(3)
    ours = Transformer(MODEL)
    with torch.no_grad():
        for weight in ours.parameters():
            weight.mul_(5.0)
    tokens = torch.randint(0, MODEL.vocab_size, (1, 16))
    monkeypatch.setattr(hf, "is_turned", lambda name: False)
    with torch.no_grad():
        theirs = ladder.twin(ours).eval()(tokens).logits
        assert (ours(tokens) - theirs).abs().max() > 0.01


@pytest.fixture
def base(tmp_path: Any) -> TrainConfig:
    """A run of the small model on the small text."""
    return TrainConfig(
        model=MODEL, data=corpus(tmp_path), batch_size=2, device="cpu",
        max_lr=1e-2, warmup_steps=2, steps=100)


def test_both_sides_of_training_walk_the_same_way(base: TrainConfig) -> None:
    """Same weights, batch and optimiser: the losses agree as they fall."""
    sides = training.make_sides(base, ["fp32", "bf16"])
    assert list(sides) == [training.BASELINE, "minillama, fp32",
                           "minillama, bf16", "Hugging Face, bf16"]
    ours, theirs = sides["minillama, fp32"], sides[training.BASELINE]
    mine, other = ([step() for _ in range(6)] for step in (ours, theirs))
    assert mine[-1] < mine[0] and other[-1] < other[0]


def test_unequal_sides_are_not_timed(
    base: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "their_step", lambda config: lambda: 99.0)
    with pytest.raises(RuntimeError, match="do not compute the same"):
        training.make_sides(base, ["fp32"])


def test_training_rows_hold_both_columns() -> None:
    times = {"Hugging Face, fp32": [4.0, 4.0], "minillama, bf16": [1.0, 2.0],
             "Hugging Face, bf16": [2.0, 2.0]}
    rows = training.summarise([{
        "times": {"wall": times, "cpu": times}, "units_per_turn": 100,
        "flops_per_token": 10, "peak_flops": 10_000.0}])
    assert list(rows) == ["bf16"]
    assert rows["bf16"]["wall_baseline"]["median"] == 3.0
    assert rows["bf16"]["cpu_same"]["median"] == 1.5
    assert rows["bf16"]["tokens_per_s"] == 75.0
    assert rows["bf16"]["mfu"] == pytest.approx(0.075)


def test_a_mixs_time_is_over_that_of_one_process() -> None:
    times = {name: [3.0, 9.0] for name in scaling_cpu.MIXES}
    times[scaling_cpu.ALONE] = [2.0, 3.0]
    rows = scaling_cpu.summarise([{
        "times": {"wall": times, "cpu": times}, "units_per_turn": 12}])
    assert list(rows) == [scaling_cpu.ALONE, *scaling_cpu.MIXES]
    assert rows["tensor"]["wall"] == rows["tensor"]["cpu"] == {
        "median": 2.25, "low": 1.875, "high": 2.625}
    assert rows["tensor"]["tokens_per_s"] == pytest.approx(8 / 3)
    assert rows[scaling_cpu.ALONE]["wall"]["median"] == 1.0


def test_a_dry_run_is_told_by_its_fastest_turn_and_its_most_memory() -> None:
    turns = [{"wall": w, "cpu": 9 - w, "mb": 10 * w, "messages": 7}
             for w in (3.0, 2.0)]
    assert dry_run.summarise([{"turns": turns[:1]}, {"turns": turns[1:]}]) == {
        "65B, 2,048 GPUs": {"wall": 2.0, "cpu": 6.0, "mb": 30.0,
                            "messages": 7, "turns": 2}}


def test_a_dry_run_is_measured_as_a_command() -> None:
    pytest.importorskip("resource")
    found = dry_run.measure(
        "plan --preset toy --gpus 4 --dp-shard 4 --micro-batch-size 1 "
        "--recompute full --dry-run --json")
    assert found["gpus"] == 4 and found["messages"] > 10
    assert found["mb"] > 50 and found["wall"] > 0 and found["cpu"] > 0


@pytest.mark.slow
def test_all_mixes_take_the_same_steps(base: TrainConfig) -> None:
    pytest.importorskip("ipyparallel")
    with scaling_cpu.make_sides(base) as (sides, company):
        before = company.clock()
        losses = [[step() for _ in range(3)] for step in sides.values()]
        assert company.clock() > before
    for walk in losses:
        assert walk == pytest.approx(losses[0], rel=1e-2)
        assert walk[-1] < walk[0]


def test_mixes_that_compute_something_else_are_not_timed(
    base: TrainConfig
) -> None:
    class Wrong:
        closed = False

        def __call__(self, *_: Any) -> list[tuple[float, float]]:
            return [(99.0, 1.0)] * 2

        def close(self) -> None:
            self.closed = True

    engines = Wrong()
    with pytest.raises(RuntimeError, match="do not compute the same"):
        with scaling_cpu.make_sides(base, lambda _: engines):
            pass
    assert engines.closed


@pytest.mark.parametrize("batch", [1, 3])
def test_all_sides_of_generation_write_the_same(batch: int) -> None:
    model = generation.make_model(MODEL_FOR_TEXT, CPU)
    sides = generation.make_sides(model, 20, batch)
    assert list(sides) == [generation.THEIRS, "as built", "fast"]
    texts = [write() for write in sides.values()]
    assert all(text == texts[0] for text in texts)
    assert len(texts[0]) == batch * (len(generation.PROMPT) + 20)


def test_generation_rows_count_bytes() -> None:
    """10 tokens a turn for each of 2 texts, 3 GB a token, by hand."""
    times = {generation.THEIRS: [40.0], "fast": [10.0],
             generation.READ: [2.5], generation.PRODUCTS: [5.0]}
    run = {"settings": {"preset": "x", "batch": 2}, "units_per_turn": 20,
           "weight_bytes": 3_000_000_000,
           "times": {"wall": times, "cpu": times}}
    rows = generation.summarise([run])
    row = rows["x, batch 2: fast"]
    assert row["wall"]["median"] == 4.0 and row["tokens_per_s"] == 2.0
    assert row["gb_per_s"] == pytest.approx(3.0)
    assert row["of_read"] == 0.25 and row["at_most"] == 16.0
    assert row["of_products"] == 0.5
    run["settings"]["dtype"] = "bf16"
    assert list(generation.summarise([run])) == ["x, batch 2, bf16: fast"]


def test_a_token_reads_all_but_the_embedding() -> None:
    embedding, model = 400 * 32 * 4, Transformer(MODEL_FOR_TEXT)
    whole = sum(p.nbytes for p in model.parameters())
    assert generation.weight_bytes(model) == whole - embedding
    assert generation.weight_bytes(
        model.bfloat16()) == (whole - embedding) // 2


def test_in_16_bits_another_text_is_no_fault(monkeypatch) -> None:
    """Near ties fall otherwise there; in 32 bits it stops the benchmark."""
    model, real = generation.make_model(
        MODEL_FOR_TEXT, CPU), generation.our_writer
    monkeypatch.setattr(generation, "our_writer", lambda *args: (
        lambda: [0, *real(*args)()[1:]]))
    with pytest.raises(RuntimeError, match="as built writes another text"):
        generation.make_sides(model, 3)
    assert len(generation.make_sides(model.bfloat16(), 3)) == 3


def test_the_products_alone_are_those_of_a_step() -> None:
    """Those of the model, counted by the profiler's floating-point sums."""
    model = generation.make_model(MODEL_FOR_TEXT, CPU)
    norms = sum(p.nbytes for p in model.parameters() if p.dim() == 1)
    with FlopCounterMode(display=False) as counter:
        found = generation.products(model, 3)()
    assert counter.get_total_flops() == 2 * 3 * (
        generation.weight_bytes(model) - norms) // 4
    assert [len(out) for out in found] == [3] * (
        1 + 4 * MODEL_FOR_TEXT.n_layers)


MODEL_FOR_TEXT = ModelConfig(
    dim=32, n_layers=2, n_heads=2, multiple_of=8, vocab_size=400,
    max_seq_len=64)


def test_ends_of_sentences_are_counted_without_spaces() -> None:
    """One side cuts after an abbreviation, the other does not."""
    whole = {"Mr. A came. He left.": ["Mr. A came.", "He left."],
             "One. Two.": ["One.", "Two."], "One. Two. Three.": [
                 "One.", "Two.", "Three."]}
    cut = {**whole, "Mr. A came. He left.": ["Mr.", "A came.", "He  left."]}
    found = sentences.compare([*whole], whole.get, cut.get)
    assert found == {
        "lines": 3, "punkt": 7, "nupunkt": 8, "agreement": 14 / 15,
        "lines_that_differ": 1 / 3, "judged_otherwise": 1 / 3}
