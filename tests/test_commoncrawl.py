"""minillama/data/commoncrawl.py: whole records come out, broken ones count.

Checked against archives written out by hand, and against what warcio's own
reader finds in them; then by breaking the archives in every way that crawls
have been seen to break in, and at random: the pages that were not touched
must all come out, in bounded memory and time.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data import commoncrawl
from minillama.data.commoncrawl import (
    MAX_DEPTH,
    Unusable,
    decode,
    extract,
    inputs,
    pages,
    read,
    records,
)
from minillama.data.document import Ledger
from tests import crawl
from tests.real import real_data

WARC_REAL = [
    ("dolma_sample-0000.warc.gz", 48, 0), ("warcio_example.warc.gz", 6, 0),
    ("warcio_example.warc", 6, 0), ("warcio_example-bad.warc.gz.bad", 6, 0),
    ("warcio_example-wrong-chunks.warc.gz", 2, 0),
    ("text-extraction-test.warc", 4, 0), ("whirlwind.warc.gz", 4, 0),
    ("whirlwind.warc.wet.gz", 2, 0), ("warcio_example-trunc.warc", 4, 1),
]


def numbers(path) -> tuple[list[int], Ledger]:
    """Which of the articles came out, and the books.

    An id that was itself hit, so that no number stands in it, is -1.
    """
    ledger = Ledger()
    ends = [re.search(r":(\d+)$", page.id) for page in read(path, ledger)]
    found = [int(end[1]) if end else -1 for end in ends]
    assert ledger.kept == len(found)
    return found, ledger


@pytest.mark.parametrize("zipped", [False, True])
def test_pages_of_an_archive(tmp_path, zipped):
    raw = [crawl.record("warcinfo", b"software: x\r\n"),
           crawl.record("request", b"GET / HTTP/1.1\r\n\r\n"),
           *crawl.pages(3),
           crawl.response(b"gone", 3, status="404 Not Found"),
           crawl.response(b"\xff\xd8", 4, kind="image/jpeg"),
           crawl.response(crawl.html("<p>short</p>"), 5)]
    path = tmp_path / ("a.warc.gz" if zipped else "a.warc")
    path.write_bytes(crawl.gzipped(raw) if zipped else b"".join(raw))
    found, ledger = numbers(path)
    assert found == [0, 1, 2]
    assert ledger.dropped == {"answer without a page": 1, "not HTML": 1,
                              "under 300 characters": 1}
    page = next(read(path, Ledger()))
    assert page.text == "\n".join(
        ["This is page 0. " + crawl.SENTENCE.strip()] * 8)
    assert page.metadata == {"url": "http://example.org/0",
                             "title": "A page",
                             "date": "2020-01-01T00:00:00Z"}


def test_wet_records_have_their_title_in_the_first_line(tmp_path):
    text = "A title\n" + "One line of text.\n" * 20
    path = tmp_path / "a.warc.wet"
    path.write_bytes(crawl.record("conversion", text.encode(), 7) +
                     crawl.record("conversion", b"Title\n" + b"x" * 299, 8) +
                     crawl.record("conversion", b"Title\n" + b"y" * 300, 9))
    ledger = Ledger()
    first, second = read(path, ledger)
    assert first.metadata["title"] == "A title"
    assert first.text == "\n".join(["One line of text."] * 20)
    # 300 characters are enough, and the title is not among them.
    assert second.text == "y" * 300
    assert ledger.dropped == {"under 300 characters": 1}


def test_ids_do_not_depend_on_the_place(tmp_path):
    raw = crawl.pages(4)
    for name, order in (("a.warc", [0, 1, 2, 3]), ("b.warc", [3, 1, 0, 2])):
        (tmp_path / name).write_bytes(b"".join(raw[i] for i in order))
    first, second = (sorted((p.id, p.text) for p in read(path, Ledger()))
                     for path in inputs(tmp_path))
    assert first == second


@pytest.mark.oracle
@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=6), st.booleans())
def test_records_are_those_that_warcio_finds(tmp_path_factory, blocks, gz):
    from warcio.archiveiterator import ArchiveIterator

    raw = [crawl.record("resource", block, i)
           for i, block in enumerate(blocks)]
    path = tmp_path_factory.mktemp("w") / "a.warc.gz"
    data = crawl.gzipped(raw) if gz else b"".join(raw)
    path.write_bytes(data)
    theirs = [record.content_stream().read()
              for record in ArchiveIterator(io.BytesIO(data))]
    ours = [record.split(b"\r\n\r\n", 1)[1] for record in records(path)]
    assert ours == theirs == blocks


def test_a_record_within_a_record_is_text(tmp_path):
    """A page about WARC files may quote one: its length is believed."""
    inner = crawl.record("response", b"HTTP/1.1 200 OK\r\n\r\nhello")
    raw = [crawl.record("resource", b"text\r\n\r\n" + inner, 0),
           crawl.record("resource", b"next", 1)]
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(raw))
    assert [len(r) for r in records(path)] == [len(r) - 4 for r in raw]


def test_one_gzip_block_around_all_records(tmp_path):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip.compress(b"".join(crawl.pages(5))))
    assert numbers(path)[0] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("wrong, reason", [
    ("+5", "record of another length than it says"),
    ("-5", "record of another length than it says"),
    ("99999999999999", "record too long"), ("x", "broken record header"),
    ("-1", "broken record header"), ("", "broken record header"),
])
def test_a_wrong_length_costs_one_record(tmp_path, wrong, reason):
    raw = crawl.pages(4)
    size = raw[1].split(b"Content-Length: ")[1].split(b"\r\n")[0]
    other = (str(int(size) + int(wrong)) if wrong[:1] in "+-" and wrong[1:]
             and wrong != "-1" else wrong)
    raw[1] = raw[1].replace(b"Content-Length: " + size,
                            b"Content-Length: " + other.encode())
    for name, data in (("a.warc", b"".join(raw)),
                       ("a.warc.gz", crawl.gzipped(raw))):
        (tmp_path / name).write_bytes(data)
        found, ledger = numbers(tmp_path / name)
        assert found == [0, 2, 3]
        assert ledger.dropped == {reason: 1}


def test_gzip_cut_in_the_middle(tmp_path):
    """No error for most readers: they return the cut record as if whole."""
    raw = crawl.pages(3)
    data = crawl.gzipped(raw)
    for lost in (1, 9, 60):
        (tmp_path / "a.warc.gz").write_bytes(data[:-lost])
        found, ledger = numbers(tmp_path / "a.warc.gz")
        assert found == [0, 1]
        assert ledger.dropped == {"record cut off": 1}


def test_a_flipped_byte_costs_one_record(tmp_path):
    raw = crawl.pages(6)
    members = [gzip.compress(r, mtime=0) for r in raw]
    start = sum(map(len, members[:2]))
    path = tmp_path / "a.warc.gz"
    # In the header, in the text, in the checksum, in the length.
    for offset in (1, 12, 40, len(members[2]) // 2, len(members[2]) - 6,
                   len(members[2]) - 1):
        data = bytearray(b"".join(members))
        data[start + offset] ^= 0xFF
        path.write_bytes(data)
        found, ledger = numbers(path)
        assert found == [0, 1, 3, 4, 5], offset
        assert ledger.dropped.total() == 1, offset


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), gz=st.booleans(),
       how=st.sampled_from(["flip", "cut", "insert", "delete", "zero"]))
def test_fuzz(tmp_path_factory, seed, gz, how):
    """One wound anywhere: all pages but those it touches come out."""
    draw = random.Random(seed)
    raw = crawl.pages(8)
    parts = [gzip.compress(r, mtime=0) for r in raw] if gz else raw
    data = bytearray(b"".join(parts))
    at, size = draw.randrange(len(data)), draw.randrange(1, 40)
    if how == "flip":
        data[at] ^= 1 << draw.randrange(8)
        size = 1
    elif how == "cut":
        size = len(data) - at
        del data[at:]
    elif how == "insert":
        data[at:at], size = draw.randbytes(size), 1
    elif how == "delete":
        del data[at:at + size]
    else:
        data[at:at + size] = bytes(len(data[at:at + size]))
    path = tmp_path_factory.mktemp("f") / ("a.warc.gz" if gz else "a.warc")
    path.write_bytes(data)
    found, ledger = numbers(path)
    ends = [sum(map(len, parts[:i + 1])) for i in range(8)]
    # Whoever ends before the wound, or starts behind it, is untouched.
    whole = [i for i in range(8) if ends[i] <= at
             or ends[i] - len(parts[i]) >= at + size]
    assert set(whole) <= set(found)
    assert len(found) + ledger.dropped.total() <= 9
    if gz and len(found) < 8 and how not in ("cut", "delete"):
        assert ledger.dropped.total() >= 1


def test_memory_and_time_stay_bounded(tmp_path):
    """A 50 MB line, gzip bombs, a page that inflates, a flood of blanks."""
    line = b"x" * 50_000_000
    bomb = gzip.compress(crawl.html(line.decode()[:30_000_000]))
    deflated = zlib.compressobj(9, wbits=31)
    zeros = b"".join(deflated.compress(bytes(2**20)) for _ in range(100))
    cases = {
        "line": [crawl.response(b"<p>" + line, 9)],
        "bomb": [crawl.response(bomb, 9, encoding="gzip")],
        "blank": [b"\r\n" * 4_000_000],
    }
    first, last = crawl.pages(2)
    for name, middle in cases.items():
        path = tmp_path / f"{name}.warc.gz"
        path.write_bytes(crawl.gzipped([first, *middle, last]))
        del middle
        assert _measured(path) == [0, 1], name
    path = tmp_path / "zeros.warc.gz"
    path.write_bytes(crawl.gzipped([first]) + zeros + deflated.flush()
                     + crawl.gzipped([last]))
    assert _measured(path) == [0, 1]


def _measured(path) -> list[int]:
    """The pages found, under 150 MB of new memory and 20 seconds."""
    start = time.process_time()
    tracemalloc.start()
    try:
        found = [n for n in numbers(path)[0] if n < 9]
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 20
    return found


def test_a_page_nested_deep_is_dropped_at_once(tmp_path):
    """The extractor would need minutes for a hundred thousand elements."""
    hidden = ("<div>", "<svg>" + "<td>", '<div a="<">', "<div></x>",
              "<div><!--</div>-->")  # what a look at the tags would miss
    deep = [crawl.html(tag * 20_000 + crawl.SENTENCE * 9) for tag in hidden]
    flat = crawl.html(("<br>" * 3000) + "<p>a<td>b" * 2000 +
                      f"<p>{crawl.SENTENCE * 9}</p>")
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(map(crawl.response, deep))
                     + crawl.response(flat, 1))
    start = time.process_time()
    found, ledger = numbers(path)
    assert found == [1] and ledger.dropped == {"nested too deep": 5}
    assert time.process_time() - start < 5


def test_a_page_may_be_a_thousand_deep():
    most = MAX_DEPTH - 2  # html and body are two
    flat = "<br>" * MAX_DEPTH
    assert extract(flat + "<div>" * most + crawl.SENTENCE)[1]
    with pytest.raises(Unusable, match="nested too deep"):
        extract(flat + "<div>" * (most + 1) + crawl.SENTENCE)


NESTED = (b"\x1f\x8b\x08\0\0\0\0\0\0\xff\0"
          + (44_995).to_bytes(2, "little") + (20_540).to_bytes(2, "little"))
"""A gzip member whose stored blocks hold the members that follow."""


@pytest.mark.parametrize("name, piece, size", [
    ("a.warc", b"WARC/1.0\r\nA-B: 1\r\n" + b"Content-Length: 5\r\n" * 40,
     400_000),
    ("a.warc", b"WARC/1.0\r\nA-B", 400_000),
    ("a.warc.gz", b"\x1f\x8b\x08", 400_000),
    ("a.warc.gz", NESTED, 2_000_000)])
def test_false_starts_cost_no_square_of_time(tmp_path, name, piece, size):
    path = tmp_path / name
    path.write_bytes(piece * (size // len(piece)))
    start = time.process_time()
    numbers(path)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text, encoding, header, wanted", [
    ("Zoë’s café", "utf-8", "text/html; charset=iso-8859-1", None),
    ("Zoë’s café", "cp1252", "text/html; charset=windows-1252", None),
    ("Привет, мир", "cp1251", "text/html; charset=windows-1251", None),
    ("Привет", "koi8-r", 'text/html; charset="KOI8-R"', None),
    ("<meta charset=shift_jis>日本語", "shift_jis", "text/html", None),
    # Codecs of Python that are no encoding of the web are never asked.
    ("abc\xe9 d", "latin-1", "charset=base64", None),
    ("abc\xe9 d", "latin-1", "charset=idna", None),
])
def test_encodings(text, encoding, header, wanted):
    assert decode(text.encode(encoding), header) == (wanted or text)


def test_a_page_cut_within_a_character():
    assert decode("日本".encode()[:-1]) == "日"
    assert decode("né".encode()[:-1], "charset=latin-1") == "n"


@settings(deadline=None)
@given(st.binary(max_size=300), st.text(max_size=30))
def test_any_bytes_become_text(body, header):
    text = decode(body, header)
    text.encode("utf-8")
    try:
        title, main = extract(text)
    except Unusable:
        return
    assert "\n\n" not in main and main == main.strip()


def test_menus_go_from_the_main_text_and_stay_in_all_text():
    page = (b"<nav><ul><li><a href=/>Home</a><li><a href=/b>Blog</a></ul>"
            b"</nav><article><p>" + crawl.SENTENCE.encode() * 4 + b"</p>"
            b"</article><footer>Imprint</footer>")
    html = crawl.html(page.decode()).decode()
    assert extract(html)[1] == (crawl.SENTENCE * 4).strip()
    assert {"Home", "Blog", "Imprint"} <= set(
        extract(html, main_content=False)[1].split())


def test_inputs_are_sorted_archives(tmp_path):
    for name in ("b.warc.gz", "a.warc.wet.gz", "c.warc", "x.warc.wat.gz",
                 "readme.txt", "sub/d.WET"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in inputs(tmp_path)]
    assert names == ["a.warc.wet.gz", "b.warc.gz", "c.warc", "d.WET"]
    assert inputs(tmp_path / "readme.txt") == [tmp_path / "readme.txt"]
    assert list(read(tmp_path / "c.warc", Ledger())) == []


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "warcio.recordloader", None)
    path = tmp_path / "a.warc"
    path.write_bytes(crawl.pages(1)[0])
    with pytest.raises(ValueError, match=r"minillama\[data\]"):
        list(read(path, Ledger()))


@pytest.mark.parametrize("name, count, broken", WARC_REAL)
def test_real_archives(name, count, broken):
    """Counts of the records that these public samples hold."""
    path = real_data(f"sources/commoncrawl/{name}")
    found = list(records(path))
    assert len(found) == count
    assert sum(isinstance(record, str) for record in found) == broken


def test_the_text_that_commoncrawl_takes_from_the_same_page():
    """Words of our extraction against the stored WET of one real page."""
    folder = real_data("sources/commoncrawl")
    ours, = pages(folder / "whirlwind.warc.gz", "cc", Ledger(),
                  main_content=False)
    theirs, = pages(folder / "whirlwind.warc.wet.gz", "cc", Ledger(),
                    main_content=False)
    assert ours.metadata["title"] == theirs.metadata["title"]
    here, there = set(ours.text.split()), set(theirs.text.split())
    assert len(here & there) / len(here | there) > 0.9
    assert commoncrawl.SOURCE == "commoncrawl"
