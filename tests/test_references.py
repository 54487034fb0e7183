"""minillama/data/references.py: what Wikipedia cites, and who looks like it.

Checked against a dump written out by hand; against scikit-learn's own
probabilities and area under the curve; against an interval by resampling.
"""

from __future__ import annotations

import bz2
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.data.references import (
    CitedPages,
    address_key,
    area_under_curve,
    cited_addresses,
)
from tests.real import real_data

PAGE = """  <page>
    <title>Mill</title>
    <text>A mill.&lt;ref&gt;{{cite web|url=https://www.Mills.org/a/|title=A}}
&lt;/ref&gt; See [http://not-in-a-ref.org this].
&lt;ref name="b"&gt;[http://b.org/x?y=1&amp;amp;z=2
B], http://c.org/c.&lt;/ref&gt;&lt;ref name="b" /&gt; http://no.org
&lt;ref group=n&gt;no address&lt;/ref&gt;</text>
  </page>
"""
WANTED = ["mills.org/a", "b.org/x?y=1&z=2", "c.org/c"]


@pytest.mark.parametrize("zipped", [False, True])
def test_addresses_in_references(tmp_path, zipped):
    path = tmp_path / ("d.xml.bz2" if zipped else "d.xml")
    text = (f"<mediawiki>\n{PAGE}{PAGE}</mediawiki>\n").encode()
    path.write_bytes(bz2.compress(text) if zipped else text)
    assert list(cited_addresses(path)) == WANTED * 2


def test_a_broken_dump_gives_what_is_there(tmp_path):
    path = tmp_path / "d.xml"
    # An article without end is cut, and the next one is read again.
    huge = b"<page>\n" + b"x" * 20_000_000 + b"\n</page>\n"
    path.write_bytes(huge + PAGE.encode() + PAGE.encode()[:-30])
    assert list(cited_addresses(path)) == WANTED * 2
    cut = tmp_path / "d.xml.bz2"
    cut.write_bytes(bz2.compress(PAGE.encode())[:-20])
    list(cited_addresses(cut))


@pytest.mark.parametrize("one, other", [
    ("http://a.org/b", "https://www.a.org/b/"), ("HTTP://A.org", "a.org#x"),
    ("http://a.org/b.", "http://a.org/b"),
])
def test_one_page_two_addresses(one, other):
    assert address_key(one) == address_key(other)
    assert address_key("a.org/b?x=1") != address_key("a.org/b?x=2")


def texts(words: str, count: int, seed: int) -> list[str]:
    """Pages of random words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(words.split(), k=30)) for _ in range(count)]


CITED = texts("study census river bridge was built in the of", 40, 1)
OTHERS = texts("buy cheap shoes now the best of in deals was", 40, 2)


@pytest.mark.oracle
def test_probabilities_are_scikit_learns(tmp_path):
    """The stored weights answer as the fitted model does."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    ours = CitedPages.train(CITED, OTHERS)
    features = HashingVectorizer(
        ngram_range=(1, 2), alternate_sign=False, n_features=2**18)
    theirs = SGDClassifier(loss="log_loss", random_state=0).fit(
        features.transform(CITED + OTHERS), [1] * 40 + [0] * 40)
    test = texts("river shoes the built deals", 9, 3)
    want = theirs.predict_proba(features.transform(test))[:, 1]
    np.testing.assert_allclose(ours.scores(test), want, rtol=1e-9)
    ours.save(tmp_path / "m.npz")
    again = CitedPages.load(tmp_path / "m.npz")
    assert [again(text) for text in test] == ours.scores(test).tolist()


def test_it_learns_and_forgets_no_side():
    model = CitedPages.train(CITED[:30], OTHERS[:30])
    assert model.scores(CITED[30:]).min() > 0.5
    assert model.scores(OTHERS[30:]).max() < 0.5
    with pytest.raises(ValueError, match="0 cited pages and 40 others"):
        CitedPages.train([], OTHERS)


SCORES = st.lists(st.integers(0, 5).map(float), min_size=2, max_size=12)


@pytest.mark.oracle
@settings(deadline=None)
@given(SCORES, SCORES)
def test_the_area_is_scikit_learns(cited, others):
    from sklearn.metrics import roc_auc_score

    area, low, high = area_under_curve(np.array(cited), np.array(others))
    want = roc_auc_score([1] * len(cited) + [0] * len(others),
                         cited + others)
    assert area == pytest.approx(want)
    assert 0 <= low <= area <= high <= 1


def test_the_interval_against_resampling():
    """2,000 samples with replacement; the ends agree to 0.01."""
    draw = np.random.default_rng(0)
    cited, others = draw.normal(1, 1, 150), draw.normal(0, 1, 200)
    areas = [area_under_curve(draw.choice(cited, 150),
                              draw.choice(others, 200))[0]
             for _ in range(2000)]
    _, low, high = area_under_curve(cited, others)
    assert np.allclose(np.percentile(areas, [2.5, 97.5]), [low, high],
                       atol=0.01)


def test_real_dump():
    """The addresses in an excerpt of the English Wikipedia of 2010."""
    path = real_data("sources/wikipedia/"
                     "enwiki-latest-pages-articles1.xml-p10-p30302-"
                     "shortened.bz2")
    found = list(cited_addresses(path))
    assert len(found) > 1000
    assert not any(set("<>[]| ") & set(key) for key in found)
