"""minillama/data/books.py: the book, without what stands around it.

Checked against the texts that another stripper of Gutenberg's headers made of
the same real files, where they are at hand; against files made here with
every form of the marks; and against files cut and corrupted at random.
"""

from __future__ import annotations

import bz2
import gzip
import time

import pytest

from minillama.data import books
from minillama.data.document import Ledger
from tests.broken import survives
from tests.real import real_data

STORY = "THE TALE\n\nby Nobody\n\n\nOnce there was a *** star ***.\n\nThe End"
TITLE = "Title: The Tale\n\nAuthor: Nobody\n\n"
LICENCE = "\n\nSection 1. General Terms of Use\n\nmore words\n"
FORMS = {
    "this": ("*** START OF THIS PROJECT GUTENBERG EBOOK THE TALE ***",
             "*** END OF THIS PROJECT GUTENBERG EBOOK THE TALE ***"),
    "the": ("***START OF THE PROJECT GUTENBERG EBOOK THE TALE***",
            "***END OF THE PROJECT GUTENBERG EBOOK THE TALE***"),
    "two lines": ("*** START OF THIS PROJECT GUTENBERG EBOOK A VERY LONG\n"
                  "TALE, VOLUME 2 ***",
                  "*** END OF THIS PROJECT GUTENBERG EBOOK A VERY LONG\n"
                  "TALE, VOLUME 2 ***"),
    "small print": ("*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04*"
                    "END*", "End of the Project Gutenberg Etext of The Tale"),
    "a line more": ("*** START OF THE PROJECT GUTENBERG EBOOK THE TALE ***",
                    "End of Project Gutenberg's The Tale, by Nobody\n\n"
                    "*** END OF THE PROJECT GUTENBERG EBOOK THE TALE ***"),
}


@pytest.mark.parametrize("form", FORMS)
def test_marks_of_every_form_are_found(form):
    start, end = FORMS[form]
    whole = f"{TITLE}{start}\n\n\n{STORY}\n\n\n{end}{LICENCE}"
    text, cut = books.strip(whole)
    assert text == STORY
    assert cut == len(whole.strip().split("\n")) - len(STORY.split("\n"))


NOTES = ["Produced by A. Reader and B. Writer", "E-text prepared by nobody",
         "This file was made from scans.",
         "Transcriber's note: old spelling is kept.",
         "Note: there are pictures.\n      See https://www.gutenberg.org/1"]


@pytest.mark.parametrize("note", NOTES)
def test_the_makers_notes_go(note):
    start, end = FORMS["the"]
    assert books.strip(f"{start}\n\n{note}\n\n\n\n{STORY}\n\n{end}")[0] == (
        STORY)


def test_notes_in_the_book_and_books_of_others_stay():
    note = "\n\nProduced by hand, he said.\n\nmore"
    start, end = FORMS["the"]
    assert books.strip(f"{start}\n\n{STORY}{note}\n\n{end}")[0] == STORY + note
    assert books.strip(f"Produced by me\n\n{STORY}\n") == (
        f"Produced by me\n\n{STORY}", 0)


def read(path) -> tuple[list, Ledger]:
    """The books of a path, and how they balance."""
    ledger = Ledger()
    return list(books.read(path, ledger)), ledger


def test_names_follow_the_content_and_not_the_folder(tmp_path):
    for place, text in (("a/tale.txt", "one"), ("b/tale.txt", "two"),
                        ("c/tale.txt", "one")):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text(text, encoding="utf-8")
    ids = [read(path)[0][0].id for path in books.inputs(tmp_path)]
    assert len(ids) == 3 and ids[0] == ids[2] != ids[1]
    assert ids[0].startswith("tale-")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_books_may_be_packed(tmp_path, pack):
    path = tmp_path / "a.txt"
    path.write_bytes(pack(STORY.replace("\n", "\r\n").encode()))
    assert read(path)[0][0].text == STORY


def test_the_encoding_is_the_one_that_the_header_names(tmp_path):
    start, end = FORMS["the"]
    path = tmp_path / "a.txt"
    text = f"Character set encoding: ISO-8859-1\n{start}\ncaf\xe9\n{end}"
    path.write_bytes(text.encode("latin-1"))
    assert read(path)[0][0].text == "caf\xe9"


REASONS = {
    "empty": b" \n\n ", "not UTF-8 text": b"caf\xe9 and more",
    "broken archive": gzip.compress(b"text" * 99)[:-6],
    "too large": b"word " * 4_000_001}


@pytest.mark.parametrize("reason", REASONS)
def test_every_book_that_goes_has_its_reason(tmp_path, reason):
    path = tmp_path / "a.txt"
    path.write_bytes(REASONS[reason])
    found, ledger = read(path)
    assert found == [] and ledger.dropped == {reason: 1}


def test_a_binary_file_and_an_unknown_encoding_are_no_books(tmp_path):
    path = tmp_path / "a.txt"
    for data in (b"PK\x03\x04\0\0\0", b"set encoding: x-martian\ncaf\xe9"):
        path.write_bytes(data)
        assert read(path)[1].dropped == {"not UTF-8 text": 1}


def test_an_encoding_that_takes_for_ever_is_not_tried(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"set encoding: punycode\n\0-" + b"a9" * 1_000_000)
    start = time.process_time()
    ledger = Ledger()
    assert not list(books.read(path, ledger))
    assert ledger.dropped == {"not UTF-8 text": 1}
    assert time.process_time() - start < 5


def test_broken_books_cost_themselves_alone(tmp_path):
    start, end = FORMS["the"]
    data = f"{TITLE}{start}\n\n{STORY}\n\n{end}{LICENCE}".encode()
    ledger = survives(books.read, tmp_path / "a.txt", data)
    assert ledger.seen == 60 and ledger.kept > 20


@pytest.mark.oracle
@pytest.mark.parametrize("number", ["10026", "10089", "1013"])
def test_real_books_equal_what_another_stripper_made(number):
    (book,), ledger = read(
        real_data(f"corpora/gutenberg_raw/{number}.txt"))
    wanted = real_data(f"corpora/gutenberg_clean/{number}.txt").read_text(
        encoding="utf-8")
    assert book.text == wanted.replace("\r\n", "\n").strip()
    assert ledger.lines["Gutenberg header and licence"] > 300


def test_a_real_novel():
    (book,), _ = read(real_data("corpora/gutenberg_raw/2701.txt"))
    assert book.text.startswith("MOBY DICK; OR THE WHALE\n\nBy Herman")
    assert book.text.endswith("only found another\norphan.")
