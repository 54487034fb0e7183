"""Stack Exchange: a question and its answers, the best answer first.

A dump lists posts by age, so an answer stands anywhere below its question.
The two are joined by a database in a file, not in memory, so that a dump may
have any size. Scores are compared as numbers.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import html
import itertools
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from minillama.data import archives
from minillama.data.document import Document, Ledger

ROW_LIMIT = 2_000_000
"""Bytes of one post; the site allows 30,000 characters."""

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAG = re.compile(r"""</?[A-Za-z](?:[^<>"']|"[^"]*"|'[^']*')*+>""")
TABLE = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -64000;
    CREATE TABLE post (
        id INTEGER PRIMARY KEY, parent INTEGER, score INTEGER, text TEXT);
    CREATE INDEX answer ON post (parent, score DESC, id)
        WHERE parent IS NOT NULL;
"""
_INSERT = """
    INSERT INTO post VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
        parent = excluded.parent, score = excluded.score,
        text = excluded.text
    WHERE (excluded.text, excluded.score) < (text, score)"""
# Both walk along an index: nothing is sorted at the end.
JOIN = """
    SELECT question.id, question.score, question.text, answer.text
    FROM post AS question
    LEFT JOIN post AS answer ON answer.parent = question.id
    WHERE question.parent IS NULL
    ORDER BY question.id, answer.score DESC, answer.id"""
_ORPHANS = """
    SELECT id FROM post WHERE parent IS NOT NULL
    AND parent NOT IN (SELECT id FROM post WHERE parent IS NULL)"""


def inputs(path: Path) -> list[Path]:
    """The dumps of posts below a folder, sorted.

    Raises:
        ValueError: if there are only packed ones.

    Chapter: notebooks/02_curated_data.ipynb
    """
    found = archives.files(path, "posts.xml", "posts.xml.gz", "posts.xml.bz2")
    if not found and archives.files(path, ".7z"):
        raise ValueError(
            f"path={str(path)!r} holds .7z files; unpack each in a folder of "
            "its own, `7z x -oNAME NAME.7z`, so that NAME/Posts.xml is there")
    return found


def site(path: Path) -> str:
    """The site's name: of the folder of Posts.xml, or before `_Posts.xml`."""
    name = re.split(r"[._-]?posts\.xml", path.name, flags=re.IGNORECASE)[0]
    return name or path.parent.name


def largest(paths: Iterable[Path], count: int = 28) -> list[Path]:
    """The dumps with the most questions and answers, the largest first.

    Chapter: notebooks/02_curated_data.ipynb
    """
    sizes: Counter[Path] = Counter()
    for path in paths:
        try:
            for line in archives.lines(path, ROW_LIMIT):
                sizes[path] += bool(
                    line and re.search(rb'\sPostTypeId="[12]"', line))
        except archives.BROKEN:
            pass  # Counted so far; reading it says why it ends.
    return sorted(sizes, key=lambda path: (-sizes[path], site(path)))[:count]


def read(
    path: Path, ledger: Ledger, folder: Path | None = None
) -> Iterator[Document]:
    """Stream a dump of posts into questions with their answers.

    Args:
        path: of a Posts.xml.
        ledger: counts questions, and rows that belong to none.
        folder: for the database; None: the system's temporary folder.

    Chapter: notebooks/02_curated_data.ipynb
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        base = sqlite3.connect(Path(place) / "posts.sqlite")
        try:
            base.executescript(TABLE)
            base.executemany(_INSERT, _posts(path, ledger))
            yield from _threads(base, site(path), ledger)
        finally:
            base.close()


def _posts(
    path: Path, ledger: Ledger
) -> Iterator[tuple[int, int | None, int, str]]:
    """Id, question, score and text of every question and answer."""
    try:
        for line in archives.lines(path, ROW_LIMIT):
            if line is None:
                ledger.drop("row too long")
            elif b"<row" in line:
                post = _post(line)
                if isinstance(post, str):
                    ledger.drop(post)
                else:
                    yield post
    except archives.BROKEN:
        ledger.drop("broken archive")


def _post(line: bytes) -> tuple[int, int | None, int, str] | str:
    """One row as a post, or the reason why it is none."""
    try:
        # Before it there may be a DOCTYPE, with bombs.
        row = ElementTree.fromstring(line[line.index(b"<row"):]).attrib
        kind, text = row["PostTypeId"], plain(row["Body"])
        if kind not in ("1", "2"):
            return "neither question nor answer"
        if kind == "1":
            text = f"{row.get('Title', '').strip()}\n\n{text}".strip()
        numbers = row["Id"], row["Score"], row.get("ParentId", "0")
        if max(map(len, numbers)) > 15:  # would not fit the database
            return "broken row"
        id, score, parent = map(int, numbers)
        return id, parent if kind == "2" else None, score, text
    except (ElementTree.ParseError, KeyError, ValueError):
        return "broken row"


def _threads(
    base: sqlite3.Connection, name: str, ledger: Ledger
) -> Iterator[Document]:
    """Join the answers to their questions."""
    for (id, score, question), rows in itertools.groupby(
            base.execute(JOIN), key=lambda row: row[:3]):
        answers = [row[3] for row in rows if row[3]]
        if question:
            text = "\n\n".join(
                [f"Q: {question}", *(f"A: {answer}" for answer in answers)])
            yield ledger.keep(Document(
                "stackexchange", f"{name}/{id}", text,
                {"score": score, "answers": len(answers)}))
        else:
            ledger.drop("empty")
    for _ in base.execute(_ORPHANS):
        ledger.drop("answer without question")


def plain(body: str) -> str:
    """A post's HTML as text: list items get a star, other tags nothing.

    The sites keep posts as well-formed HTML, in which every `<` of the text
    is escaped, and put line ends between paragraphs.

    Chapter: notebooks/02_curated_data.ipynb
    """
    body = _COMMENT.sub("", body)
    body = re.sub(r"<li\b[^<>]*>\s*(?:<p>)?", "* ", body)
    body = re.sub(r"<(?:br|hr)\b[^<>]*>\n?", "\n", body)
    text = html.unescape(_TAG.sub("", body))
    return re.sub(r"(?<![^\S\n])[^\S\n]*+\n\s*\n", "\n\n", text).strip()
