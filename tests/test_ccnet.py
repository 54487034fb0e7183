"""minillama/data/ccnet.py: CCNet's published rules, case by case.

Checked against written cases, each from the published description; against
a slow line dedup with Python sets, by properties; and, where real output of
CCNet lies beside the repository, against its own buckets.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data.ccnet import (
    Models,
    bucket,
    drop_repeated_lines,
    finish,
    line_hashes,
    normalise_for_hash,
    normalise_for_model,
)
from minillama.data.document import Document, Ledger
from minillama.data.seen import Seen
from tests.real import real_data


@pytest.mark.parametrize("line, hashed, modelled", [
    ("  Ends and CAPITALS\t", "ends and capitals", "ends and capitals"),
    ("In 1984, 7 of 10", "in 0000, 0 of 00", "in 0000, 0 of 00"),
    ("Café Zoë", "café zoë", "cafe zoe"),
    ("it\u2019s \u201cthat\u201d", "its that", "it's \"that\""),
    ("it's \"that\"", "it's \"that\"", "it's \"that\""),
    ("on\u2014and on\u2026", "onand on", "on - and on..."),
    ("ring\x07 a\x85b\x9f", "ring ab", "ring ab"),
    ("a\tb", "ab", "ab"),
    ("\uff1a\uff1f\uff01\u3002", "", ":?!."),
    # A digit of any script is a digit, the full-width one too, which CCNet's
    # table would make a quote if it were asked first.
    ("\u0663 km", "0 km", "0 km"),
    ("\uff11", "0", "0"),
    ("   ", "", ""),
])
def test_normalisation(line, hashed, modelled):
    assert normalise_for_hash(line) == hashed
    assert normalise_for_model(line) == modelled


def test_a_hash_is_the_start_of_sha1():
    """Read as a little-endian whole number, empty lines included."""
    for text, line in (("Hello, 5 worlds", "hello, 0 worlds"), ("", "")):
        start = hashlib.sha1(line.encode()).digest()[:8]
        assert line_hashes(text).tolist() == [
            int.from_bytes(start, "little")]
    assert len(line_hashes("a\n\nb\n")) == 4
    # The digest of the empty text is known to everyone.
    assert line_hashes("")[0] == int.from_bytes(
        bytes.fromhex("da39a3ee5e6b4b0d"), "little")


def cut(texts: list[str]) -> tuple[list[str | None], Ledger]:
    """Line dedup of a small corpus."""
    seen = Seen.of(enumerate(map(line_hashes, texts)))
    ledger = Ledger()
    out = [drop_repeated_lines(Document("cc", str(i), text), seen, ledger)
           for i, text in enumerate(texts)]
    return [None if d is None else d.text for d in out], ledger


def test_all_copies_go_the_first_included():
    out, ledger = cut(["Menu\nOne.\nOne.\nFooter 2020",
                       "MENU\nTwo.\nfooter 1999", "menu"])
    assert out == ["One.", "Two.", None]
    assert ledger.kept == 2
    assert ledger.dropped == {"only lines that other pages have": 1}
    assert ledger.lines == {"in several documents": 4,
                            "twice in a document": 1}


def test_line_ids_are_those_that_stayed():
    seen = Seen.of([(0, line_hashes("menu")), (1, line_hashes("menu"))])
    page = drop_repeated_lines(
        Document("cc", "a", "menu\nfirst\nmenu\nlast"), seen, Ledger())
    assert page.metadata["line_ids"] == [1, 3]
    assert page.text == "first\nlast"


LINE = st.sampled_from(["", "a", "A", "a ", "b", "c 1", "c 2", "d", "e"])


@settings(deadline=None)
@given(st.lists(st.lists(LINE, min_size=1, max_size=6), max_size=6))
def test_equals_dedup_with_sets(corpus):
    """The rule in its own words, with Counters of normalised lines."""
    normal = [[normalise_for_hash(line) for line in page] for page in corpus]
    out, ledger = cut(["\n".join(page) for page in corpus])
    for page, keys, got in zip(corpus, normal, out, strict=True):
        kept, here = [], set()
        for line, key in zip(page, keys, strict=True):
            if sum(key in other for other in normal) == 1 and (
                    key not in here):
                kept.append(line)
            here.add(key)
        assert got == ("\n".join(kept) if kept else None)
    assert ledger.seen == len(corpus)


@settings(deadline=None)
@given(st.lists(st.lists(LINE, min_size=1, max_size=6), max_size=6))
def test_a_second_time_changes_nothing(corpus):
    out, _ = cut(["\n".join(page) for page in corpus])
    left = [text for text in out if text is not None]
    assert cut(left)[0] == left


PAGE = Document("cc", "a", "Some text.")


@pytest.mark.parametrize("language, perplexity, reference, reason", [
    (("en", 0.5), 100.0, 0.25, None),
    (("en", 0.49), 100.0, 0.9, "language unclear"),
    (("de", 0.49), 100.0, 0.9, "language unclear"),
    (("de", 0.99), 100.0, 0.9, "another language"),
    (("en", 0.9), 339.9, 0.9, None),
    (("en", 0.9), 519.9, 0.9, None),
    (("en", 0.9), 520.0, 0.9, "perplexity in the tail"),
    (("en", 0.9), 100.0, 0.24, "not like a cited page"),
])
def test_who_drops_a_page(language, perplexity, reference, reason):
    ledger = Ledger()
    page = finish(PAGE, Models(lambda text: language, lambda text: perplexity,
                               lambda text: reference), ledger)
    assert (page is None) == (reason is not None)
    assert ledger.dropped == ({reason: 1} if reason else {})
    if page is not None:
        assert page.metadata["language"] == "en"
        assert page.metadata["bucket"] == (
            "head" if perplexity < 340 else "middle")


def test_a_judge_that_is_absent_is_not_asked():
    assert finish(PAGE, Models(), Ledger()) == PAGE
    page = finish(PAGE, Models(perplexity=lambda text: 1.0), Ledger())
    assert set(page.metadata) == {"perplexity", "bucket"}


def test_the_cuts_are_those_of_the_published_table():
    path = real_data("sources/commoncrawl/cc_net_cutoff.csv")
    with open(path, encoding="utf-8", newline="") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    assert Models().head_below == float(rows["30"]["en"])
    assert Models().middle_below == float(rows["60"]["en"])


def test_buckets_and_lines_of_real_output():
    """Rows that CCNet itself wrote: all of one bucket, no line twice.

    Somebody emptied lines after CCNet, so empty ones are left out.
    """
    path = real_data("sources/commoncrawl/ccnet_out_cc_en_head-0091.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 10
    for row in rows:
        known, text = row["metadata"], re.sub(r"\n+", "\n", row["text"])
        each = line_hashes(text)
        assert bucket(known["perplexity"], Models()) == known["bucket"]
        assert known["language_score"] >= 0.5
        assert len(np.unique(each)) == len(each)
