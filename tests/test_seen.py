"""minillama/data/seen.py: the table is a dictionary, however it is built.

Checked against Python dictionaries of sets, by properties: any splitting and
any order of the documents gives the same table, and both questions that the
pipelines ask are answered as the dictionary answers them.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data.seen import Seen

DOCUMENTS = st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=7)


def table(documents: list[tuple[int, list[int]]]) -> Seen:
    """The table of documents with these ranks and hashes."""
    return Seen.of((rank, np.array(hashes, dtype="<u8"))
                   for rank, hashes in documents)


def expected(documents: list[list[int]]) -> dict[int, set[int]]:
    """Hash to the ranks of the documents that have it."""
    found: dict[int, set[int]] = {}
    for rank, hashes in enumerate(documents):
        for value in hashes:
            found.setdefault(value, set()).add(rank)
    return dict(sorted(found.items()))


@settings(deadline=None)
@given(DOCUMENTS)
def test_equals_a_dictionary(documents):
    seen, want = table(list(enumerate(documents))), expected(documents)
    assert seen.hashes.tolist() == list(want)
    assert seen.owner.tolist() == [min(ranks) for ranks in want.values()]
    assert seen.several.tolist() == [len(r) > 1 for r in want.values()]
    asked = np.arange(14, dtype="<u8")
    assert seen.owners(asked, -7).tolist() == [
        min(want[value]) if value in want else -7 for value in range(14)]
    assert seen.repeated(asked).tolist() == [
        len(want.get(value, ())) > 1 for value in range(14)]
    assert seen.shared().hashes.tolist() == [
        value for value, ranks in want.items() if len(ranks) > 1]


@settings(deadline=None)
@given(DOCUMENTS, st.randoms(use_true_random=False), st.integers(0, 7))
def test_order_and_grouping_do_not_matter(documents, draw, cut):
    numbered = list(enumerate(documents))
    whole = table(numbered)
    draw.shuffle(numbered)
    left, right = table(numbered[:cut]), table(numbered[cut:])
    for parts in (left + right, right + left, left + right + table([])):
        for name in ("hashes", "owner", "several"):
            np.testing.assert_array_equal(
                getattr(parts, name), getattr(whole, name))


def test_a_hash_twice_in_one_document_is_in_one_document():
    assert not table([(3, [5, 5, 5])]).several.any()
    assert (table([(3, [5])]) + table([(3, [5])])).several.tolist() == [False]
    assert (table([(3, [5])]) + table([(4, [5])])).several.tolist() == [True]


def test_large_hashes_keep_their_last_bits():
    """Whole numbers of 64 bits: a float would round these two together."""
    big = 2**64 - 1
    seen = table([(0, [big, big - 1])])
    assert seen.hashes.tolist() == [big - 1, big]
    assert seen.owners(np.array([big - 2], "<u8"), 9).tolist() == [9]
