"""minillama/data/build.py and what it rests on, from raw files to training.

Oracles: a build in plain Python over all documents at once (a dictionary of
texts, a search over all pairs, `Seen` over the whole crawl), and the ids that
the tokenizer gives. Properties: the books balance; the same set of documents
whatever the order of files and records; the same bytes for any number of
workers and after any number of kills. How clusters run it: test_engines.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from minillama.batches import Batches
from minillama.cli import main
from minillama.data import build as building
from minillama.data import c4, ccnet, commoncrawl, own, results
from minillama.data.build import build
from minillama.data.dedup import text_key
from minillama.data.document import Document, Ledger
from minillama.data.engines import Cluster
from minillama.data.recipe import Recipe, Unit
from minillama.data.seen import Seen
from minillama.shards import open_streams
from minillama.tokenizer import Tokenizer
from tests.small import sentences

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "minillama" / "samples" / "mini" / "tokenizer.model"
BROKEN = ["{broken", "[1, 2]", '{"id": "no text"}', '{"text": " "}']


def records(seed: int = 0) -> list[dict[str, str]]:
    """Documents with equal texts, near copies and strangers among them."""
    draw = random.Random(seed)
    words = sentences(200, seed).split()
    rows = []
    for number in range(40):
        text = draw.choices(words, k=120)
        rows.append({"id": f"{number:02d}", "text": " ".join(text)})
        if number % 4 == 0:  # 1 word of 120 is 4 % of the runs of five
            text[60] = "changed"
            rows.append({"id": f"n{number:02d}", "text": " ".join(text)})
        if number % 5 == 0:
            rows.append({"id": f"e{number:02d}", "text": rows[-1]["text"]})
    return rows


def write_rows(folder: Path, rows: list[dict[str, str]], files: int) -> Path:
    """Rows dealt out to jsonl files, a few broken lines in each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = [json.dumps(row) for row in rows[number::files]] + BROKEN
        (folder / f"{number}.jsonl").write_text(
            "\n".join(lines), encoding="utf-8")
    return folder


def recipe(out: Path, near: tuple[str, ...] = ("own",), **sources: Path
           ) -> Recipe:
    return Recipe(sources, out, MODEL, near=near)


def documents(out: Path, source: str = "own") -> dict[str, str]:
    """Id to text of what a build kept."""
    found = {}
    for path in sorted((out / "documents" / source).glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                assert row["source"] == source and row["id"] not in found
                found[row["id"]] = row["text"]
    return found


def content(out: Path) -> dict[str, bytes]:
    """Every file that a build is for, with its bytes."""
    return {str(path.relative_to(out)): path.read_bytes()
            for path in sorted(out.rglob("*")) if path.is_file()
            and ".work" not in path.parts and path.name != "recipe.json"}


def by_hand(rows: Iterable[dict[str, str]]) -> dict[str, str]:
    """What has to stay: plain Python, all in memory, all pairs."""
    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.lower().replace(".", "").replace(",", "").split()
        return set(zip(*(words[i:] for i in range(5))))

    kept: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row["id"]):
        mine = runs(row["text"])
        if not any(len(mine & runs(text)) / max(len(mine), len(runs(text)))
                   > 0.9 for text in kept.values()):
            kept[row["id"]] = row["text"]
    return kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An undisturbed build with one worker."""
    folder = tmp_path_factory.mktemp("whole")
    write_rows(folder / "in", records(), 3)
    assert build(recipe(folder / "out", own=folder / "in"))
    return folder


def test_what_stays_is_what_a_search_over_all_pairs_leaves(whole):
    wanted = by_hand(records())
    assert documents(whole / "out") == wanted
    # Near copies, and equal ones, were really there.
    assert len(records()) == 58 and len(wanted) == 40


def test_the_books_balance(whole):
    stats = json.loads((whole / "out" / "stats.json").read_bytes())
    book = stats["sources"]["own"]
    assert book["in"] == len(records()) + 3 * len(BROKEN)
    assert book["in"] == book["kept"] + sum(book["dropped"].values())
    assert book["kept"] == len(documents(whole / "out")) == (
        book["train"]["documents"] + book["validation"]["documents"])
    assert book["dropped"] == {
        "no text": 6, "not a JSON object": 6,
        "equal to another document": 8,
        "over 90% overlap with another": 10}


def test_shards_hold_the_ids_of_what_stayed(whole):
    tokenizer, wanted = Tokenizer(MODEL), {"train": [], "validation": []}
    for path in sorted((whole / "out/documents/own").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                held = int(text_key(f"own\t{row['id']}"), 16) % 500 == 0
                wanted["validation" if held else "train"] += (
                    tokenizer.encode(row["text"], bos=True, eos=True))
    for split in ("train", "validation"):
        streams = open_streams(whole / "out", split)
        found = [int(i) for s in streams.values() for i in s.read(0, len(s))]
        assert found == wanted[split]


def test_the_trainer_reads_it(whole):
    batch = next(Batches(whole / "out", seq_len=64, batch_size=4, seed=1))
    assert batch.inputs.shape == (4, 64)
    index = json.loads((whole / "out" / "index.json").read_bytes())
    assert index["sources"]["own"]["weight"] == 4.5
    mixture = json.loads((whole / "out" / "mixture.json").read_bytes())
    assert mixture["own"] == {"percent": 4.5, "paper_epochs": None,
                              "tokens": index["sources"]["own"]["train"][0][
                                  "tokens"]}


@pytest.mark.parametrize("seed, files", [(1, 3), (2, 1), (3, 7)])
def test_order_of_files_and_records_does_not_matter(
    whole, tmp_path, seed, files
):
    rows = records()
    random.Random(seed).shuffle(rows)
    write_rows(tmp_path / "in", rows, files)
    assert build(recipe(tmp_path / "out", own=tmp_path / "in"))
    assert documents(tmp_path / "out") == documents(whole / "out")


def test_two_workers_write_the_same_bytes(whole, tmp_path):
    assert build(recipe(tmp_path / "out", own=whole / "in"),
                 Cluster(workers=2))
    assert content(tmp_path / "out") == content(whole / "out")


def test_hashes_in_several_parts_give_the_same_bytes(
    whole, tmp_path, monkeypatch
):
    monkeypatch.setattr("minillama.data.recipe._PART_BYTES", 5000)
    made = recipe(tmp_path / "out", own=whole / "in")
    assert made.parts > 5
    assert build(made)
    assert content(tmp_path / "out") == content(whole / "out")


def test_kills_leave_no_trace(whole, tmp_path):
    """kill -9 at random moments, then once more to the end."""
    draw = random.Random(time.time_ns())
    out = tmp_path / "out"
    command = [sys.executable, "-m", "minillama", "data", "build", "--source",
               f"own={whole / 'in'}", "--out", str(out), "--near", "own",
               "--tokenizer", str(MODEL)]
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(command, cwd=ROOT,
                                   stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (out / "recipe.json").is_file() and (
                process.poll() is None and time.monotonic() < deadline):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.6))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills > 0
    done = subprocess.run(command, cwd=ROOT, capture_output=True,
                          encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(whole / "out")
    assert "own" in done.stdout
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("step", [
    "read", "duplicates", "overlap", "write", "index"])
def test_a_step_that_breaks_off_is_done_again(
    whole, tmp_path, monkeypatch, step
):
    """Killed in the middle of each step in turn: half its items are done."""
    work, calls = getattr(building, step), []

    def fragile(made: Recipe, item: object) -> None:
        calls.append(item)
        if len(calls) == 2 or step in ("overlap", "index"):
            work(made, item)
        if len(calls) >= 1:
            raise KeyboardInterrupt

    fragile.__name__ = step
    made = recipe(tmp_path / "out", own=whole / "in")
    monkeypatch.setattr(building, step, fragile)
    with pytest.raises(KeyboardInterrupt):
        build(made)
    monkeypatch.undo()
    assert build(made)
    assert content(tmp_path / "out") == content(whole / "out")


def test_a_finished_build_is_left_alone_and_another_recipe_starts_anew(
    whole, tmp_path
):
    out = tmp_path / "out"
    made = recipe(out, own=whole / "in")
    assert build(made)
    stamp = (out / "stats.json").stat().st_mtime_ns
    assert build(made)
    assert (out / "stats.json").stat().st_mtime_ns == stamp
    assert build(recipe(out, near=(), own=whole / "in"))
    assert len(documents(out)) == 50
    assert len(list((out / ".work").iterdir())) == 1


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear", encoding="utf-8")
    (tmp_path / "in.txt").write_text("text", encoding="utf-8")
    with pytest.raises(ValueError, match="something else"):
        build(recipe(tmp_path / "out", own=tmp_path / "in.txt"))
    assert (tmp_path / "out" / "letter.txt").is_file()


def wet(pages: list[tuple[str, str]]) -> bytes:
    """A WET file with these addresses and texts."""
    parts = []
    for name, text in pages:
        body = f"Title\n{text}".encode()
        parts.append(
            b"WARC/1.0\r\nWARC-Type: conversion\r\n"
            b"WARC-Record-ID: <urn:%s>\r\nWARC-Target-URI: http://x/%s\r\n"
            b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
            % (name.encode(), name.encode(), len(body)) + body + b"\r\n\r\n")
    return b"".join(parts)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    """Pages that share lines and spans, within a file and across files."""
    draw = random.Random(9)
    lines = [line for line in sentences(150, 4).splitlines() if "the" in line]
    shared = [f"This is menu line number {n * 'i'}, on many pages."
              for n in range(6)]
    folder = tmp_path_factory.mktemp("crawl")
    for file in range(3):
        pages = []
        for number in range(8):
            own_lines = [f"Page {file} {number} says: {line}"
                         for line in draw.sample(lines, 9)]
            at = draw.randint(0, 5)
            own_lines[at:at] = shared[:draw.randint(0, 6)]
            pages.append((f"p{file}{number}", "\n".join(own_lines)))
        (folder / f"{file}.warc.wet").write_bytes(wet(pages))
    return folder


def test_commoncrawl_is_what_all_pages_in_memory_give(crawl, tmp_path):
    assert build(recipe(tmp_path / "out", commoncrawl=crawl))
    pages = [page for path in commoncrawl.inputs(crawl)
             for page in commoncrawl.read(path, Ledger())]
    pages.sort(key=lambda page: page.id)
    seen = Seen.of((rank, ccnet.line_hashes(page.text))
                   for rank, page in enumerate(pages))
    wanted = {left.id: left.text for page in pages
              if (left := ccnet.drop_repeated_lines(page, seen, Ledger()))}
    assert documents(tmp_path / "out", "commoncrawl") == wanted
    stats = results.read(tmp_path / "out")
    book = stats["sources"]["commoncrawl"]
    assert book["in"] == 24 and book["lines"]["in several documents"] > 20
    assert any("language" in rule for rule in stats["rules_off"])


def test_c4_is_what_all_pages_in_memory_give(crawl, tmp_path, monkeypatch):
    # Punkt's model takes ten seconds to load and is not what is tested here.
    monkeypatch.setattr(c4, "sentence_splitter", lambda: (
        lambda text: re.findall(r"[^.]+\.?", text)))
    building._judges.cache_clear()
    assert build(recipe(tmp_path / "out", c4=crawl))
    building._judges.cache_clear()
    rules = c4.Rules(c4.sentence_splitter())
    pages = [done for path in c4.inputs(crawl)
             for page in c4.read(path, Ledger())
             if (done := c4.finish(page, rules, Ledger()))]
    pages.sort(key=lambda page: page.id)
    seen = Seen.of((rank, c4.span_hashes(page.text, rules.sentences))
                   for rank, page in enumerate(pages))
    wanted = {left.id: left.text for rank, page in enumerate(pages)
              if (left := c4.drop_repeated_spans(
                  page, rank, seen, rules.sentences, Ledger()))}
    assert documents(tmp_path / "out", "c4") == wanted
    assert wanted != {page.id: page.text for page in pages}


def test_equal_documents_of_two_sources_stay_once(tmp_path, crawl):
    text = "\n".join(f"Line {n * 'x'} is here, and it ends well."
                     for n in range(30))
    (tmp_path / "0.warc.wet").write_bytes(wet([("one", text)]))
    (tmp_path / "own.jsonl").write_text(json.dumps(
        {"text": text, "id": "two"}), encoding="utf-8")
    assert build(recipe(tmp_path / "out", own=tmp_path / "own.jsonl",
                        commoncrawl=tmp_path / "0.warc.wet"))
    assert list(documents(tmp_path / "out", "commoncrawl")) == ["urn:one"]
    assert documents(tmp_path / "out") == {}


def test_a_reader_that_breaks_costs_the_rest_of_its_file(
    tmp_path, monkeypatch, capsys
):
    def read(path: Path, ledger: Ledger) -> Iterable[Document]:
        for number in range(3):
            yield ledger.keep(Document(
                "own", f"{path.stem}\t\n{number}", f"{path.stem}\ud800 " * 9
                + str(number), {"odd": {1, 2}}))
        if path.stem == "bad":
            raise RuntimeError("hostile file")

    monkeypatch.setattr(own, "read", read)
    for name in ("bad", "good"):
        (tmp_path / f"{name}.txt").write_text("x", encoding="utf-8")
    assert build(recipe(tmp_path / "out", own=tmp_path))
    book = results.read(tmp_path / "out")["sources"]["own"]
    assert book["in"] == 7 and book["kept"] == 6
    assert book["dropped"] == {"file broken (RuntimeError)": 1}
    assert "hostile file" in capsys.readouterr().err


def test_a_file_without_a_document_is_counted(tmp_path):
    for name in ("none.txt", "some.txt"):
        (tmp_path / name).write_text("x" * (name == "some.txt"), "utf-8")
    assert build(recipe(tmp_path / "out", own=tmp_path))
    book = results.read(tmp_path / "out")["sources"]["own"]
    assert book["kept"] == 1
    assert book["dropped"] == {"file without a document": 1}


def test_a_long_id_is_not_carried_by_every_line(tmp_path, monkeypatch):
    monkeypatch.setattr(commoncrawl, "read", lambda path, ledger: iter([
        ledger.keep(Document("commoncrawl", "i" * 60_000, "a\n" * 99))]))
    path = tmp_path / "a.warc"
    path.write_bytes(b"x")
    (page,) = building._guarded(
        Unit("commoncrawl", 0, path), Ledger())
    assert page.id == text_key("i" * 60_000)


def test_of_several_with_one_id_the_same_stays_in_any_order(tmp_path):
    near = " ".join(map(str, range(100)))
    rows = [{"id": 1, "text": "equal", "k": k} for k in range(5)]
    rows += [{"id": 2, "text": f"{near} {k}"} for k in range(5)]
    found = []
    for turn in (1, -1):
        write_rows(tmp_path / "in", rows[::turn], 2)
        out = tmp_path / f"out{turn}"
        assert build(recipe(out, own=tmp_path / "in"))
        found.append(sorted(
            line for path in out.rglob("documents/own/*.gz")
            for line in gzip.decompress(path.read_bytes()).splitlines()))
    assert found[0] == found[1]
    assert [json.loads(line)["id"] for line in found[0]] == ["1", "2"]


def test_a_missing_package_ends_the_build(tmp_path, monkeypatch):
    def read(path: Path, ledger: Ledger) -> Iterable[Document]:
        try:
            import no_such_package  # noqa: F401
        except ImportError:
            raise ValueError("needs no_such_package; pip install") from None
        yield

    monkeypatch.setattr(own, "read", read)
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match="no_such_package"):
        build(recipe(tmp_path / "out", own=tmp_path))


@pytest.mark.parametrize("changes, says", [
    ({"sources": {"blogs": Path()}}, "'blogs' is unknown.*commoncrawl"),
    ({"sources": {}}, "NAME=PATH"),
    ({"near": ("poems",)}, "'poems'"),
    ({"overlap": 0.0}, "overlap=0.0.*0.9"),
    ({"weights": {"own": -1.0}}, "own=-1"),
    ({"weights": {"c4": 1.0}}, "c4=1"),
])
def test_recipes_that_make_no_sense(tmp_path, changes, says):
    given = {"sources": {"own": tmp_path}, "out": tmp_path / "out",
             "tokenizer": MODEL, **changes}
    with pytest.raises(ValueError, match=says):
        Recipe(**given)


def test_empty_sources_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="source own=.*no file"):
            build(recipe(tmp_path / "out", own=path))


def test_the_command_line(whole, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["data", "build", "--source", f"own={whole / 'in'}", "--near",
               "own", "--out", str(out), "--tokenizer", str(MODEL),
               "--weight", "own=7"]
    assert main(command) == 0
    assert "90% overlap" in capsys.readouterr().out
    assert content(out)["shards/own-train-00000.bin"] == (
        content(whole / "out")["shards/own-train-00000.bin"])
    assert main(["data", "stats", str(out), "--json", "--tokens", "1e6"]) == 0
    book = json.loads(capsys.readouterr().out)["sources"]["own"]
    assert book["run"]["tokens"] == 1e6
    assert book["run"]["epochs"] == pytest.approx(
        1e6 / book["train"]["tokens"])
    assert main(["data", "stats", str(out), "--tokens", "1e6"]) == 0
    epoch = int(book["run"]["epochs"]) + 1
    assert f"starts epoch {epoch}" in capsys.readouterr().out
    for wrong in (["--source", "own"], ["--source", "own=a", "own=b"],
                  ["--source", f"own={tmp_path / 'no'}"],
                  ["--source", f"own={whole / 'in'}", "--weight", "own=x"]):
        assert main(["data", "build", "--out", str(out), "--tokenizer",
                     str(MODEL), *wrong]) == 2
    assert main(["data", "build", "--source", "own=x", "--out", "y"]) == 2
    assert main(["data", "stats", str(whole)]) == 2
    assert capsys.readouterr().err.count("\n") == 6


def own_documents(path: Path) -> tuple[list[Document], Ledger]:
    ledger = Ledger()
    return list(own.read(path, ledger)), ledger


def test_own_text_files_are_cut_between_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "_PIECE", 500)
    path = tmp_path / "story.txt"
    text = sentences(100)
    path.write_text("\ufeff" + text, encoding="utf-8")
    found, ledger = own_documents(path)
    assert "".join(document.text for document in found) == text
    assert len(found) > 5 and ledger.seen == ledger.kept == len(found)
    assert all(document.text.endswith("\n") for document in found)
    assert found[0].metadata == {"file": "story.txt"}
    path.write_text("x" * 5_000, encoding="utf-8")
    sizes = [len(document.text) for document in own_documents(path)[0]]
    assert sizes == [1_000] * 5


def test_own_jsonl_drops_what_it_cannot_read(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "MAX_LINE", 200)
    lines = [b'{"text": "one", "id": 5, "k": [1]}', b'{"text": "' + b"x" * 900
             + b'"}', b"\xff\xfe", b"", b"[" * 150, b'{"text": "two"}']
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    found, ledger = own_documents(path)
    assert [(d.id, d.text) for d in found] == [
        ("5", "one"), (text_key("two"), "two")]
    assert found[0].metadata == {"k": [1]}
    assert ledger.dropped == {"not a JSON object": 3}


def test_own_parquet_is_read_by_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({
        "text": ["one", None, "two"], "id": [1, 2, 3],
        "score": [0.5, 1.0, None]}), path)
    found, ledger = own_documents(path)
    assert [(d.id, d.text, d.metadata["score"]) for d in found] == [
        ("1", "one", 0.5), ("3", "two", None)]
    assert ledger.dropped == {"no text": 1}
    path.write_bytes(b"PAR1 broken")
    assert build(recipe(tmp_path / "out", own=tmp_path))
    book = results.read(tmp_path / "out")["sources"]["own"]
    assert book["dropped"] == {"file broken (ArrowInvalid)": 1}


def test_own_finds_its_files_by_name(tmp_path):
    for name in ("b/x.TXT", "a.parquet", "c.jsonl.gz", "d.pdf", "e.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in own.inputs(tmp_path)] == [
        "a.parquet", "x.TXT", "c.jsonl.gz", "e.md"]
    assert own.inputs(tmp_path / "d.pdf") == [tmp_path / "d.pdf"]


def test_shards_are_closed_when_they_are_full(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "SHARD_BYTES", 4000)
    assert build(recipe(tmp_path / "out", own=whole / "in"))
    stream = open_streams(tmp_path / "out", "train")["own"]
    one = open_streams(whole / "out", "train")["own"]
    assert len(stream.files) == 3 and len(one.files) == 1
    assert np.array_equal(stream.read(0, len(stream)), one.read(0, len(one)))
