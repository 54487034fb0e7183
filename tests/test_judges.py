"""minillama/data/judges.py, and a build that asks all of CommonCrawl's judges.

A town of pages whose fate is known beforehand: cited ones written like the
articles of a small dump, sales pages that nobody cites, letters thrown
together, pages in another language. Oracles: percentiles and judges asked by
hand in one process. Properties: the order of files does not matter, the same
files come out twice, every step's books follow on the last one's.
"""

from __future__ import annotations

import bz2
import json
import random

import numpy as np
import pytest

from minillama.cli import main
from minillama.data import build as building
from minillama.data import ccnet, commoncrawl, judges, results
from minillama.data.arpa import PagePerplexity
from minillama.data.document import Ledger
from minillama.data.references import CitedPages
from tests.real import real_data
from tests.test_build import MODEL, documents, wet

WORDS = ("river bridge town was built in by the of a mill stood old century "
         "stone its and people near church first king").split()
SALE = ("buy cheap shoes now best deals click here free shipping the of "
        "in and offer today only").split()
CUTS = {"head_below": 340.0, "middle_below": 520.0}


def prose(words: list[str], draw: random.Random, lines: int = 12) -> str:
    """Lines of words, no two alike."""
    return "\n".join(" ".join(draw.choices(words, k=12)) + "."
                     for _ in range(lines))


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A dump of 80 articles that cite 60 pages, and a crawl of 150."""
    folder, draw = tmp_path_factory.mktemp("town"), random.Random(3)
    articles = "".join(
        f"<page>\n<title>A{n}</title>\n<ns>0</ns>\n<id>{n}</id>\n<revision>\n"
        f"<id>{n}</id>\n<text>{prose(WORDS, draw)}\n&lt;ref&gt;"
        f"http://x/c{n}&lt;/ref&gt;</text>\n</revision>\n</page>\n"
        for n in range(80))
    (folder / "dump.xml").write_text(
        f'<mediawiki xml:lang="en">\n{articles}</mediawiki>\n', "utf-8")
    letters = ["".join(draw.choices("qxzjkvw", k=6)) for _ in range(400)]
    pages = [(f"c{n}", prose(WORDS, draw)) for n in range(60)]
    pages += [(f"s{n}", prose(SALE + WORDS, draw)) for n in range(50)]
    pages += [(f"l{n}", prose(letters, draw)) for n in range(30)]
    pages += [(f"d{n}", prose([*WORDS, "und"] * 2, draw)) for n in range(10)]
    draw.shuffle(pages)
    (folder / "crawl").mkdir()
    for n in range(3):
        (folder / "crawl" / f"{n}.warc.wet").write_bytes(wet(pages[n::3]))
    (folder / "lid.ftz").write_bytes(b"not asked: see Language")
    command = ["data", "judges", "--wikipedia-dump",
               str(folder / "dump.xml"), "--crawl", str(folder / "crawl"),
               "--out", str(folder / "judges"), "--vocab-size", "200",
               "--order", "3"]
    assert main(command) == 0
    return folder


class Language:
    """A stand-in for fastText: German is what says `und`."""

    def __init__(self, path: object) -> None:
        pass

    def __call__(self, text: str) -> tuple[str, float]:
        return ("de" if " und " in text else "en"), 0.9


def by_hand(town, **changes) -> ccnet.Models:
    """The judges that a build is to ask."""
    folder = town / "judges"
    return ccnet.Models(
        Language(None), PagePerplexity(folder / "lm.model",
                                       folder / "lm.arpa"),
        CitedPages.load(folder / "cited.npz"),
        **json.loads((folder / "lm.json").read_bytes()), **changes)


def made(town, out, *more: str) -> dict:
    """The books of a build by the command line."""
    assert main(["data", "build", "--source", f"commoncrawl={town / 'crawl'}",
                 "--out", str(out), "--tokenizer", str(MODEL),
                 "--language-model", str(town / "lid.ftz"),
                 "--perplexity-model", str(town / "judges" / "lm.arpa"),
                 "--reference-model", str(town / "judges" / "cited.npz"),
                 *more]) == 0
    return results.read(out)["sources"]["commoncrawl"]


@pytest.fixture(autouse=True)
def language(monkeypatch):
    monkeypatch.setattr("minillama.data.language.LanguageId", Language)
    building._judges.cache_clear()
    yield
    building._judges.cache_clear()


def pages_of(town) -> list:
    return [page for path in commoncrawl.inputs(town / "crawl")
            for page in commoncrawl.read(path, Ledger())]


def test_the_cuts_are_the_percentiles_of_the_crawl(town):
    judge = by_hand(town).perplexity
    surprise = [judge(page.text) for page in pages_of(town)]
    cuts = json.loads((town / "judges" / "lm.json").read_bytes())
    assert [*cuts.values()] == pytest.approx(
        np.percentile(surprise, [30, 60]), abs=0.06)
    worst = sorted(pages_of(town), key=lambda p: judge(p.text))[-30:]
    assert all(page.metadata["url"].startswith("http://x/l")
               for page in worst)


def test_pages_are_dropped_for_every_reason(town, tmp_path, capsys):
    book = made(town, tmp_path / "out")
    printed = capsys.readouterr().out
    ledger, models = Ledger(), by_hand(town)
    wanted = {left.id: left.text for page in pages_of(town)
              if (left := ccnet.finish(page, models, ledger))}
    assert documents(tmp_path / "out", "commoncrawl") == wanted
    assert book["dropped"] == dict(ledger.dropped) and wanted
    assert {*book["dropped"]} == {
        "another language", "perplexity in the tail",
        "not like a cited page"}
    assert book["dropped"]["another language"] == 10
    chain = list(book["steps"].items())
    assert [name for name, _ in chain] == [
        "read", "repeats", "language", "perplexity", "reference",
        "duplicates"]
    for (_, before), (name, after) in zip(chain, chain[1:]):
        assert after["in"] == before["kept"], name
    assert chain[0][1]["in"] == book["in"] == 150
    assert chain[-1][1]["kept"] == book["kept"] == len(wanted)
    buckets = book["buckets"]
    assert sum(buckets.values()) == len(wanted) and "tail" not in buckets
    assert "140 of 150 left by language" in printed
    assert f"{buckets['head']} kept: head" in printed
    assert "perplexity of CommonCrawl" not in printed  # no rule is off
    kept = [id[4] for id in wanted]  # urn:c17
    assert kept.count("c") > 40 and kept.count("l") == 0


def test_the_buckets_are_the_readers_choice(town, tmp_path):
    book = made(town, tmp_path / "out", "--buckets", "tail")
    ledger, models = Ledger(), by_hand(town, keep_buckets=("tail",))
    left = [page for page in pages_of(town)
            if ccnet.finish(page, models, ledger)]
    assert book["dropped"] == dict(ledger.dropped)
    assert book["buckets"] == ({"tail": len(left)} if left else {})
    assert "perplexity in the head" in book["dropped"]
    command = ["data", "build", "--source", "own=x", "--out", "y",
               "--tokenizer", str(MODEL), "--buckets", "best"]
    assert main(command) == 2


def test_each_judge_alone_is_all_together(town):
    models = by_hand(town)
    assert list(models.each()) == ["language", "perplexity", "reference"]
    assert ccnet.Models().each() == {}
    for page in pages_of(town)[:40]:
        one_by_one = page
        for judge in models.each().values():
            one_by_one = one_by_one and ccnet.finish(
                one_by_one, judge, Ledger())
        assert one_by_one == ccnet.finish(page, models, Ledger())


def test_cited_pages_are_told_from_others(town, capsys):
    report = judges.train(town / "dump.xml", town / "crawl",
                          town / "again", vocab_size=200, order=3)
    assert report["cited"] == 60 and report["others"] == 90
    assert not report["stand_in"]
    area, low, high = report["auc"]
    assert 0.8 < low <= area <= high
    # A second time gives the same files.
    for name in ("lm.arpa", "lm.model", "lm.json"):
        assert (town / "again" / name).read_bytes() == (
            town / "judges" / name).read_bytes()


def test_order_and_sample(town, tmp_path):
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    for n, path in enumerate(sorted((town / "crawl").iterdir())):
        (crawl / f"{9 - n}.warc.wet").write_bytes(path.read_bytes())
    one, other = (judges.train(
        town / "dump.xml", folder, tmp_path / folder.parent.name,
        vocab_size=200, order=2, sample=40)
        for folder in (crawl, town / "crawl"))
    assert one == other and one["articles"] == one["pages"] == 40
    assert one["cited"] == 40 and one["stand_in"]  # under FEWEST


def test_what_is_missing_is_said(town, tmp_path, capsys):
    (tmp_path / "a.warc.wet").write_bytes(wet([("a", "short")]))
    with pytest.raises(ValueError, match="crawl 0 pages.*at least 10"):
        judges.train(town / "dump.xml", tmp_path, tmp_path / "out")
    (town / "lonely").mkdir()
    (town / "lonely" / "lm.arpa").write_bytes(b"")
    for flag, name in (("perplexity", "lonely/lm.arpa"),
                       ("reference", "none.npz")):
        assert main(["data", "build", "--out", str(tmp_path / "o"),
                     "--source", f"commoncrawl={town / 'crawl'}",
                     "--tokenizer", str(MODEL), f"--{flag}-model",
                     str(town / name)]) == 2
        assert f"{flag}_model" in capsys.readouterr().err


@pytest.mark.slow
def test_real_pages(tmp_path):
    """Real articles judge real pages; too few are cited, and it says so."""
    dump = real_data("sources/wikipedia/enwiki-latest-pages-articles1.xml-"
                     "p10-p30302-shortened.bz2")
    with bz2.open(dump) as file:
        (tmp_path / "start.xml").write_bytes(file.read(1_200_000))
    report = judges.train(
        tmp_path / "start.xml",
        real_data("sources/commoncrawl/dolma_sample-0000.warc.gz"),
        tmp_path / "out", vocab_size=1000, order=3, sample=50)
    assert report["stand_in"] and report["articles"] >= 10
    assert 0 < report["head_below"] < report["middle_below"]
