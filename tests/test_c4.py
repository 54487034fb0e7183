"""minillama/data/c4.py: the rules of the code that built C4, in its order.

Checked against written cases on both sides of every threshold; against the
filter of datatrove where the two agree (it counts five sentences and three
words, the numbers swapped); against a slow span dedup with dictionaries; and
against real rows of C4, which the rules must leave as they are.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data import c4
from minillama.data.c4 import (
    Rules,
    bad_words,
    drop_repeated_spans,
    finish,
    inputs,
    line_reason,
    read,
    sentence_splitter,
    span_hashes,
)
from minillama.data.document import Document, Ledger
from minillama.data.seen import Seen
from tests import crawl
from tests.real import real_data

FILLER = " ".join(("Lorem", "ipsum"))


def by_marks(text: str) -> list[str]:
    """Sentences for tests: up to each period and the space behind it."""
    return [part.strip() for part in re.findall(r"[^.]+\.?", text)]


PLAIN = Rules(by_marks)
GOOD = "\n".join(f"Here is sentence number {n}." for n in ("one", "two", "x"))


def clean(text: str, rules: Rules = PLAIN) -> tuple[str | None, Ledger]:
    """A page through the rules."""
    ledger = Ledger()
    page = finish(Document("c4", "a", text), rules, ledger)
    assert ledger.seen == 1
    return (None if page is None else page.text), ledger


@pytest.mark.parametrize("line, reason", [
    ("This line has five words.", None),
    ("Only four words here.", "under 5 words"),
    ('He said "come in and sit"', None),
    ("Is this not a question?", None), ("What a fine day today!", None),
    ("And then it just stopped ...", "no end mark"),
    ("And then it just stopped...", "no end mark"),
    ("Home | Products | About | Contact us", "no end mark"),
    ("one two three four five;", "no end mark"),
    ("The end is near here.[12]", None),
    ("The end is near here.[citation needed]", None),
    ("Three words left [12].", "under 5 words"),
    ("Please enable JavaScript to see this.", "javascript"),
    ("Read our Privacy Policy before use.", "policy"),
    ("This site uses cookies for you.", "policy"),
    (f"Here is some {FILLER} for you.", "filler text"),
    ("if (a) { return all of it; } end.", "curly bracket"),
    # Too long a word saves the page from its bracket.
    ("{" + "x" * 1001 + " and some more words.", "word too long"),
    ("{" + "x" * 999 + " and some more words.", "curly bracket"),
    # A bracket in a line that goes anyway condemns nobody.
    ("function f() {", "no end mark"), ("{ Too short.", "under 5 words"),
    (f"{FILLER} javascript is in here.", "filler text"),
    ("Some javascript { and a bracket here.", "javascript"),
    ("The cookie policy { has a bracket too.", "curly bracket"),
])
def test_a_line(line, reason):
    assert line_reason(line) == reason


def test_three_sentences_are_enough():
    assert clean(GOOD)[0] == GOOD
    two = "\n".join(GOOD.split("\n")[:2])
    assert clean(two)[0] is None
    assert clean(two)[1].dropped == {"under 3 sentences": 1}
    one_line = "This is the first one. So is this. And this as well."
    assert clean(one_line)[0] == one_line


def test_lines_go_and_are_counted_only_if_the_page_stays():
    text, ledger = clean(
        f"Menu\n  {GOOD}  \n\nWe use cookies on this page.\nA[3] b c d e.")
    assert text == f"{GOOD}\nA b c d e."
    assert ledger.lines == {"no end mark": 1, "policy": 1}
    text, ledger = clean(f"Menu\n{GOOD}\nAll of this is {{ a bracket.")
    assert text is None
    assert ledger.dropped == {"curly bracket": 1} and not ledger.lines


def test_language_comes_first():
    text, ledger = clean("{ x", Rules(by_marks, lambda text: ("de", 0.9)))
    assert ledger.dropped == {"another language": 1}
    assert clean(GOOD, Rules(by_marks, lambda text: ("en", 0.49)))[
        1].dropped == {"language unclear": 1}
    assert clean(GOOD, Rules(by_marks, lambda text: ("en", 0.5)))[0] == GOOD


def test_bad_words(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("Snark\n\nred cap\n(x)\n", encoding="utf-8")
    rules = Rules(by_marks, bad_words=bad_words(path))
    for word, drop in (("snark", True), ("SNARK", True), ("Red Cap", True),
                       ("snarks", False), ("infrared capsule", False),
                       ("(x)", True), ("x", False)):
        ledger = clean(f"{GOOD}\nAll of this is {word}.", rules)[1]
        assert ledger.dropped == ({"bad word": 1} if drop else {}), word
    # Only what is left of the page is read.
    assert clean(f"{GOOD}\nsnark", rules)[0] == GOOD
    path.write_text("\n \n", encoding="utf-8")
    with pytest.raises(ValueError, match="names no word"):
        bad_words(path)


LINES = st.lists(st.sampled_from([
    "Here we have a sentence.", "A second sentence is here.", "Menu",
    "The third one is here, too.", "Ask for it [1] at the door.",
    "A tail of { brackets without end", "We use cookies in this house."]),
    max_size=9)


@settings(deadline=None)
@given(LINES)
def test_a_cleaned_page_is_clean(lines):
    text = clean("\n".join(lines))[0]
    assert text is None or clean(text)[0] == text


@pytest.mark.oracle
@settings(deadline=None)
@given(LINES)
def test_equals_datatrove_with_the_numbers_set_right(lines):
    """Its filter, told to count three sentences and five words."""
    from datatrove.data import Document as Page
    from datatrove.pipeline.filters import c4_filters

    theirs = c4_filters.C4QualityFilter(
        min_num_sentences=3, min_words_per_line=5)
    page = Page("\n".join(lines), "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c4_filters, "split_into_sentences",
                      lambda text, language: by_marks(text))
        kept = theirs.filter(page) is True
    ours = clean("\n".join(lines))[0]
    assert (ours is not None) == kept
    if kept:
        assert ours == page.text


def dedup(texts: list[str]) -> tuple[list[str | None], Ledger]:
    """Span dedup of a small corpus."""
    seen = Seen.of((rank, span_hashes(text, by_marks))
                   for rank, text in enumerate(texts))
    ledger = Ledger()
    out = [drop_repeated_spans(Document("c4", str(i), text), i, seen.shared(),
                               by_marks, ledger)
           for i, text in enumerate(texts)]
    return [None if page is None else page.text for page in out], ledger


def test_the_first_document_keeps_a_span():
    first = "One. Two. Three. Four."
    second = "Alpha. Beta.\nOne. Two. Three. Gamma."
    out, ledger = dedup([first, second, "Two. Three. Alpha. Beta."])
    assert out == [first, "Alpha. Beta.\nGamma.", "Two. Three. Alpha. Beta."]
    assert ledger.lines == {"sentence of a repeated span": 3}
    assert ledger.kept == 3
    assert dedup([second, first])[0] == [second, None]


def test_two_sentences_in_common_are_no_span():
    texts = ["One. Two. Three.", "One. Two. Four."]
    assert dedup(texts)[0] == texts


def test_a_page_that_repeats_itself():
    out, ledger = dedup(["One. Two. Three. one. TWO. Three. Four."])
    assert out == ["One. Two. Three. Four."]
    assert dedup(["Buy. Buy. Buy. Buy. Buy. Buy."])[0] == [None]


SENTENCES = st.lists(st.sampled_from(["A.", "B.", "C.", "D."]),
                     min_size=3, max_size=7)


@settings(deadline=None)
@given(st.lists(SENTENCES, max_size=5))
def test_equals_span_dedup_with_a_dictionary(pages):
    texts = [" ".join(page) for page in pages]
    out, _ = dedup(texts)
    first: dict[tuple[str, ...], tuple[int, int]] = {}
    for rank, page in enumerate(pages):
        for at in range(len(page) - 2):
            first.setdefault(tuple(page[at:at + 3]), (rank, at))
    for rank, (page, got) in enumerate(zip(pages, out, strict=True)):
        gone = {at + k for at in range(len(page) - 2) for k in range(3)
                if first[tuple(page[at:at + 3])] != (rank, at)}
        left = [s for i, s in enumerate(page) if i not in gone]
        assert got == (" ".join(left) if len(left) >= 3 else None)


def test_rows_of_c4(tmp_path):
    """Broken rows cost themselves, and a cut file its end."""
    rows = [json.dumps({"text": f"Row {n}.", "url": "u", "timestamp": "t"})
            for n in range(4)]
    rows[1:1] = ["{", "[]", '{"url": "x"}', '{"text": 5}', "[" * 100_000,
                 '{"text": " "}', json.dumps({"text": "x" * 190_001})]
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    ledger = Ledger()
    found = list(read(path, ledger))
    assert [page.text for page in found] == [f"Row {n}." for n in range(4)]
    assert ledger.dropped == {"broken row": 5, "empty": 1,
                              "over 190000 characters": 1}
    assert len({page.id for page in found}) == 4
    assert found[0].metadata == {"url": "u", "date": "t"}
    path.write_bytes(gzip.compress(
        b"x" * 2**24 + b'{"text": "the end of a long line"}\n'))
    ledger = Ledger()
    assert not list(read(path, ledger))
    assert ledger.dropped == {"row too long": 1}
    import random
    noise = json.dumps({"text": random.Random(0).randbytes(9999).hex()})
    whole = gzip.compress("\n".join([rows[0], noise, rows[-1]]).encode())
    path.write_bytes(whole[:-40])
    ledger = Ledger()
    assert next(read(path, ledger)).text == "Row 0."
    list(read(path, ledger))
    assert ledger.dropped["file cut off or broken"] == 1


def test_archives_give_all_text_of_a_page(tmp_path):
    page = crawl.html("<nav><a href=/>Home</a></nav><p>Text of it.</p>")
    (tmp_path / "a.warc").write_bytes(crawl.response(page))
    (tmp_path / "b.json").write_text("", encoding="utf-8")
    assert [path.name for path in inputs(tmp_path)] == ["a.warc", "b.json"]
    found, = read(tmp_path / "a.warc", Ledger())
    assert found.source == "c4" and found.text == "Home\nText of it."


def test_the_splitter_knows_abbreviations():
    text = "Dr. Brown came at 5 p.m. sharp. Mrs. Green did not. Why?"
    assert len(sentence_splitter()(text)) == 3


def test_real_rows_are_left_as_they_are():
    path = real_data("sources/c4/hf_dummy_c4_en.zip")
    ledger = Ledger()
    with zipfile.ZipFile(path) as archive:
        name, = (name for name in archive.namelist()
                 if name.startswith("dummy") and "train" in name)
        rows = gzip.decompress(archive.read(name)).splitlines()
    for row in rows:
        text = json.loads(row)["text"]
        page = finish(Document("c4", "a", text), Rules(sentence_splitter()),
                      ledger)
        assert page is not None and page.text == text
    assert len(rows) == 3 and not ledger.lines
    assert c4.SOURCE == "c4"
