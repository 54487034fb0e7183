"""minillama/data/arpa.py: ARPA files as KenLM reads them.

Checked against scores that KenLM's own tests expect for its own sample, where
it lies beside the repository; against scores that KenLM gave, once, for a
file that `write` made; against KenLM itself where it is installed; and
against the model in memory, by properties.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data import arpa
from minillama.data.arpa import BOS, EOS, UNKNOWN, PagePerplexity
from minillama.data.quality import KneserNey
from tests.real import real_data

WORDS = [UNKNOWN, BOS, EOS, "a", "b", "c", "d"]
TRAIN = ["a b c a b", "b c d", "a b d d", "c a b c", "a", "d b a c b",
         "b b c a", "a b c d"]
# What KenLM 0.3.0 answered for TRAIN of order 3, sentence marks included.
KENLM = {
    "a b c": -2.323231, "d d": -1.913857, "": -1.048721,
    "x a b": -3.804669, "c c c c a d": -6.929517,
}
SEQUENCES = st.lists(st.lists(st.integers(3, 6), max_size=8), min_size=1,
                     max_size=6).filter(any)


def ids(text: str) -> list[int]:
    """A sentence as the model reads it."""
    return [1, *(WORDS.index(w) if w in WORDS else 0 for w in text.split()),
            2]


def small(path):
    """The file that `write` makes of TRAIN."""
    model = KneserNey.train(map(ids, TRAIN), len(WORDS), 3)
    arpa.write(model, WORDS, path)
    return model


def test_scores_that_kenlm_gave(tmp_path):
    """log10 p of whole sentences, to 1e-4."""
    small(tmp_path / "a.arpa")
    words, model = arpa.read(tmp_path / "a.arpa")
    for text, want in KENLM.items():
        tokens = [words.get(w, words[UNKNOWN])
                  for w in (BOS, *text.split(), EOS)]
        got = model.log_probs([tokens]).sum() / math.log(10)
        assert got == pytest.approx(want, abs=1e-4), text


@settings(max_examples=40, deadline=None)
@given(train=SEQUENCES, test=SEQUENCES, order=st.integers(1, 4))
def test_what_is_written_is_read(tmp_path_factory, train, test, order):
    path = tmp_path_factory.mktemp("a") / "a.arpa"
    train, test = ([[1, *s, 2] for s in part] for part in (train, test))
    model = KneserNey.train(train, len(WORDS), order)
    arpa.write(model, WORDS, path)
    words, again = arpa.read(path)
    assert list(words) == WORDS
    np.testing.assert_allclose(
        again.log_probs(test), model.log_probs(test), atol=1e-5)


def test_the_file_itself(tmp_path):
    """A unigram model with numbers that can be checked by hand."""
    path = tmp_path / "a.arpa"
    arpa.write(KneserNey.train([[1, 3, 3, 2]], 4, 1), WORDS[:4], path)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[:5] == ["\\data\\", "ngram 1=4", "", "\\1-grams:",
                         lines[4]]
    rows = dict(reversed(line.split("\t")) for line in lines[4:8])
    assert float(rows[BOS]) == -99
    p = {word: 10 ** float(log) for word, log in rows.items()}
    assert p[UNKNOWN] + p[EOS] + p["a"] + p[UNKNOWN] == pytest.approx(
        1, abs=1e-6)  # What <s> has in memory equals what <unk> has.
    assert lines[8:] == ["", "\\end\\", ""]


def test_a_word_of_context_costs_its_backoff(tmp_path):
    path = tmp_path / "a.arpa"
    path.write_text(
        "\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1.5\t</s>\n"
        "-99\t<s>\t-0.25\n-0.5\ta\t-0.125\n-2\tb\n\n\\2-grams:\n"
        "-0.0625\t<s> a\n\n\\end\\\n", encoding="utf-8")
    words, model = arpa.read(path)
    tokens = [words[w] for w in (BOS, "a", "b", "a", EOS)]
    got = model.log_probs([tokens]) / math.log(10)
    np.testing.assert_allclose(
        got, [-0.0625, -2 - 0.125, -0.5, -1.5 - 0.125])
    # The file has no <unk>; a word without back-off loses nothing.
    unknown = model.log_probs([[words[BOS], words[UNKNOWN]]]) / math.log(10)
    assert unknown == pytest.approx(-100.25)


@pytest.mark.parametrize("text", [
    "", "no arpa at all\n", "\\1-grams:\n-1\ta\n\\2-grams:\n-1\ta b\n",
    "\\1-grams:\nx\ta\n", "\\1-grams:\n-1\n",
    "\\1-grams:\n-1\ta\n-1\tb\n\\2-grams:\n-1\ta b\n\\3-grams:\n-1\tb a a\n",
])
def test_a_broken_file_is_named(tmp_path, text):
    path = tmp_path / "bad.arpa"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="language_model=.*bad.arpa"):
        arpa.read(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small unigram tokenizer, and an n-gram model on its pieces."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("lm")
    lines = ["the miller sold his red mill", "a mill by the river 000",
             "the river ran red", "his sacks, the miller said, ran out"] * 5
    with open(folder / "p.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=file,
            model_type="unigram", vocab_size=60, hard_vocab_limit=False,
            minloglevel=2)
    pieces = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "p.model"))
    model = KneserNey.train(
        ([1, *pieces.encode(line), 2] for line in lines), len(pieces), 5)
    arpa.write(model, [pieces.id_to_piece(i) for i in range(len(pieces))],
               folder / "lm.arpa")
    return folder, pieces, model


def test_perplexity_of_a_page_by_definition(models):
    """Pieces and one line end a line, over all lines."""
    folder, pieces, model = models
    page = "The Miller sold 7 sacks\n\nby the r\u00edver"
    lines = ["the miller sold 0 sacks", "", "by the river"]
    encoded = [pieces.encode(line) for line in lines]
    log = model.log_probs([1, *line, 2] for line in encoded).sum()
    count = sum(len(line) + 1 for line in encoded)
    got = PagePerplexity(
        folder / "p.model", folder / "lm.arpa", kenlm=False)(page)
    assert got == pytest.approx(math.exp(-log / count), abs=0.06)
    assert got == round(got, 1)


def test_strange_pages_are_more_surprising(models):
    folder, _, _ = models
    judge = PagePerplexity(folder / "p.model", folder / "lm.arpa",
                           kenlm=False)
    assert judge("the miller sold his red mill") < judge(
        "red red his sold the by") < judge("qqq zzz \u4e0b\u96e8\u4e86")
    assert judge("") > 1  # One line end, and nothing else.


@pytest.mark.oracle
def test_kenlm_says_the_same(models):
    """Where it is installed, which it need not be."""
    pytest.importorskip("kenlm")
    folder, _, _ = models
    ours, theirs = (PagePerplexity(folder / "p.model", folder / "lm.arpa",
                                   kenlm=flag) for flag in (False, None))
    for lines in (["▁the", "▁mill"], [], ["nothing", "known"]):
        assert ours.log10([lines]) == pytest.approx(
            theirs.log10([lines]), abs=1e-4)


def test_kenlms_own_sample():
    """Its file, and the scores that its own tests expect."""
    folder = real_data("models/kenlm")
    words, model = arpa.read(folder / "test.arpa")
    expected = json.loads((folder / "expected_scores.json").read_text("utf-8"))
    told = [(word, score) for word, _, score in expected["sequence"]]
    tokens = [words.get(w, words[UNKNOWN]) for w in (BOS, *dict(told))]
    got = model.log_probs([tokens]) / math.log(10)
    np.testing.assert_allclose(got, [s for _, s in told], atol=1e-4)
    for name in ("test_nounk.arpa", "toy0.arpa", "toy1.arpa"):
        words, model = arpa.read(folder / name)
        assert UNKNOWN in words
