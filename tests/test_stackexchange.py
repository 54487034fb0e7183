"""minillama/data/stackexchange.py: questions with their answers, best first.

Checked against a join and a sort done in memory with Python's own `sorted`,
for posts in any order; against lxml's reading of the same HTML on real dumps
where they are at hand; and against dumps cut and corrupted at random.
"""

from __future__ import annotations

import random
import re
import sqlite3
import time
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.data import stackexchange
from minillama.data.document import Ledger
from tests.broken import peak, survives
from tests.real import real_data


def row(id: int, kind: int, body: str, score: int = 0, *,
        parent: int | None = None, title: str = "") -> str:
    """A line of Posts.xml."""
    more = (f' ParentId="{parent}"' if parent is not None else "") + (
        f" Title={quoteattr(title)}" if title else "")
    body = quoteattr(body, {"\n": "&#xA;", '"': "&quot;"})
    return (f'  <row Id="{id}" PostTypeId="{kind}" Score="{score}" '
            f"Body={body}{more} />\n")


def dump(*rows: str) -> bytes:
    """A whole Posts.xml, with the mark that real ones begin with."""
    return ('\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
            + "".join(rows) + "</posts>\n").encode()


def read(path, **options) -> tuple[list, Ledger]:
    """The threads of a dump, and the books."""
    ledger = Ledger()
    return list(stackexchange.read(path, ledger, **options)), ledger


THREAD = [
    row(1, 1, "<p>What is <b>it</b>?</p>", 5, title="A question"),
    row(2, 2, "<p>nine</p>", 9, parent=1),
    row(3, 2, "<p>ten</p>", 10, parent=1),
    row(4, 2, "<p>minus two</p>", -2, parent=1),
    row(5, 2, "<p>nine too</p>", 9, parent=1)]


@pytest.fixture
def path(tmp_path):
    """Where the dump of a site lies."""
    (tmp_path / "cats.stackexchange.com").mkdir()
    return tmp_path / "cats.stackexchange.com" / "Posts.xml"


def test_answers_are_sorted_by_score_as_a_number(path):
    """As strings, "9" would stand before "10"; equal scores go by id."""
    path.write_bytes(dump(*THREAD))
    (thread,), ledger = read(path)
    assert thread.id == "cats.stackexchange.com/1"
    assert thread.text == (
        "Q: A question\n\nWhat is it?\n\nA: ten\n\nA: nine\n\nA: nine too"
        "\n\nA: minus two")
    assert thread.metadata == {"score": 5, "answers": 4}
    assert (ledger.kept, ledger.seen) == (1, 1)


POST = st.tuples(st.integers(1, 6), st.integers(-2, 12), st.integers(0, 3))


@given(st.lists(POST, max_size=12), st.randoms())
def test_the_join_is_the_one_in_memory_in_any_order(tmp_path_factory, posts,
                                                    draw):
    """Post n is a question if its third number is 0, else it answers it."""
    rows = [row(n + 10, 2, f"t{n}", score, parent=parent + 9) if kind
            else row(n + 10, 1, f"t{n}", score)
            for n, (parent, score, kind) in enumerate(posts)]
    questions = {n + 10 for n, post in enumerate(posts) if not post[2]}
    answers = [(post[0] + 9, -post[1], n + 10)
               for n, post in enumerate(posts) if post[2]]
    wanted = {q: [f"t{q - 10}", *(f"t{n - 10}" for parent, _, n in sorted(
        answers) if parent == q)] for q in questions}
    draw.shuffle(rows)
    path = tmp_path_factory.mktemp("site") / "Posts.xml"
    path.write_bytes(dump(*rows))
    threads, ledger = read(path)
    found = {int(t.id.split("/")[1]): t.text.replace("Q: ", "").replace(
        "A: ", "").split("\n\n") for t in threads}
    assert found == wanted
    assert [t.id for t in threads] == sorted(
        (t.id for t in threads), key=lambda id: int(id.split("/")[1]))
    lost = sum(parent not in questions for parent, _, _ in answers)
    assert ledger.dropped["answer without question"] == lost


def test_of_one_id_twice_the_same_row_stays_in_any_order(path):
    rows = [row(1, 1, "b", 3), row(1, 1, "a", 9), row(1, 1, "a", 2)]
    texts = set()
    for _ in range(6):
        random.Random(_).shuffle(rows)
        path.write_bytes(dump(*rows))
        (thread,), _ = read(path)
        texts.add((thread.text, thread.metadata["score"]))
    assert texts == {("Q: a", 2)}


def test_nothing_is_sorted_in_memory():
    base = sqlite3.connect(":memory:")
    base.executescript(stackexchange.TABLE)
    plan = base.execute("EXPLAIN QUERY PLAN " + stackexchange.JOIN)
    steps = [step[-1] for step in plan]
    base.close()
    assert steps and not [step for step in steps if "TEMP B-TREE" in step]


@pytest.mark.parametrize("body, text", [
    ("<p>a</p>\n\n<p>b</p>\n", "a\n\nb"),
    ("<ul>\n<li>one</li>\n<li><p>two</p></li>\n</ul>", "* one\n* two"),
    ("a &lt;b&gt; &amp;amp; c", "a <b> &amp; c"),
    ("<pre><code>if a &lt; b:\n    x\n</code></pre>", "if a < b:\n    x"),
    ('<a href="x" title="1 > 0">link</a>', "link"),
    ("a<br>b<br/>\nc<hr>d", "a\nb\nc\nd"),
    ("<!-- language: lang-py -->\n<p>x</p>", "x"),
    ("1 < 2 and 2 > 1", "1 < 2 and 2 > 1"),
    ("&nbsp;x", "x"), ("", ""), ("a<!-- never closed <!-- ", "a"),
    ("a  \n \n b \nc", "a\n\n b \nc"),
])
def test_html_becomes_text(body, text):
    assert stackexchange.plain(body) == text


@pytest.mark.parametrize("piece", ["<!--", " ", "\n", " \n", "<li ", "&#"])
def test_hostile_html_takes_linear_time(piece):
    start = time.process_time()
    stackexchange.plain("a" + piece * (1_000_000 // len(piece)) + "b")
    assert time.process_time() - start < 5


REASONS = {
    "neither question nor answer": row(9, 5, "wiki"),
    "answer without question": row(9, 2, "a", parent=77),
    "broken row": '  <row Id="9" PostTypeId="1" Score="1" Body="cut\n',
    "broken row ": "<posts>" + row(9, 1, "a").strip() + "</posts>\n",
    "row too long": row(9, 1, "x" * 2_000_000),
    "empty": row(9, 1, "<p> </p>"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_every_row_that_goes_has_its_reason(path, reason):
    path.write_bytes(dump(REASONS[reason], *THREAD))
    threads, ledger = read(path)
    assert len(threads) == 1 and ledger.dropped == {reason.strip(): 1}


@pytest.mark.parametrize("line", [
    '<row Id="9" PostTypeId="1" Score="x" Body="a"/>\n',
    '<row Id="9" PostTypeId="1" Body="a"/>\n',
    '<row Id="99999999999999999999" PostTypeId="1" Score="1" Body="a"/>\n',
    '<row Id="9" PostTypeId="1" Score="1" Body="&bomb;"/>\n',
    '<row Id="9" PostTypeId="1" Score="1" Body="a&#1;"/>\n',
    '<!DOCTYPE p [<!ENTITY b "b">]><row Id="9" PostTypeId="1" Score="1" '
    'Body="&b;"/>\n',
])
def test_hostile_rows_cost_themselves_alone(path, line):
    bomb = ('<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY bomb "&a;&a;&a;">'
            "]>\n")
    path.write_bytes(dump(bomb, line, *THREAD))
    threads, ledger = read(path)
    assert len(threads) == 1 and ledger.dropped == {"broken row": 1}


def test_broken_dumps_cost_themselves_alone(path):
    rows = [line.replace('"1"', f'"{n}1"', 1).replace(
        'ParentId="1"', f'ParentId="{n}1"') for n in range(5)
        for line in (THREAD[0], THREAD[1].replace('Id="2"', f'Id="{n}2"', 1))]
    ledger = survives(stackexchange.read, path, dump(*rows))
    assert ledger.kept > 60 and ledger.dropped["broken row"] > 10


def test_the_database_lies_where_it_may_and_goes(path, tmp_path):
    path.write_bytes(dump(*THREAD))
    place = tmp_path / "work"
    place.mkdir()
    threads = stackexchange.read(path, Ledger(), folder=place)
    next(threads)
    assert list(place.rglob("posts.sqlite"))
    threads.close()
    assert list(place.iterdir()) == []


def test_a_large_dump_is_joined_in_little_memory(path):
    """The database's own pages do not count here: they have their limit."""
    body = "word " * 2000
    path.write_bytes(dump(*(row(n, 1 + (n % 2), body, n, parent=n - 1)
                            for n in range(2, 1000))))
    count = 0

    def read_all() -> None:
        nonlocal count
        count = sum(1 for _ in stackexchange.read(path, Ledger()))

    assert peak(read_all) < 5 and count == 499


def test_the_largest_sites_are_counted(tmp_path):
    """Questions and answers count, other rows and bytes do not."""
    sizes = {"a": 3, "b": 5, "c": 3, "d": 1}
    for name, size in sizes.items():
        rows = [row(n, 1 + n % 2, "x") for n in range(size)]
        (tmp_path / f"{name}_Posts.xml").write_bytes(
            dump(*rows, *[row(99, 5, "wiki " * 50)] * (9 - size)))
    paths = stackexchange.inputs(tmp_path)
    assert [stackexchange.site(p) for p in paths] == list("abcd")
    assert [stackexchange.site(p) for p in
            stackexchange.largest(reversed(paths), 3)] == list("bac")


def test_packed_dumps_alone_are_refused(tmp_path):
    (tmp_path / "cats.7z").write_bytes(b"7z")
    with pytest.raises(ValueError, match="unpack each"):
        stackexchange.inputs(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["datascience", "matheducators"])
def test_real_dumps_against_lxml(name):
    """The same words as lxml's text of the same HTML, in every post."""
    from lxml import etree
    from lxml import html as lxml_html

    path = real_data(f"sources/stackexchange/{name}_Posts.xml")
    threads, ledger = read(path)
    rows = [post.attrib for post in etree.parse(path).getroot()]
    questions = [post for post in rows if post["PostTypeId"] == "1"]
    assert ledger.kept == len(threads) == len(questions) > 90
    assert ledger.seen == len(rows) - sum(
        post["PostTypeId"] == "2" for post in rows)
    for post in rows:
        # lxml puts nothing where a line breaks.
        body = re.sub("<[bh]r[^>]*>", " ", post["Body"])
        wanted = lxml_html.fromstring(f"<div>{body}</div>").text_content()
        assert stackexchange.plain(post["Body"]).replace(
            "* ", "").split() == wanted.replace("* ", "").split()
