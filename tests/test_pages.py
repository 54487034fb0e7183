"""minillama/data/pages.py and benchmarks/cleaning.py: a fair comparison.

The pages are read with another parser (the standard library's) to see that
nothing of a scene is lost on the way into HTML and out again; all arms are
judged on the same text; the committed results hold five seeds an arm, and
their summary is computed again with numpy.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cleaning
from minillama.config import ModelConfig
from minillama.data import corpus, pages
from minillama.shards import validation_ids
from minillama.tokenizer import Tokenizer

MODEL = (Path(__file__).parent.parent / "minillama" / "samples" / "mini"
         / "tokenizer.model")
SCENE = ("ACT I, SCENE I. A <small> room.\n\nA & B:\nWho is there?\n"
         "Nobody, I think, or else it is the wind & the rain.\n\n[Exeunt]\n")
LINES = [line for line in SCENE.splitlines() if line]


def plays(count: int = 4) -> dict[str, str]:
    """Small plays with two scenes each, and the one that is held out."""
    titles = [f"Play {n}" for n in range(count)] + [corpus.HELD_OUT_PLAY]
    return {title: "\n\n\n".join(
        SCENE.replace("Nobody", f"{title} {scene}").strip("\n")
        for scene in "ab") + "\n" for title in titles}


def article(page: str) -> list[str]:
    """Lines of the element `article`, by the standard library's parser."""
    class Reader(HTMLParser):
        inside, text = False, ""

        def handle_starttag(self, tag, attributes):
            self.inside |= tag == "article"

        def handle_endtag(self, tag):
            self.inside &= tag != "article"

        def handle_data(self, data):
            self.text += data * self.inside

    reader = Reader()
    reader.feed(page)
    return [line for line in reader.text.splitlines() if line.strip()]


def test_a_page_holds_its_scene():
    page = pages.page(SCENE, ["One", "Two"])
    assert article(page) == LINES
    assert page.startswith("<!DOCTYPE html>")
    assert "<small>" not in page and page.count("nav-item") == 2


def test_the_site_has_mirrors_and_lacks_the_held_out_play():
    site = pages.site(plays())
    assert len(site) == 8 + 3 and len(set(site)) == 8
    assert site[0] == site[1] != site[2]
    assert not any(corpus.HELD_OUT_PLAY in page for page in site)


def test_three_ways_to_read_the_same_site():
    site = pages.site(plays())
    raw, text, cleaned = (pages.read_site(arm, site) for arm in pages.ARMS)
    assert raw == site and len(text) == len(raw)
    # Text has the menu and the footer, and the mirrors; cleaned has neither.
    assert all("Play 0\nPlay 1" in one and "Copyright" in one for one in text)
    assert len(cleaned) == len(set(cleaned)) == 8
    for one in cleaned:
        assert "Copyright" not in one and len(one.splitlines()) == len(LINES)


def test_all_arms_are_judged_on_the_same_text(tmp_path):
    tokenizer = Tokenizer(MODEL)
    made = [pages.prepare_arm(arm, plays(), tokenizer, tmp_path)
            for arm in pages.ARMS]
    held = [validation_ids(folder).tolist() for folder in made]
    assert held[0] == held[1] == held[2]
    text = tokenizer.decode(held[0])
    assert corpus.HELD_OUT_PLAY in text and "<" not in text.replace(
        "<small>", "")
    with pytest.raises(ValueError, match="'all'.*raw"):
        pages.prepare_arm("all", plays(), tokenizer, tmp_path)


def test_the_experiment_goes_on_where_it_was(tmp_path):
    data = {arm: pages.prepare_arm(
        arm, plays(24), Tokenizer(MODEL), tmp_path) for arm in pages.ARMS}
    small = dict(steps=2, warmup_steps=1, batch_size=2, model=ModelConfig(
        16, 1, 1, multiple_of=2, vocab_size=512, max_seq_len=16))
    out = tmp_path / "out.json"
    cleaning.experiments(out, data, 1, **small)
    first = json.loads(out.read_bytes())["runs"]
    both = cleaning.experiments(out, data, 2, **small)
    assert both["runs"][:3] == first and len(both["runs"]) == 6
    assert set(both["summary"]["pairs"]) == {
        "text for raw", "cleaned for text"}


def test_the_committed_results():
    results = json.loads(cleaning.OUT.read_bytes())
    bits = {arm: np.array([run["bits_per_byte"] for run in sorted(
        results["runs"], key=lambda run: run["seed"])
        if run["arm"] == arm]) for arm in pages.ARMS}
    assert results["summary"] == cleaning.summarise(results["runs"])
    assert {arm: len(of) for arm, of in bits.items()} == dict.fromkeys(
        pages.ARMS, 5)
    for arm, of in bits.items():
        row = results["summary"]["arms"][arm]
        assert row["mean"] == pytest.approx(of.mean(), abs=1e-4)
        assert row["sd"] == pytest.approx(of.std(ddof=1), abs=1e-4)
    for before, after in zip(pages.ARMS, pages.ARMS[1:]):
        d = bits[after] - bits[before]
        row = results["summary"]["pairs"][f"{after} for {before}"]
        half = 2.7764 * d.std(ddof=1) / 5**0.5  # Student, 4 degrees
        assert row["low"] == pytest.approx(d.mean() - half, abs=3e-4)
        assert row["high"] == pytest.approx(d.mean() + half, abs=3e-4)
