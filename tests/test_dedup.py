"""minillama/data/dedup.py: what counts as the same text, and who stays.

Oracles: sets of word tuples counted in plain Python for shingles and
overlap, datasketch for MinHash and its candidates, the closed formula of the
S-curve, and a greedy search over all pairs. Properties: nothing depends on
the order of records, on files, or on how many parts the hashes are cut into.
"""

from __future__ import annotations

import itertools
import random
import re
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data import dedup

WORDS = ["rain", "Fox", "12", "straße", "МИР", "a_b", "naïve", "下雨"]
TEXTS = st.lists(st.tuples(
    st.sampled_from(WORDS),
    st.sampled_from([" ", ", ", "\n\n", " — ", "."])),
    max_size=60).map(lambda pairs: "".join(w + gap for w, gap in pairs))


def runs(text: str, words: int = 5) -> set[tuple[str, ...]]:
    """Runs of words as they are, not as hashes."""
    found = re.findall(r"\w+", text.lower())
    words = min(words, len(found)) or 1
    return set(zip(*(found[i:] for i in range(words))))


def texts_of_similarity(
    draw: random.Random, similarity: float, size: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of hashes with |A and B| / |A or B| nearly so large."""
    common = round(2 * size * similarity / (1 + similarity))
    values = np.array([draw.getrandbits(64) for _ in range(2 * size - common)],
                      np.uint64)
    return np.sort(values[:size]), np.sort(values[size - common:])


@given(TEXTS, st.integers(1, 6))
def test_shingles_are_the_runs_of_words(text, words):
    found = dedup.shingles(text, words)
    assert len(found) == len(runs(text, words))
    assert (np.diff(found.astype(object)) > 0).all()


@given(TEXTS, TEXTS)
def test_overlap_is_counted_as_in_plain_python(one, two):
    a, b = runs(one), runs(two)
    # Short texts are one run of their own length, with another hash.
    wanted = len(a & b) / max(len(a), len(b), 1)
    assert dedup.overlap(dedup.shingles(one), dedup.shingles(two)) == (
        pytest.approx(wanted))


def test_what_is_between_words_does_not_count():
    one = dedup.shingles("The  fox, it\nis said: sleeps (well).")
    two = dedup.shingles("the fox it is SAID sleeps well")
    assert one.tolist() == two.tolist() and len(one) == 3
    assert len(dedup.shingles(" ... \n")) == 0


@pytest.mark.parametrize("letters", ["abc", "aЖ雨"])
def test_long_texts_are_cut_where_it_does_not_show(monkeypatch, letters):
    draw = random.Random(3)
    text = " ".join("".join(draw.choices(letters, k=draw.randint(1, 9)))
                    for _ in range(3000))
    whole = dedup.shingles(text)
    for chunk in (1, 50, 1000):
        monkeypatch.setattr(dedup, "_CHUNK", chunk)
        assert dedup.shingles(text).tolist() == whole.tolist()


@pytest.mark.parametrize("similarity", [0.1, 0.5, 0.81, 0.95])
def test_signatures_estimate_the_similarity(similarity):
    """Mean of 60 x 128 places, within 4.5 standard deviations.

    A right signature fails with probability 7e-6 a case. The 128 places of
    one pair are no independent draws of 128 coins, hence the sets are many.
    """
    draw = random.Random(1)
    agree = [(dedup.signature(a) == dedup.signature(b)).mean()
             for a, b in (texts_of_similarity(draw, similarity)
                          for _ in range(60))]
    error = np.sqrt(similarity * (1 - similarity) / (128 * 60))
    assert abs(np.mean(agree) - similarity) < 4.5 * error + 1e-3
    # Each estimate spreads as 128 coins would.
    assert 0.6 < np.std(agree) / (error * np.sqrt(60)) < 1.4


def test_signatures_in_pieces_are_the_same():
    draw = random.Random(2)
    hashes = np.array([draw.getrandbits(64) for _ in range(5000)], np.uint64)
    parts = [dedup.signature(part) for part in np.split(hashes, [7, 2500])]
    assert dedup.signature(hashes).tolist() == (
        np.minimum.reduce(parts).tolist())


@pytest.mark.parametrize("similarity", [0.3, 0.42, 0.6, 0.81])
def test_candidates_follow_the_s_curve(similarity):
    """200 pairs against 1 - (1 - s^4)^32; 4.5 sigma, 1e-5 to fail."""
    draw = random.Random(4)
    found = 0
    for _ in range(200):
        a, b = texts_of_similarity(draw, similarity, 200)
        keys = [set(dedup.band_keys(dedup.signature(x))) for x in (a, b)]
        found += bool(keys[0] & keys[1])
    expected = 1 - (1 - similarity**4)**32
    sigma = max(np.sqrt(expected * (1 - expected) / 200), 0.005)
    assert abs(found / 200 - expected) < 4.5 * sigma


@pytest.mark.oracle
def test_candidates_are_datasketchs():
    """Clear pairs are found by both, clear strangers by neither."""
    datasketch = pytest.importorskip("datasketch")
    draw = random.Random(5)
    vocabulary = [f"word{i}" for i in range(500)]
    texts = []
    for _ in range(12):
        words = draw.choices(vocabulary, k=300)
        texts.append(" ".join(words))
        for place in draw.sample(range(300), 4):
            words[place] = "changed"
        texts.append(" ".join(words))
    table = datasketch.MinHashLSH(num_perm=128, params=(32, 4))
    theirs, ours = set(), {}
    sketches = []
    for number, text in enumerate(texts):
        sketch = datasketch.MinHash(num_perm=128)
        sketch.update_batch([" ".join(r).encode() for r in runs(text)])
        table.insert(number, sketch)
        sketches.append(sketch)
        for key in dedup.band_keys(dedup.signature(dedup.shingles(text))):
            ours.setdefault(key, set()).add(number)
    for number, sketch in enumerate(sketches):
        theirs |= {tuple(sorted((number, other)))
                   for other in table.query(sketch) if other != number}
    found = {pair for group in ours.values()
             for pair in itertools.combinations(sorted(group), 2)}
    assert found == theirs == {(i, i + 1) for i in range(0, 24, 2)}
    # And the estimates of both are near the truth.
    for i in range(0, 24, 2):
        a, b = runs(texts[i]), runs(texts[i + 1])
        truth = len(a & b) / len(a | b)
        mine = np.mean(dedup.signature(dedup.shingles(texts[i]))
                       == dedup.signature(dedup.shingles(texts[i + 1])))
        assert abs(mine - truth) < 0.16
        assert abs(sketches[i].jaccard(sketches[i + 1]) - truth) < 0.16


def test_bands_have_to_divide():
    signature = dedup.signature(dedup.shingles("a b c"))
    with pytest.raises(ValueError, match="bands=5.*try 32"):
        dedup.band_keys(signature, 5)
    assert len(set(dedup.band_keys(signature, 16))) == 16


def test_equal_texts_have_equal_keys_and_others_do_not():
    texts = ["", "a", "a ", "A", "a\n", "ä", "\ud800"]
    keys = [dedup.text_key(text) for text in texts]
    assert len(set(keys)) == len(texts)
    assert all(len(key) == dedup.KEY_DIGITS for key in keys)
    assert dedup.text_key("a") == keys[1]


RECORDS = st.lists(st.tuples(
    st.sampled_from(["0a", "1b", "ff", "0a0b0c0d"]),
    st.sampled_from(["books\tb", "arxiv\tz", "books\ta", "books\ta10",
                     "books\ta9"])), max_size=30)


@settings(max_examples=50, deadline=None)
@given(RECORDS, st.randoms(), st.sampled_from([1, 3, 16]),
       st.sampled_from([20, 2**25]))
def test_groups_do_not_depend_on_order_files_or_parts(
    tmp_path_factory, records, draw, parts, turn_bytes
):
    wanted = {}
    for key, rest in records:
        wanted.setdefault(key, []).append(rest.split("\t"))
    wanted = {k: sorted(v) for k, v in wanted.items() if len(v) > 1}
    folder = tmp_path_factory.mktemp("groups")
    draw.shuffle(records)
    cut = draw.randint(0, len(records))
    dedup.scatter(folder, "one", records[:cut], parts)
    dedup.scatter(folder, "two", records[cut:], parts)
    with mock.patch.object(dedup, "_TURN_BYTES", turn_bytes):
        found = {key: same for part in range(parts)
                 for key, same in dedup.groups(folder, part)}
    assert found == wanted


def test_scattering_again_replaces_and_buffers_do_not_show(
    tmp_path, monkeypatch
):
    records = [(f"{i % 7:02x}", f"books\t{i:03d}") for i in range(100)]
    dedup.scatter(tmp_path / "a", "u", [("00", "books\told")] * 3, 4)
    dedup.scatter(tmp_path / "a", "u", records, 4)
    monkeypatch.setattr(dedup, "_BUFFER", 9)
    dedup.scatter(tmp_path / "b", "u", records, 4)
    for part in range(4):
        assert list(dedup.groups(tmp_path / "a", part)) == (
            list(dedup.groups(tmp_path / "b", part)))


def fields(name: str) -> list[str]:
    """A text as it stands in a record."""
    return ["books", name, "books-000000", name]


def test_a_chain_loses_every_second_link():
    """a is like b, b like c, c like d; a and c are strangers."""
    links = [(fields(x), fields(y)) for x, y in ("ab", "bc", "cd")]
    dropped = dedup.overlapping(links, lambda a, b: 1.0, 0.9)
    assert [text[1] for text in dropped] == ["b", "d"]


@settings(deadline=None)
@given(st.randoms(), st.integers(2, 9))
def test_who_stays_does_not_depend_on_the_order(draw, count):
    names = "abcdefghi"[:count]
    share = {frozenset(pair): draw.choice([0.2, 0.9, 0.91, 1.0])
             for pair in itertools.combinations(names, 2)}
    candidates = [(fields(x), fields(y))
                  for x, y in itertools.combinations(names, 2)]
    wanted = []
    for y in names:  # a greedy search over all pairs
        if any(share[frozenset((x, y))] > 0.9 and x not in wanted
               for x in names if x < y):
            wanted.append(y)
    draw.shuffle(candidates)
    found = dedup.overlapping(
        candidates + candidates[:2],
        lambda a, b: share[frozenset((a[1], b[1]))], 0.9)
    assert [text[1] for text in found] == wanted


def test_a_story_does_not_take_its_anthology_along():
    story = " ".join(f"s{i}" for i in range(100))
    rest = " ".join(f"r{i}" for i in range(900))
    assert dedup.overlap(dedup.shingles(story),
                         dedup.shingles(f"{story} {rest}")) < 0.11


def test_one_band_full_of_spam_stays_bounded():
    same = [fields(f"{i:04d}") for i in range(2000)]
    assert sum(1 for _ in dedup.pairs(same)) < 2000 * 51
    assert sum(1 for _ in dedup.pairs(same[:4])) == 6
