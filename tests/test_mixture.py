"""minillama/data/mixture.py: Table 1, and what a run really takes.

The table is held against figures typed here from the paper. What is sampled
is counted in the batches themselves: ten million tokens by sequences of
2,048, on shards whose ids say where they were cut.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from minillama.batches import Batches
from minillama.data.mixture import (
    OWN_PERCENT,
    TABLE_1,
    percentages,
    sampled,
)
from tests.small import write_shards

PAPER = """commoncrawl 67.0 1.10 3.3e12
c4 15.0 1.06 783e9
github 4.5 0.64 328e9
wikipedia 4.5 2.45 83e9
books 4.5 2.23 85e9
arxiv 2.5 1.06 92e9
stackexchange 2.0 1.03 78e9"""
T = 2048
LENGTHS = {"commoncrawl": 60_000, "c4": 40_000, "github": 60_000,
           "wikipedia": 4_200, "books": 9_000, "arxiv": 30_000,
           "stackexchange": 60_000}


def test_table_1_is_the_papers():
    rows = [line.split() for line in PAPER.splitlines()]
    assert {name: tuple(map(float, values)) for name, *values in rows} == (
        {name: tuple(map(float, row)) for name, row in TABLE_1.items()})
    assert sum(row[0] for row in TABLE_1.values()) == 100
    assert sum(row[2] for row in TABLE_1.values()) == 4.749e12


def test_epochs_follow_from_tokens_and_percentages():
    """Unique tokens are 1.4T times share over epochs: 1.26T of them."""
    unique = {name: round(1.4e12 * percent / 100 / epochs)
              for name, (percent, epochs, _) in TABLE_1.items()}
    assert sum(unique.values()) == pytest.approx(1.263e12, rel=1e-3)
    taken = sampled(unique, percentages(list(TABLE_1)), 1.4e12)
    for name, (percent, epochs, _) in TABLE_1.items():
        assert taken[name]["percent"] == pytest.approx(percent)
        assert taken[name]["epochs"] == pytest.approx(epochs)
        assert taken[name]["tokens"] == pytest.approx(1.4e10 * percent)
    # The runs on 1T tokens have the same proportions and fewer epochs.
    fewer = sampled(unique, percentages(list(TABLE_1)), 1e12)
    assert fewer["wikipedia"]["epochs"] == pytest.approx(1.75)


def test_missing_and_empty_sources_leave_their_share_to_the_others():
    taken = sampled({"books": 10, "arxiv": 0, "own": 40},
                    {"books": 4.5, "arxiv": 2.5, "own": 13.5}, 100.0)
    assert taken["arxiv"] == {"percent": 0, "tokens": 0, "epochs": 0}
    assert taken["books"] == {"percent": 25, "tokens": 25, "epochs": 2.5}
    assert taken["own"]["epochs"] == 75 / 40


def test_the_readers_weights_win():
    assert percentages(["c4", "own"]) == {"c4": 15, "own": OWN_PERCENT}
    assert percentages(["c4", "own"], {"own": 85.0}) == {"c4": 15, "own": 85}
    for changed in ({"books": 1.0}, {"own": -1.0}, {"own": float("nan")}):
        with pytest.raises(ValueError, match="weight .*c4, own"):
            percentages(["c4", "own"], changed)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Seven sources with Table 1's weights; small ones run out early."""
    return write_shards(
        tmp_path_factory.mktemp("shards"),
        {name: [list(range(length))] for name, length in LENGTHS.items()},
        weights=percentages(list(LENGTHS)), vocab_size=65_000)


def test_ten_million_tokens_hit_every_target(shards):
    """Within 0.1 percentage points; random draws miss by six times that."""
    batches = Batches(shards, seq_len=T, batch_size=8, seed=1)
    while batches.samples * T < 10_000_000:
        next(batches)
    for name, count in batches.counts.items():
        share = 100 * count / batches.samples
        assert abs(share - TABLE_1[name][0]) < 0.1, name
    # The one behind stats: what a run of so many tokens takes.
    taken = sampled(LENGTHS, percentages(list(LENGTHS)),
                    float(batches.samples * T))
    for name, epochs in batches.epochs().items():
        windows = LENGTHS[name] // T * T / LENGTHS[name]
        assert epochs == pytest.approx(
            taken[name]["epochs"] / windows, rel=0.01)


def test_a_source_that_runs_out_starts_its_next_epoch(shards):
    """Wikipedia has two windows: each epoch reads both, cut elsewhere."""
    batches = Batches(shards, seq_len=T, batch_size=4, seed=1)
    starts = []
    real = batches._window

    def spy(name: str, count: int):
        window = real(name, count)
        if name == "wikipedia":
            starts.append(int(window[0]))
        return window

    batches._window = spy
    while len(starts) < 8:
        next(batches)
    epochs = [sorted(starts[i:i + 2]) for i in range(0, 8, 2)]
    assert all(abs(b - a) in (T, LENGTHS["wikipedia"] - T)
               for a, b in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert batches.epochs()["wikipedia"] >= 4


def test_ranks_share_the_mixture_out_and_a_resumed_run_goes_on(shards):
    def rows(batches: Batches, steps: int) -> list[list[int]]:
        return [row.tolist() for _ in range(steps)
                for row in next(batches).inputs]

    one = rows(Batches(shards, seq_len=64, batch_size=6, seed=3), 20)
    ranks = [Batches(shards, seq_len=64, batch_size=6, seed=3, rank=rank,
                     world_size=3) for rank in range(3)]
    first = [rows(batches, 12) for batches in ranks]
    again = [Batches(shards, seq_len=64, batch_size=6, seed=3, rank=rank,
                     world_size=2) for rank in range(2)]
    for batches in again:  # go on with two processes instead of three
        batches.load_state_dict(ranks[0].state_dict())
    last = [rows(batches, 8) for batches in again]
    dealt = [first[i % 3][i // 3] for i in range(72)]
    dealt += [last[i % 2][i // 2] for i in range(48)]
    assert dealt == one
