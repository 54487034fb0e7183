"""Items are asked, answers kept, scores worked out and taken up again.

Checked against a scorer made here, whose answers are known, so that every
figure can be counted by hand; and a run that is broken off after every chunk
against one that is not.
"""

from __future__ import annotations

import json
import math

import pytest

from minillama.cli import main
from minillama.evals import evaluate as module
from minillama.evals.evaluate import Options, items_of, summarise
from minillama.evals.measures import exact_interval, exact_match
from minillama.evals.protocol import (
    Completion,
    Item,
    Sampling,
    Score,
    Scorer,
    Task,
)
from minillama.evals.training import scores_of
from minillama.train import fit
from tests import small


class Clerk:
    """Likes short continuations; writes its prompt's last word."""

    def __init__(self, patience: float = math.inf) -> None:
        self.asked, self.patience = 0, patience

    def score(self, pairs):
        self.tire(len(pairs))
        return [Score(-float(len(c)), False, len(c.split()), int(len(p) > 90))
                for p, c in pairs]

    def generate(self, prompts, sampling):
        self.tire(len(prompts))
        return [[Completion(p.split()[-1], 1, True)] * sampling.samples
                for p in prompts]

    def tire(self, count: int) -> None:
        self.asked += count
        if self.asked > self.patience:
            raise KeyboardInterrupt


def items(count: int) -> list[Item]:
    return [Item(str(n), f"Question {n}: " + "x" * (n % 7),
                 ("a", "bb", "ccc"), n % 3, group="odd" if n % 2 else "even")
            for n in range(count)]


def load(place, split, wording):
    return items(12) if split == "test" else [
        Item(f"{split}{n}", f"Shown {n}:", ("a", "bb"), n % 2,
             group="odd" if n % 2 else "even", header="About numbers.\n")
        for n in range(6)]


TASK = Task("count", "Count", load, "none", 12, "ours", normalisation="none")


def test_the_clerk_is_a_scorer():
    assert isinstance(Clerk(), Scorer)
    assert not isinstance(object(), Scorer)


def test_scores_are_counted_by_hand():
    records = module.evaluate(Clerk(), TASK, items(12))
    report = summarise(TASK, records)
    # The clerk takes "a", the right one of every third item.
    assert report.score == pytest.approx(4 / 12)
    assert (report.low, report.high) == exact_interval(4, 12)
    assert report.figures["accuracy_none/even"] == pytest.approx(2 / 6)
    assert report.figures["accuracy_character"] == pytest.approx(4 / 12)
    assert report.items == report.of == 12 and not report.partial


def test_a_score_of_fewer_items_is_partial():
    records = module.evaluate(Clerk(), TASK, items(11))
    assert summarise(TASK, records).partial


def test_groups_weigh_by_their_size():
    some = [*items(9), Item("z", "Q", ("a", "bb"), 0, group="one")]
    report = summarise(TASK, module.evaluate(Clerk(), TASK, some))
    assert report.score == pytest.approx(4 / 10)
    groups = [v for k, v in report.figures.items() if "/" in k]
    assert sum(groups) / 3 != pytest.approx(report.score)


def test_every_question_score_and_decision_is_kept(tmp_path):
    out = tmp_path / "deep" / "count.jsonl"
    module.evaluate(Clerk(), TASK, items(3), out=out, about={"v": 1})
    first, *lines = out.read_text("utf-8").splitlines()
    assert json.loads(first) == {"v": 1}
    records = {r["id"]: r for r in map(json.loads, lines)}
    assert records["1"]["pairs"][2] == ["Question 1: x", " ccc"]
    assert records["1"]["picked"] == 0 and records["1"]["gold"] == 1
    assert [s["log_prob"] for s in records["1"]["scores"]] == [-2, -3, -4]
    assert records["0"]["figures"]["accuracy_none"] == 1.0


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_run_goes_on_to_the_same_answers(
        tmp_path, monkeypatch, torn):
    monkeypatch.setattr(module, "CHUNK", 4)
    whole = module.evaluate(Clerk(), TASK, items(18))
    out = tmp_path / "count.jsonl"
    for patience in (25, 25):
        with pytest.raises(KeyboardInterrupt):
            module.evaluate(Clerk(patience), TASK, items(18), out=out)
        if torn:
            out.write_bytes(out.read_bytes()[:-9])
    last = Clerk()
    resumed = module.evaluate(last, TASK, items(18), out=out)
    # Chunks are asked again whole: what is drawn hangs on what lies beside it.
    assert last.asked == 3 * (4 + 4 + 2 if torn else 2)
    assert json.dumps(resumed) == json.dumps(whole)
    kept = out.read_text("utf-8").splitlines()[1:]
    assert [json.loads(line) for line in kept] == json.loads(
        json.dumps(whole))


def test_other_settings_are_refused(tmp_path):
    out = tmp_path / "count.jsonl"
    module.evaluate(Clerk(), TASK, items(3), out=out, about={"shots": 0})
    with pytest.raises(ValueError, match=r"other settings \(shots was 0\)"):
        module.evaluate(Clerk(), TASK, items(3), out=out, about={"shots": 1})


def test_examples_are_the_first_of_the_same_group(tmp_path):
    asked = items_of(TASK, tmp_path, Options(shots=2))
    [third] = [item for item in asked if item.id == "3"]
    assert third.prompt == (
        "Shown 1: bb\n\nShown 3: bb\n\nQuestion 3: xxx")
    assert third.choices == ("a", "bb", "ccc")
    with pytest.raises(ValueError, match="lower --shots"):
        items_of(TASK, tmp_path, Options(shots=4))


def test_the_header_stands_once_before_the_examples():
    item = Item("1", "Q:", ("a",), 0, header="Answer these questions:\n",
                prompts=("P:",))
    example = Item("2", "E:", answers=("yes",), header="Not this.")
    after = item.after([example, example], "\n")
    assert after.prompt == "Answer these questions:\nE: yes\nE: yes\nQ:"
    assert after.prompts == ("Answer these questions:\nE: yes\nE: yes\nP:",)
    assert after.after([], "\n") == after


def test_an_example_shows_its_right_answer():
    assert Item("1", "Q:", ("a", "b"), 1).shown() == "Q: b"
    assert Item("1", "Q:", answers=("x", "y")).shown() == "Q: x"
    assert Item("1", "Q:", ("a",), 0, target="\n42").shown() == "Q:\n42"
    assert Item("1", "", ("end", "end"), 1,
                prompts=("one", "two")).shown() == "two end"


def test_limit_draws_the_same_items_over_the_whole_file(tmp_path):
    few = items_of(TASK, tmp_path, Options(limit=5))
    assert len(few) == 5 and few == items_of(TASK, tmp_path, Options(limit=5))
    assert [int(item.id) for item in few] == sorted(int(i.id) for i in few)
    assert few != items_of(TASK, tmp_path, Options(limit=5, seed=2))
    assert len(items_of(TASK, tmp_path, Options(limit=99))) == 12
    with pytest.raises(ValueError, match="limit=0"):
        items_of(TASK, tmp_path, Options(limit=0))


def test_the_unconditional_baseline_is_asked_where_it_counts():
    task = Task("u", "U", load, "none", 1, "ours",
                normalisation="unconditional")

    class Lopsided(Clerk):
        def score(self, pairs):
            return [Score(-1.0 if p == "Answer:" and "a" in c else -5.0,
                          False, 1) for p, c in pairs]
    item = Item("1", "Q:", ("a", "b"), 1)
    [record] = module.evaluate(Lopsided(), task, [item])
    # -5 - -1 against -5 - -5: the second gains nothing from the question.
    assert record["picked"] == 1
    assert [s["log_prob"] for s in record["baseline"]] == [-1.0, -5.0]


def test_texts_are_drawn_and_judged():
    task = Task("w", "W", load, "none", 2, "ours", judge=exact_match,
                metric="exact_match", sampling=Sampling(4, samples=2))
    asked = [Item("1", "say Yes", answers=("yes",)),
             Item("2", "say No", answers=("yes",))]
    records = module.evaluate(Clerk(), task, asked)
    report = summarise(task, records)
    assert report.metric == "exact_match" and report.score == 0.5
    assert all(len(r["texts"]) == 2 for r in records)


def test_cut_prompts_are_counted_as_items():
    some = [Item("1", "x" * 100, ("a", "b"), 0), Item("2", "x", ("a",), 0)]
    assert summarise(TASK, module.evaluate(Clerk(), TASK, some)).cut == 1


def test_training_asks_at_each_evaluation_and_is_not_disturbed(tmp_path):
    data = small.corpus(tmp_path)
    config = small.run_config(data, tmp_path / "asked")
    look = scores_of("plays_lines", limit=5)
    asked = fit(config, evaluate=look, log=None).metrics
    alone = fit(small.run_config(data, tmp_path / "alone"), log=None).metrics
    name = "eval/plays_lines"
    assert [r["step"] for r in asked if name in r] == [6, 12]
    assert all(r[name] in {n / 5 for n in range(6)}
               for r in asked if name in r)
    assert [r["loss"] for r in asked] == [r["loss"] for r in alone]


def test_training_refuses_a_missing_task_before_the_first_step(
        capsys, tmp_path):
    code = main(["train", "--out", str(tmp_path / "run"), "--eval-tasks",
                 "piqa", "--eval-data", str(tmp_path)])
    assert code == 2 and "valid.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
