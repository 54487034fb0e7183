"""benchmarks/tuning.py and what chapter 15 quotes: fair, resumable, whole.

A killed run goes on where it was and ends with the result of an undisturbed
one; base and tuned model sit the same examination; the committed file holds
five seeds, was made with today's settings, instructions and weights, and its
summary is recomputed from its runs with numpy.
Table 10 is compared with the averages that Table 16's cells imply.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import tuning
from minillama import instructions, samples
from minillama.data.corpus import prepare
from minillama.evals.paper import printed
from tests.small import sentences

STORED = json.loads(tuning.OUT.read_text(encoding="utf-8"))
SMALL = {**tuning.SETTINGS, "steps": 2, "batch_size": 1, "examples": 30,
         "asked": 42}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text in the vocabulary of the shipped model."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text(sentences(400), encoding="utf-8")
    return prepare(folder / "text.txt", 512, cache=folder / "cache",
                   tokenizer=samples.load_mini()[1])


def outcome(results: dict[str, Any]) -> dict[str, Any]:
    """Everything but the time it took, as it reads back from a file."""
    whole = json.loads(json.dumps(results))
    for run in whole["runs"]:
        del run["seconds"]
    return whole


def test_a_killed_run_goes_on(data, tmp_path, monkeypatch):
    whole = tuning.tuning(tmp_path / "whole.json", data, 2, SMALL)
    cut = tmp_path / "cut.json"
    tuning.tuning(cut, data, 1, SMALL)
    ran = []
    real = tuning.run
    monkeypatch.setattr(tuning, "run", lambda seed, *rest: (
        ran.append(seed), real(seed, *rest))[1])
    again = tuning.tuning(cut, data, 2, SMALL)
    assert ran == [2], "the first seed was there already"
    assert outcome(again) == outcome(whole)
    kept = json.loads(cut.read_text(encoding="utf-8"))
    assert outcome(kept) == outcome(whole)
    with pytest.raises(ValueError, match="other settings or instructions"):
        tuning.tuning(cut, data, 2, {**SMALL, "max_lr": 1e-3})
    first, second = whole["runs"]
    assert first["base"] != first["tuned"], "tuning changes something"
    assert first["loss"] != second["loss"], "seeds differ"


def test_what_is_examined_was_not_learnt_from():
    """New draws, a few of which repeat: there are only 25 sums of two."""
    made = tuning.drawn(3, tuning.SETTINGS)
    learnt = {repr(example) for _, example in made["learnt"]}
    assert not learnt & {repr(example) for _, example in made["kept"]}
    wide = ("last word", "first word")
    new = [repr(e) not in learnt for k, e in made["trained"] if k in wide]
    assert len(new) == 60 and sum(new) >= 55


def test_the_committed_file_is_of_today():
    assert STORED["settings"] == tuning.described(tuning.SETTINGS)
    assert [run["seed"] for run in STORED["runs"]] == [1, 2, 3, 4, 5]
    for run in STORED["runs"]:
        for model in ("base", "tuned"):
            measured = run[model]
            for group, tasks in (("trained", instructions.TRAINED),
                                 ("kept", instructions.KEPT)):
                assert list(measured[group]) == list(tasks)
                asked = sum(n for _, n in measured[group].values())
                assert asked == tuning.SETTINGS["asked"] >= 200
            assert measured["mmlu"][1] == tuning.SETTINGS["asked"]


def test_the_summary_is_that_of_the_runs():
    def column(model: str, name: str) -> np.ndarray:
        rows = []
        for run in STORED["runs"]:
            value = run[model][name]
            pairs = (list(value.values()) if isinstance(value, dict)
                     else [value] if isinstance(value, list) else None)
            rows.append(np.divide(*np.sum(pairs, axis=0)) if pairs
                        else value)
        return np.array(rows)

    student = 2.7764  # of four degrees of freedom, 97.5 %
    for name in tuning.MEASURES:
        base, tuned = column("base", name), column("tuned", name)
        for model, values in (("base", base), ("tuned", tuned)):
            found = STORED["summary"]["models"][model]
            assert found[name] == pytest.approx(values.mean(), abs=1e-4)
            assert found[f"{name}_sd"] == pytest.approx(
                values.std(ddof=1), abs=1e-4)
        gain = tuned - base
        half = student * gain.std(ddof=1) / np.sqrt(5)
        pair = STORED["summary"]["pairs"][name]
        assert [pair["mean"], pair["low"], pair["high"]] == pytest.approx(
            [gain.mean(), gain.mean() - half, gain.mean() + half], abs=3e-4)


def test_table_10_is_the_average_of_table_16():
    """63.4 and 68.9, and how many of the 57 subjects gained."""
    cells = {}
    for model in ("LLaMA", "LLaMA-I"):
        rows = [r for r in printed(table="Table 16") if r["group"]
                and r["model"] == model and r["size"] == "65B"]
        assert len(rows) == 57
        cells[model] = {r["column"]: float(r["value"]) for r in rows}
        total = sum(float(r["value"]) * int(r["count"]) for r in rows)
        [printed_average] = [float(r["value"]) for r in
                             printed(table="Table 10")
                             if r["model"] == model]
        assert total / 14042 == pytest.approx(printed_average, abs=0.06)
    gains = [cells["LLaMA-I"][name] - value
             for name, value in cells["LLaMA"].items()]
    assert (sum(g > 0 for g in gains), sum(g < 0 for g in gains)) == (54, 2)
