"""minillama/data/corpus.py: the prepared folder, bit by bit, and refusals.

What is written is read back with numpy and json alone and has to decode to
the text that went in. A subprocess is killed in the middle to see that no
half folder is ever found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data import corpus, fetch
from minillama.data.corpus import documents_of, prepare, split_own
from minillama.tokenizer import Tokenizer

POEM = "".join(
    f"Line {i} of a poem about {word}s and {word}s.\n" + "\n" * (i % 5 == 0)
    for i in range(400) for word in ("rose", "nightingale", "caf\u00e9"))


@pytest.fixture
def poem(tmp_path) -> Path:
    """A file of about 50,000 characters."""
    path = tmp_path / "poem.txt"
    path.write_text(POEM, encoding="utf-8")
    return path


def read_back(folder: Path) -> tuple[dict, dict[str, list[str]]]:
    """The index, and the documents of each part, decoded from raw bytes."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer(folder / index["tokenizer"])
    documents: dict[str, list[str]] = {}
    for source in index["sources"].values():
        for part in ("train", "validation"):
            found = documents.setdefault(part, [])
            for shard in source[part]:
                ids = np.fromfile(folder / shard["file"],
                                  "<u2" if index["dtype"] == "uint16"
                                  else "<u4").tolist()
                assert len(ids) == shard["tokens"]
                assert ids[0] == 1 and ids[-1] == 2
                texts = [tokenizer.decode(part) for part in split_at(ids)]
                assert len(texts) == shard["documents"]
                assert shard["bytes"] == sum(
                    len(t.encode("utf-8")) for t in texts)
                found.extend(texts)
    return index, documents


def split_at(ids: list[int]) -> list[list[int]]:
    """Cut BOS ... EOS BOS ... EOS into documents without their borders."""
    starts = [i for i, token in enumerate(ids) if token == 1]
    ends = [i for i, token in enumerate(ids) if token == 2]
    assert len(starts) == len(ends)
    assert [e + 1 for e in ends[:-1]] == starts[1:]
    return [ids[s + 1:e] for s, e in zip(starts, ends)]


def test_own_file(poem, tmp_path):
    """All of the text, once; the last tenth held out; nothing else there."""
    folder = prepare(poem, 320, cache=tmp_path / "cache")
    index, documents = read_back(folder)
    assert index["version"] == 1 and index["dtype"] == "uint16"
    assert index["vocab_size"] == 320 and list(index["sources"]) == ["own"]
    assert index["sources"]["own"]["weight"] == 1.0
    held_out = "".join(documents["validation"])
    assert POEM.endswith(held_out)
    assert 0.1 <= len(held_out) / len(POEM) <= 0.16
    # Training documents are shuffled; each is a stretch of the poem.
    order = sorted(documents["train"], key=POEM.index)
    assert order != documents["train"]
    assert "".join(order) + held_out == POEM
    assert sorted(p.name for p in folder.iterdir()) == [
        "index.json", "shards", "tokenizer.model"]


def test_vocabulary_is_learnt_from_the_training_part(tmp_path):
    """A letter that only the held-out end has is no piece."""
    path = tmp_path / "own.txt"
    path.write_text(POEM + "\u0416 " * 600, encoding="utf-8")
    folder = prepare(path, 320, cache=tmp_path)
    tokenizer = Tokenizer(folder / "tokenizer.model")
    pieces = {tokenizer.piece(i) for i in range(320)}
    assert "\u00e9" in pieces and "\u0416" not in pieces


def test_prepared_once(poem, tmp_path, monkeypatch):
    """The second call trains nothing and touches nothing."""
    first = prepare(poem, 320, cache=tmp_path)
    before = {p: p.stat().st_mtime_ns for p in first.rglob("*")}
    monkeypatch.setattr(Tokenizer, "train", None)
    assert prepare(poem, 320, cache=tmp_path) == first
    assert {p: p.stat().st_mtime_ns for p in first.rglob("*")} == before


def test_the_key_knows_what_matters(poem, tmp_path):
    """Text, vocabulary, seed and tokenizer each give another folder."""
    folders = [prepare(poem, 320, cache=tmp_path),
               prepare(poem, 321, cache=tmp_path),
               prepare(poem, 320, seed=2, cache=tmp_path)]
    other = Tokenizer(folders[1] / "tokenizer.model")
    folders.append(prepare(poem, 321, tokenizer=other, cache=tmp_path))
    poem.write_text(POEM.replace("rose", "lily"), encoding="utf-8")
    folders.append(prepare(poem, 320, cache=tmp_path))
    assert len(set(folders)) == len(folders)
    assert ((folders[3] / "tokenizer.model").read_bytes()
            == (folders[1] / "tokenizer.model").read_bytes())


def test_same_text_same_bytes(poem, tmp_path):
    """Two caches, one result, byte for byte, under one name."""
    a = prepare(poem, 320, cache=tmp_path / "a")
    b = prepare(poem, 320, cache=tmp_path / "b")
    assert a.name == b.name
    for path in a.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (b / path.relative_to(a)).read_bytes()


def test_several_shards_and_wide_ids(poem, tmp_path, monkeypatch):
    """Small shards keep whole documents; large vocabularies need 4 bytes."""
    monkeypatch.setattr(corpus, "_SHARD_TOKENS", 1)
    monkeypatch.setattr(corpus, "_DOCUMENT_SIZE", 256)
    index, documents = read_back(prepare(poem, 320, cache=tmp_path))
    shards = index["sources"]["own"]["train"]
    assert len(shards) > 1
    assert [s["file"] for s in shards[:2]] == [
        "shards/own-train-00000.bin", "shards/own-train-00001.bin"]
    everything = documents["train"] + documents["validation"]
    assert "".join(sorted(everything, key=POEM.index)) == POEM

    class Wide(Tokenizer):
        """Pretends to have more pieces than two bytes can count."""

        def _load(self, model: bytes, name: str) -> None:
            super()._load(model, name)
            self.vocab_size = 2**16 + 1

    wide = Wide(prepare(poem, 320, cache=tmp_path) / "tokenizer.model")
    index, again = read_back(
        prepare(poem, 2**16 + 1, tokenizer=wide, cache=tmp_path))
    assert index["dtype"] == "uint32" and again == documents


def test_folder_of_files(tmp_path, capsys):
    """Text of any suffix is read in order of names; the rest is named."""
    own = tmp_path / "own"
    (own / "sub").mkdir(parents=True)
    (own / "a.md").write_text(POEM[:20_000], encoding="utf-8-sig")
    (own / "sub" / "b.py").write_text("print('b')\n" * 900, encoding="utf-8")
    (own / "z.txt").write_bytes(POEM.encode().replace(b"\n", b"\r\n"))
    (own / "photo.jpg").write_bytes(b"\xff\xd8\0")
    (own / ".hidden").write_text("secret", encoding="utf-8")
    texts = corpus.read_texts(own)
    assert texts == [POEM[:20_000], "print('b')\n" * 900, POEM]
    assert "left out 1 files" in (said := capsys.readouterr().err)
    assert "photo.jpg" in said


def test_prepared_folder_is_returned(poem, tmp_path):
    """A folder with an index is used as it is, if the vocabulary fits."""
    folder = prepare(poem, 320, cache=tmp_path)
    assert prepare(folder, 320) == folder
    with pytest.raises(ValueError, match="vocab_size=512.*vocab_size=320"):
        prepare(folder, 512)


@pytest.mark.parametrize("name, content, says", [
    ("none.txt", None, "does not exist"),
    ("empty.txt", b"", "is empty"),
    ("blank.txt", b" \n\n", "is empty"),
    ("short.txt", b"To be.", "6 characters.*at least 10,000"),
    ("zero.bin", b"\0\1\2", "binary"),
    ("latin.txt", "caf\u00e9".encode("latin-1"), "not UTF-8.*byte 3"),
])
def test_bad_files_are_refused(tmp_path, name, content, says):
    """One line with what would work, and no folder left behind."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        prepare(tmp_path / name, 320, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_bad_folders_are_refused(tmp_path):
    """Nothing in it, nothing readable in it, a broken text file in it."""
    with pytest.raises(ValueError, match="no readable text file"):
        prepare(tmp_path, 320)
    (tmp_path / "photo.jpg").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="no readable text file"):
        prepare(tmp_path, 320)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="latin.txt.*not UTF-8"):
        prepare(tmp_path, 320)


def test_vocabulary_that_does_not_fit(poem, tmp_path):
    """The tokenizer's own message comes through; nothing is left behind."""
    with pytest.raises(ValueError, match="vocab_size=9000 is too large"):
        prepare(poem, 9000, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "prepared").iterdir())
    other = Tokenizer(prepare(poem, 320, cache=tmp_path) / "tokenizer.model")
    with pytest.raises(ValueError, match="try vocab_size=320"):
        prepare(poem, 330, tokenizer=other)


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab \n\u00e9", max_size=400), size=st.integers(1, 60))
def test_documents_lose_nothing(text, size):
    """Joined they are the text, and none is longer than 1.5 sizes."""
    parts = list(documents_of(text, size))
    assert "".join(parts) == text
    assert all(0 < len(p) <= 1.5 * size for p in parts) or text == ""


def test_documents_end_where_a_reader_would_cut():
    """Behind an empty line if near, else a line, else a space."""
    cuts = [("a" * 6 + "\n\n" + "b" * 9, 6 + 2), ("a b\n" * 9, 8),
            ("aaaa " * 9, 10), ("a" * 40, 10)]
    for text, want in cuts:
        assert len(next(documents_of(text, 10))) == want


@given(st.lists(st.integers(1, 3000), min_size=5, max_size=60))
@settings(max_examples=100, deadline=None)
def test_a_tenth_and_at_least_one_document_is_held_out(sizes):
    """Never all, never nothing, never much more than a tenth."""
    texts = [chr(97 + i % 26) * n for i, n in enumerate(sizes)]
    texts.insert(0, "x" * 10_000)
    split = split_own(texts, "own")
    total = sum(map(len, texts))
    held_out = sum(map(len, split["validation"]))
    assert split["train"] and split["validation"]
    assert total / 10 <= held_out <= total / 10 + 1.5 * total / 20


def test_long_single_line_takes_no_time():
    """Two million characters without a line end: cut in linear time."""
    text = "word " * 400_000
    start = time.process_time()
    assert sum(map(len, documents_of(text, 1000))) == len(text)
    assert time.process_time() - start < 5


KILLED = """
import sys, os
from pathlib import Path
from minillama.data import corpus
real = corpus._write_shards
def slow(*args):
    real(*args)
    print("shards", flush=True)
    sys.stdin.read()
corpus._write_shards = slow
corpus.prepare(Path(sys.argv[1]), 320, cache=Path(sys.argv[2]))
"""


def test_a_kill_leaves_no_half_folder(poem, tmp_path):
    """Killed after the shards and before the index: prepared afresh."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(poem), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline().strip() == b"shards"
    child.kill()
    child.communicate()
    (left,) = (tmp_path / "prepared").iterdir()
    assert left.name.startswith(".partial-")
    # What was killed long ago is swept away by the next run.
    os.utime(left, (time.time() - 7200,) * 2)
    folder = prepare(poem, 320, cache=tmp_path)
    assert list((tmp_path / "prepared").iterdir()) == [folder]
    assert "".join(read_back(folder)[1]["validation"]) in POEM


def test_no_progress_bar_off_the_terminal(poem, tmp_path, capfd):
    """Nothing on stdout or stderr when neither is a terminal."""
    prepare(poem, 320, cache=tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def plays_folder(tmp_path_factory) -> Path:
    """The default corpus with 512 pieces."""
    return prepare(None, 512, cache=tmp_path_factory.mktemp("cache"))


def test_default_corpus_holds_out_one_play(plays_folder):
    """The Tempest, whole and in order; no scene of it is trained on."""
    index, documents = read_back(plays_folder)
    assert list(index["sources"]) == ["plays"]
    tempest = fetch.plays()["The Tempest"]
    assert "\n\n".join(documents["validation"]) == tempest
    assert len(documents["train"]) > 700
    assert not any("PROSPERO" in text for text in documents["train"])
    total = sum(len(t.encode("utf-8")) for t in fetch.plays().values())
    kept = sum(s["bytes"] for part in ("train", "validation")
               for s in index["sources"]["plays"][part])
    # Between two scenes of a play two line ends are dropped.
    scenes = sum(map(len, documents.values()))
    assert kept == total - 2 * (scenes - 38)
