"""minillama/data/archives.py: what strangers packed is read, never trusted.

Checked against Python's own splitting of bytes for lines of every length,
against archives made here with every kind of member that could do harm, and
against files cut and corrupted at random: a reason comes out, never an error
of another kind, and never a file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.data import archives
from minillama.data.document import Ledger
from tests.broken import peak, variants


def tar(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    """A tar archive of files and of ready-made headers."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, data = member
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return whole.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A path that each example of a property writes anew."""
    return tmp_path_factory.mktemp("lines") / "file"


PACK = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress,
        "two members": lambda data: gzip.compress(data[:7])
        + gzip.compress(data[7:])}


@given(parts=st.lists(st.binary(max_size=9).map(
           lambda part: part.replace(b"\n", b"."))),
       limit=st.integers(1, 9), pack=st.sampled_from(sorted(PACK)))
def test_lines_are_those_that_fit(place, parts, limit, pack):
    data = b"".join(b"x" + part + b"\n" for part in parts)
    place.write_bytes(PACK[pack](data))
    wanted = [line if len(line) <= limit + 1 else None
              for line in data.splitlines(keepends=True)
              ] if b"\r" not in data else None
    found = list(archives.lines(place, limit))
    if wanted is None:  # bytes.splitlines also splits at carriage returns
        wanted = [line + b"\n" if len(line) <= limit else None
                  for line in data.split(b"\n")[:-1]]
    assert found == wanted


def test_the_last_line_needs_no_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"ab\nabcd")
    assert list(archives.lines(path, 4)) == [b"ab\n", b"abcd"]
    assert list(archives.lines(path, 3)) == [b"ab\n", None]


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_recoded(tmp_path, code):
    path = tmp_path / "file.bz2"
    text = "\ufeffГригориански\nкалендар\u2028х\n"
    path.write_bytes(bz2.compress(text.encode(code)))
    assert b"".join(archives.lines(path, 99)).decode() == text[1:]
    assert len(list(archives.lines(path, 99))) == 2


def test_a_long_line_is_never_held(tmp_path):
    path = tmp_path / "file.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b"\nshort\n")
    found: list = []
    assert peak(lambda: found.extend(archives.lines(path, 100_000))) < 5
    assert found == [None, b"short\n"]


def test_lines_before_the_break_are_handed_out(tmp_path):
    path = tmp_path / "file.gz"
    data = b"".join(b"%d\n" % n for n in range(100_000))
    path.write_bytes(gzip.compress(data)[:-9])
    found = []
    with pytest.raises(archives.BROKEN):
        for line in archives.lines(path, 99):
            found.append(line)
    assert found[:2] == [b"0\n", b"1\n"] and len(found) > 90_000


def members(data: bytes, ledger: Ledger | None = None) -> dict[str, bytes]:
    """The .tex files of an archive in memory."""
    return archives.members(io.BytesIO(data), ledger or Ledger(), (".tex",))


def test_a_tar_with_or_without_gzip_is_its_wanted_files():
    data = tar(("./a.tex", b"A"), ("figure.png", b"png"), ("b/c.TEX", b"C"))
    wanted = {"a.tex": b"A", "b/c.TEX": b"C"}
    assert members(data) == members(gzip.compress(data)) == wanted


def test_a_single_file_has_no_name():
    assert members(gzip.compress(b"alone")) == members(b"alone") == {
        "": b"alone"}


def header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member without content."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize("member, reason", [
    (("../up.tex", b"x"), "outside its folder"),
    (("a/../../up.tex", b"x"), "outside its folder"),
    (("/etc/up.tex", b"x"), "outside its folder"),
    (("C:/up.tex", b"x"), "outside its folder"),
    (header("l.tex", tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
    (header("h.tex", tarfile.LNKTYPE, "../x"), "no plain file"),
    (header("d.tex", tarfile.CHRTYPE), "no plain file"),
    (header("f.tex", tarfile.FIFOTYPE), "no plain file"),
])
def test_harm_is_refused_and_counted_and_the_rest_is_read(
        member, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = Ledger()
    assert members(tar(member, ("good.tex", b"G")), ledger) == {
        "good.tex": b"G"}
    assert ledger.lines == {f"archive member {reason}"
                            if "outside" in reason
                            else f"archive member is {reason}": 1}
    assert os.listdir(tmp_path) == []


def test_a_sparse_file_may_claim_a_terabyte():
    """The old GNU format: one block of data, any size in its header."""
    made = header("s.tex", tarfile.GNUTYPE_SPARSE)
    block = bytearray(made.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"0" * 11 + b"\0", b"0" * 11 + b"\0"
    block[483:495] = b"%011o\0" % 2**32
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    ledger = Ledger()
    assert peak(lambda: members(bytes(block) + bytes(1024), ledger)) < 5
    assert ledger.lines.total() == 1


def test_a_member_that_leads_back_is_broken():
    """A size below zero: the same header would come again, for ever."""
    block = bytearray(header("b.tex", tarfile.REGTYPE).tobuf(
        tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 10 + b"\xfe\x00"
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    with pytest.raises(archives.BROKEN, match="negative size"):
        members(tar(("a.tex", b""))[:512] + bytes(block) + bytes(1024))


def test_a_bomb_is_refused_without_being_unpacked(monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED_LIMIT", 1_000_000)
    bomb = gzip.compress(bytes(50_000_000))

    def open_it() -> None:
        with pytest.raises(archives.Refused, match="too much"):
            members(bomb)

    assert peak(open_it) < 10


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_whatever_is_broken_says_so(pack):
    data = pack(tar(("a.tex", b"A" * 700), ("b.tex", b"B" * 900)))
    ends = []
    for broken in variants(data, 400):
        try:
            ends.append(len(members(broken)))
        except archives.BROKEN:
            ends.append("broken")
    assert {1, 2, "broken"} <= set(ends)


def test_files_are_sorted_and_hidden_ones_left_out(tmp_path):
    for name in ("b.xml", "a/z.XML", ".hidden.xml", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix()
             for path in archives.files(tmp_path, ".xml")]
    assert found == ["a/z.XML", "b.xml"]
    assert archives.files(tmp_path / "c.txt", ".xml") == [tmp_path / "c.txt"]
