"""minillama/data/language.py: asked as CCNet asks it.

Checked against a stand-in for fastText that writes down what it was asked;
and, where the real model lies beside the repository, against declarations
whose language is known.
"""

from __future__ import annotations

import sys
import types

import pytest

from minillama.data.language import LanguageId
from tests.real import real_data

TEXTS = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве.",
}


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A language model that answers English at 0.496, and its questions."""
    questions = []

    class Model:
        def predict(self, text, k):
            assert k == 1 and "\n" not in text  # The real one would raise.
            questions.append(text)
            return (("__label__en",), (0.496,)) if text else ((), ())

    module = types.ModuleType("fasttext")
    module.load_model = lambda path: Model()
    monkeypatch.setitem(sys.modules, "fasttext", module)
    return LanguageId(tmp_path), questions


def test_line_ends_are_deleted_and_scores_rounded(asked):
    guess, questions = asked
    assert guess("one\ntwo \nthree") == ("en", 0.5)
    assert questions == ["onetwo three"]


def test_whatever_is_no_text_is_no_language(asked):
    guess, questions = asked
    assert guess("") == ("", 0.0)
    assert guess("a\ud800b") == ("en", 0.5)
    assert questions[-1] == "a?b"


def test_bad_models(tmp_path, monkeypatch):
    path = tmp_path / "lid.bin"
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="lid.176.ftz"):
        LanguageId(path)
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(ValueError, match=r"minillama\[data\]"):
        LanguageId(path)


def test_the_real_model_knows_the_declaration():
    guess = LanguageId(real_data("models/fasttext/lid.176.ftz"))
    for language, text in TEXTS.items():
        found, score = guess(text)
        assert found == language and score > 0.8
    # Below the threshold of one half: nothing to go by.
    for text in ("", "  \n ", "1234", "\0"):
        assert guess(text)[1] < 0.5
