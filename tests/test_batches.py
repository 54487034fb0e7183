"""minillama/batches.py and shards.py, on shards whose ids are positions.

Token number p of a stream has the id p, so a window shows where it was cut.
Properties (hypothesis where it fits): the shuffle is a permutation; an epoch
reads every window once; targets are the inputs one step later; the mixture
is kept to within one sequence at every prefix; ranks share out the batch of
one process; a resumed order is the uninterrupted one. Then everything that
can be wrong with a folder of shards.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillama.batches import Batches, mixture, permuted
from minillama.shards import Stream, open_streams, validation_ids
from tests.small import write_shards

T = 8


def _batches(folder: Path, **overrides: int) -> Batches:
    return Batches(folder, **{
        "seq_len": T, "batch_size": 4, "seed": 1, **overrides})


def _rows(batches: Batches, steps: int) -> list[list[int]]:
    """Windows of T + 1 ids, put together from inputs and last targets."""
    rows = []
    for _ in range(steps):
        batch = next(batches)
        rows += [[*x.tolist(), int(y[-1])]
                 for x, y in zip(batch.inputs, batch.targets)]
    return rows


@given(size=st.integers(1, 700), key=st.text(max_size=8))
@settings(max_examples=60, deadline=None)
@example(size=1, key="").via("the smallest")
@example(size=256, key="1/a/0").via("a power of two")
@example(size=257, key="1/a/0").via("one more")
def test_permuted_is_a_permutation(size: int, key: str) -> None:
    """Every place is taken exactly once."""
    assert sorted(permuted(i, size, key) for i in range(size)) == list(
        range(size))


def test_permuted_shuffles() -> None:
    """Keys differ, and the mean displacement is that of a shuffle.

    For a uniform shuffle of n the mean of |p(i) - i| is (n^2 - 1) / 3n with
    a standard deviation of about n / sqrt(14 n) (it is close to normal):
    five of them either way fail a true shuffle less than once in a million.
    """
    n = 1000
    orders = [[permuted(i, n, key) for i in range(n)]
              for key in ("1/a/0", "1/a/1", "2/a/0", "1/b/0")]
    for order in orders:
        mean = sum(abs(p - i) for i, p in enumerate(order)) / n
        expected = (n * n - 1) / (3 * n)
        assert abs(mean - expected) < 5 * n / math.sqrt(14 * n)
    for i, a in enumerate(orders):
        for b in orders[:i]:
            # Two shuffles agree in one place on average (Poisson).
            assert sum(x == y for x, y in zip(a, b)) < 12


def test_permuted_needs_no_memory() -> None:
    """A position among a trillion is found at once, and is in range."""
    size = 10 ** 12
    places = {permuted(i, size, "k") for i in range(100)}
    assert len(places) == 100 and all(0 <= p < size for p in places)


def test_an_epoch_reads_every_window_once(tmp_path: Path) -> None:
    """Windows tile the stream; the next epoch cuts elsewhere."""
    length = 10 * T + 3
    folder = write_shards(tmp_path, {"a": [list(range(length))]})
    batches = _batches(folder, batch_size=10)
    starts = []
    for _ in range(3):
        rows = _rows(batches, 1)
        inputs = [p for row in rows for p in row[:-1]]
        assert len(set(inputs)) == 10 * T
        # They tile: each window begins where another ended, except that
        # the three tokens left over make one gap.
        firsts = {row[0] for row in rows}
        assert sum((row[-2] + 1) % length in firsts for row in rows) == 9
        starts.append(min(row[0] % T for row in rows))
        assert batches.epochs() == {"a": pytest.approx(len(starts))}
    orders = _rows(_batches(folder, batch_size=10), 3)
    assert orders[:10] != orders[10:20] and len(set(starts)) > 1


def test_targets_are_the_inputs_one_step_later(tmp_path: Path) -> None:
    """Also where a window runs over the end of the stream."""
    length = 5 * T
    folder = write_shards(tmp_path, {"a": [list(range(length))]})
    batches = _batches(folder, batch_size=5)
    wrapped = False
    for _ in range(8):
        batch = next(batches)
        assert batch.inputs.shape == batch.targets.shape == (5, T)
        assert (batch.targets == (batch.inputs + 1) % length).all()
        wrapped |= bool((batch.targets < batch.inputs).any())
    assert wrapped, "no window ran over the end: the test proves nothing"


def test_another_seed_gives_another_order(tmp_path: Path) -> None:
    """The same seed gives the same, in two objects."""
    folder = write_shards(tmp_path, {"a": [list(range(400))]})
    a, b, c = (_rows(_batches(folder, seed=s), 4) for s in (1, 1, 2))
    assert a == b != c


@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=9))
@settings(max_examples=100, deadline=None)
@example(weights=[67, 15, 4.5, 4.5, 4.5, 2.5, 2]).via("Table 1")
@example(weights=[1, 1]).via("ties")
@example(weights=[150, 20, 3, 150, 150]).via("largest deficit fails")
def test_mixture_is_kept_at_every_prefix(weights: list[float]) -> None:
    """|count - share * n| < 1 for every source and every n up to 400."""
    batches = object.__new__(Batches)
    total = sum(weights)
    batches.shares = {str(i): w / total for i, w in enumerate(weights)}
    batches.counts = dict.fromkeys(batches.shares, 0)
    for n in range(1, 401):
        batches.counts[batches._next_source()] += 1
        for name, share in batches.shares.items():
            assert abs(batches.counts[name] - share * n) < 1


def test_mixture_of_real_batches(tmp_path: Path) -> None:
    """Weights in the index become shares of the sequences trained on."""
    folder = write_shards(
        tmp_path,
        {"a": [list(range(100))], "b": [list(range(1000, 1900))],
         "never": [list(range(2000, 2100))]},
        {"a": 3.0, "b": 1.0, "never": 0.0})
    assert mixture(folder, ["a", "b", "never"]) == {
        "a": 0.75, "b": 0.25, "never": 0.0}
    rows = _rows(_batches(folder, batch_size=8), 10)
    from_a = [row[0] < 1000 for row in rows]
    assert sum(from_a) == 60 and max(max(row) for row in rows) < 2000
    for n in range(1, 81):
        assert abs(sum(from_a[:n]) - 0.75 * n) < 1


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_out_the_batch(tmp_path: Path, world_size: int) -> None:
    """Disjoint, and together what one process would have read."""
    folder = write_shards(tmp_path, {
        "a": [list(range(500))], "b": [list(range(1000, 1700))]})
    alone = _batches(folder, batch_size=6)
    ranks = [_batches(folder, batch_size=6, rank=r, world_size=world_size)
             for r in range(world_size)]
    for step in range(5):
        whole = next(alone)
        parts = [next(r) for r in ranks]
        assert whole.first_sample == 6 * step
        assert {p.first_sample for p in parts} == {6 * step}
        rows = [row for p in parts for row in p.inputs.tolist()]
        assert len(rows) == 6
        assert sorted(rows) == sorted(whole.inputs.tolist())


def test_resume_equals_the_uninterrupted_order(tmp_path: Path) -> None:
    """Through JSON, at any point, with any number of ranks."""
    folder = write_shards(tmp_path, {
        "a": [list(range(300))], "b": [list(range(1000, 1200))]})
    whole = _rows(_batches(folder, batch_size=6), 12)
    for stop, before, after in ((1, 1, 1), (5, 3, 1), (7, 1, 2), (11, 2, 6)):
        first = [_batches(folder, batch_size=6, rank=r, world_size=before)
                 for r in range(before)]
        for _ in range(stop):
            states = [(next(b), b.state_dict())[1] for b in first]
        assert all(state == states[0] for state in states)
        state = json.loads(json.dumps(states[0]))
        second = [_batches(folder, batch_size=6, rank=r, world_size=after)
                  for r in range(after)]
        for batches in second:
            batches.load_state_dict(state)
        for step in range(stop, 12):
            rows = [row for b in second for row in _rows(b, 1)]
            assert sorted(rows) == sorted(whole[6 * step:6 * step + 6])


def test_state_is_a_copy(tmp_path: Path) -> None:
    """A state that was taken does not move on with its iterator."""
    batches = _batches(write_shards(tmp_path, {"a": [list(range(99))]}))
    state = batches.state_dict()
    next(batches)
    assert state["counts"] == {"a": 0}
    again = _batches(tmp_path)
    again.load_state_dict(state)
    next(again)
    assert state["counts"] == {"a": 0}


def test_resume_refuses_another_order(tmp_path: Path) -> None:
    """Other seed, window, sources or length of a source."""
    folder = write_shards(tmp_path / "one", {"a": [list(range(300))]})
    state = _batches(folder).state_dict()
    longer = write_shards(tmp_path / "two", {"a": [list(range(301))]})
    other = write_shards(tmp_path / "three", {"b": [list(range(300))]})
    for batches, named in (
            (_batches(folder, seed=2), "seed=1.*2"),
            (_batches(folder, seq_len=T + 1), "seq_len=8.*9"),
            (_batches(longer), "tokens=.*300.*301"),
            (_batches(other), "'a'.*'b'")):
        with pytest.raises(ValueError, match=named):
            batches.load_state_dict(state)


@given(cuts=st.lists(st.integers(0, 60), max_size=5),
       start=st.integers(0, 200), length=st.integers(1, 150))
@settings(max_examples=60, deadline=None)
def test_shard_boundaries_are_invisible(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], start: int,
    length: int,
) -> None:
    """Any cut into files, empty ones too, reads like one array."""
    edges = [0, *sorted(cuts), 60]
    shards = [list(range(a, b)) for a, b in zip(edges, edges[1:])]
    folder = write_shards(tmp_path_factory.mktemp("s"), {"a": shards})
    stream = open_streams(folder, "train")["a"]
    expected = np.take(np.arange(60), range(start, start + length),
                       mode="wrap")
    assert len(stream) == 60
    assert stream.read(start, length).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype, top", [
    ("uint16", 65_535), ("uint32", 70_000)])
def test_ids_of_both_widths(tmp_path: Path, dtype: str, top: int) -> None:
    """The largest id survives: nothing is read as signed."""
    folder = write_shards(
        tmp_path, {"a": [[0, top, 1, 2]]}, dtype=dtype, vocab_size=top + 1)
    ids = open_streams(folder, "train")["a"].read(0, 4)
    assert ids.tolist() == [0, top, 1, 2] and ids.dtype == np.int64


def test_sources_without_tokens_are_left_out(tmp_path: Path) -> None:
    """A source may have text in one split only."""
    folder = write_shards(tmp_path, {"a": [list(range(50))], "b": [[]]})
    assert set(open_streams(folder, "train")) == {"a"}
    assert open_streams(folder, "validation") == {}
    assert validation_ids(folder).tolist() == []
    assert _batches(folder).shares == {"a": 1.0}


def _spoil(folder: Path, **changes: object) -> None:
    path = folder / "index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**index, **changes}), encoding="utf-8")


def test_wrong_index_is_refused(tmp_path: Path) -> None:
    """None, not JSON, not a table, another version."""
    with pytest.raises(ValueError, match="no index.json.*make one with"):
        _batches(tmp_path)
    write_shards(tmp_path, {"a": [list(range(50))]})
    _spoil(tmp_path, version=2)
    with pytest.raises(ValueError, match="version 2, this package reads"):
        _batches(tmp_path)
    for text in (b"", b'{"version": 1', b"\xff\xfe"):
        (tmp_path / "index.json").write_bytes(text)
        with pytest.raises(ValueError, match="damaged.*prepare the data"):
            _batches(tmp_path)
    (tmp_path / "index.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match="version None"):
        _batches(tmp_path)


def test_short_source_is_refused(tmp_path: Path) -> None:
    """It takes T + 1 tokens to make one window; the message says so."""
    write_shards(tmp_path, {"long": [list(range(50))], "b": [list(range(T))]})
    with pytest.raises(ValueError, match="'b' has 8 .*takes 9.*max_seq_len"):
        _batches(tmp_path)
    write_shards(tmp_path, {"b": [list(range(T + 1))]})
    assert _rows(_batches(tmp_path), 1)


@pytest.mark.parametrize("weights", [
    {"a": 0.0, "b": 0.0}, {"a": -1.0, "b": 2.0}, {"a": float("nan")}])
def test_impossible_weights_are_refused(tmp_path: Path, weights: dict) -> None:
    """All zero, negative, not a number."""
    shards = [list(range(50))]
    write_shards(tmp_path, {"a": shards, "b": shards}, weights)
    with pytest.raises(ValueError, match="weights.*at least 0"):
        _batches(tmp_path)


def test_no_text_at_all_is_refused(tmp_path: Path) -> None:
    """An index whose sources are all empty."""
    write_shards(tmp_path, {"a": [[]]})
    with pytest.raises(ValueError, match="no training text"):
        _batches(tmp_path)


def test_indivisible_batch_is_refused(tmp_path: Path) -> None:
    """With the next size that would work."""
    write_shards(tmp_path, {"a": [list(range(50))]})
    with pytest.raises(ValueError, match="batch_size=4 .* 3 .*try 6"):
        _batches(tmp_path, world_size=3)


@pytest.mark.parametrize("damage", ["missing", "shorter", "odd", "longer"])
def test_damaged_shard_is_refused(tmp_path: Path, damage: str) -> None:
    """The file is named, before any step is taken."""
    write_shards(tmp_path, {"a": [list(range(50)), list(range(50, 99))]})
    path = tmp_path / "shards" / "a-train-00001.bin"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"shorter": whole[:-2], "odd": whole[:-1],
                          "longer": whole + b"\0\0"}[damage])
    with pytest.raises(ValueError, match="a-train-00001.bin.*49 tokens of 2"):
        _batches(tmp_path)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    """A flipped high bit is found when it is read, with its shard."""
    folder = write_shards(
        tmp_path, {"a": [[1, 2, 3], [4, 500, 5]]}, vocab_size=500)
    stream = open_streams(folder, "train")["a"]
    assert stream.read(0, 4).tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="a-train-00001.bin.*id 500.*499"):
        stream.read(0, 6)


def test_streams_take_only_what_the_index_lists(tmp_path: Path) -> None:
    """A Stream of no shards is empty, whatever lies in the folder."""
    write_shards(tmp_path, {"a": [list(range(50))]})
    assert len(Stream(tmp_path, [], "uint16", 10)) == 0
