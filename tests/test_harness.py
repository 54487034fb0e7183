"""lm-evaluation-harness and we agree, request by request and nat by nat.

Oracle: lm-eval itself. Its Hugging Face model with the weights of ours scores
our pairs; its own task files, run from local files in the columns that they
expect, make their requests; and our model inside it answers like outside.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from benchmarks.hugging_face import twin, twin_tokenizer
from minillama.evals.evaluate import Options, ask, items_of
from minillama.evals.harness import harness_model
from minillama.evals.measures import pick
from minillama.evals.protocol import Answer, Score
from minillama.evals.scorers import LlamaScorer
from minillama.evals.tasks import SAMPLES, TASKS
from minillama.samples import MINI, load_mini
from tests.originals import write_all, write_lines

pytestmark = pytest.mark.oracle
CHOICE = [name for name, task in TASKS.items() if task.title and not (
    task.sampling or task.judge)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def ours():
    return LlamaScorer(*load_mini())


@pytest.fixture(scope="module")
def theirs():
    from lm_eval.models.huggingface import HFLM

    return HFLM(twin(load_mini()[0]).eval(), device="cpu", batch_size=16,
                tokenizer=twin_tokenizer(MINI / "tokenizer.model"),
                add_bos_token=True, max_length=256)


def request(kind: str, *args):
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, tuple(args), 0)


@pytest.mark.parametrize("name", CHOICE)
def test_log_likelihoods_and_choices_are_hflms(name, ours, theirs, data):
    place = data if (data / name).is_dir() else SAMPLES
    task = TASKS[name]
    items = items_of(task, place, Options(limit=8, seed=3))
    pairs = [pair for item in items for pair in item.pairs()]
    wanted = theirs.loglikelihood(
        [request("loglikelihood", *pair) for pair in pairs],
        disable_tqdm=True)
    bare = theirs.loglikelihood(
        [request("loglikelihood", task.baseline, p[1]) for p in pairs],
        disable_tqdm=True)
    nats, base = iter(wanted), iter(bare)
    for item, answer in zip(items, ask(ours, task, items)):
        scores = tuple(Score(*next(nats), s.tokens) for s in answer.scores)
        for mine, other in zip(answer.scores, scores):
            assert mine.log_prob == pytest.approx(other.log_prob, abs=1e-4)
            assert mine.greedy == other.greedy
        their_base = tuple(
            Score(*next(base), s.tokens) for s in answer.scores)
        for rule in ("none", "character", "token", task.normalisation):
            assert pick(item, answer, rule) == pick(
                item, Answer(scores, their_base), rule)


def test_rolling_log_likelihoods_are_hflms(ours, theirs):
    text = "\n".join(item.prompt for item in items_of(
        TASKS["race_high"], SAMPLES, Options()))
    texts = ["A king", text, text[:900]]
    theirs.add_bos_token = False  # it puts one before every text itself
    wanted = theirs.loglikelihood_rolling(
        [request("loglikelihood_rolling", t) for t in texts],
        disable_tqdm=True)
    theirs.add_bos_token = True
    found = harness_model(ours).loglikelihood_rolling(
        [request("loglikelihood_rolling", t) for t in texts])
    assert found == pytest.approx(wanted, abs=2e-3, rel=2e-6)


# Our original rows in the columns of the hub's copies, which its task files
# read: where each task file lies, and what to do with a row.
def _lettered(row):
    choices = row["question"]["choices"]
    return {"id": row["id"], "answerKey": row["answerKey"],
            "question": row["question"]["stem"],
            "question_stem": row["question"]["stem"], "choices": {
                "text": [c["text"] for c in choices],
                "label": [c["label"] for c in choices]}}


def _race(row):
    return {"article": row["article"], "problems": repr([
        {"question": q, "options": o, "answer": a} for q, o, a in zip(
            row["questions"], row["options"], row["answers"])])}


def _winogender(row):
    occupation, participant, right, *_ = row["sentid"].split(".")
    words = re.findall(r"\w+", row["sentence"].lower())
    [pronoun] = {"she", "her", "hers", "he", "him", "his", "they", "them",
                 "their", "theirs"} & set(words)
    return {"sentence": row["sentence"], "pronoun": pronoun, "label": right,
            "occupation": occupation, "participant": participant}


HUB = {
    "boolq": ("super_glue/boolq/default.yaml",
              lambda row: {**row, "label": int(row["answer"])}),
    "piqa": ("piqa/piqa.yaml", lambda row: {**row, "label":
                                            int(row["label"])}),
    "siqa": ("siqa/siqa.yaml", lambda row: row),
    "hellaswag": ("hellaswag/hellaswag.yaml",
                  lambda row: {**row, "label": str(row["label"])}),
    "winogrande": ("winogrande/default.yaml", lambda row: row),
    "arc_easy": ("arc/arc_easy.yaml", _lettered),
    "arc_challenge": ("arc/arc_challenge.yaml", _lettered),
    "openbookqa": ("openbookqa/openbookqa.yaml", _lettered),
    # Its task file is of the harder half; the easier one has the same form.
    "race_high": ("race/race.yaml", _race),
    "race_middle": ("race/race.yaml", _race),
    "crows_pairs": ("crows_pairs/crows_pairs_english.yaml", lambda row: {
        name: row[name] for name in ("sent_more", "sent_less")}),
    "winogender": ("winogender/winogender.yaml", _winogender),
}


def rows(place: Path) -> list[dict]:
    """Rows of a task's folder, labels of another file among them."""
    files = sorted(f for f in place.rglob("*") if f.suffix in (
        ".jsonl", ".txt"))
    found = [json.loads(line) for f in files
             for line in f.read_text("utf-8").splitlines()]
    for path in (place / "crows_pairs_anonymized.csv",
                 place / "all_sentences.tsv"):
        if path.exists():
            with open(path, encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(
                    file, delimiter="\t" if path.suffix == ".tsv" else ","))
    for path in place.glob("*-labels.lst"):
        for row, mark in zip(found, path.read_text("utf-8").split()):
            row["label"] = mark
    return found


def its_requests(folder: Path, source: Path, rows: list[dict],
                 name: str) -> list[tuple]:
    """The requests that a task file of lm-eval makes of these rows."""
    folder.mkdir()
    for path in source.parent.glob("*.py"):
        (folder / path.name).write_text(path.read_text("utf-8"), "utf-8")
    write_lines(folder / "rows.json", rows)
    text = source.read_text("utf-8")
    if base := re.search(r"^include: (\S+)", text, re.M):
        # What the file says stands in place of what it includes.
        text = (source.parent / base[1]).read_text("utf-8").replace(
            f"task: {base[1].removesuffix('.yaml')}\n", f"task: {name}\n")
    split = "test" if "test_split: test" in text else "validation"
    text = re.sub(r"^tag:\n( +- .*\n)+|^(dataset_(path|name)|"
                  r"(training|validation|test)_split):.*\n",
                  "", text, flags=re.M)
    text += (f"\ndataset_path: json\n{split}_split: {split}\n"
             "dataset_kwargs:\n  data_files:\n"
             f"    {split}: {folder / 'rows.json'}\n")
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return made_of(folder, re.search(r"^task: (\S+)", text, re.M)[1])


def made_of(folder: Path, name: str) -> list[tuple]:
    """The requests of the task of this name in a folder of task files."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    [task] = manager.load_task_or_group(name).values()
    task.build_all_requests(limit=None, rank=0, world_size=1)
    return [tuple(instance.args) for instance in task.instances]


@pytest.mark.parametrize("name", HUB)
def test_our_requests_are_those_of_its_task_files(
        name, data, tmp_path, monkeypatch):
    import lm_eval.tasks

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file, columns = HUB[name]
    source = Path(lm_eval.tasks.__file__).parent / file
    place = data if (data / name).is_dir() else SAMPLES
    wanted = its_requests(tmp_path / "task", source, [
        columns(row) for row in rows(place / name)], name)
    items = items_of(TASKS[name], place, Options("harness"))
    found = [pair for item in items for pair in item.pairs()]
    assert sorted(found) == sorted(wanted)
    assert len(found) >= (30 if place == data else 18)


def test_our_requests_are_those_of_its_mmlu(tmp_path, monkeypatch):
    """With the five examples and the heading of one subject."""
    import lm_eval.tasks
    import yaml

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
    task = yaml.safe_load((place / "_default_template_yaml").read_text(
        "utf-8")) | yaml.safe_load((place / "mmlu_astronomy.yaml").read_text(
            "utf-8"))
    files = {}
    for split in ("test", "dev"):
        path = SAMPLES / "mmlu" / split / f"astronomy_{split}.csv"
        with open(path, encoding="utf-8", newline="") as file:
            cells = list(csv.reader(file))
        files[split] = str(tmp_path / f"{split}.json")
        write_lines(Path(files[split]), [
            {"question": row[0], "choices": row[1:5],
             "answer": "ABCD".index(row[5])} for row in cells])
    for name in ("include", "tag", "dataset_name"):
        del task[name]
    task |= {"dataset_path": "json", "num_fewshot": 5,
             "dataset_kwargs": {"data_files": files}}
    (tmp_path / "mmlu").mkdir()
    (tmp_path / "mmlu" / "one.yaml").write_text(yaml.safe_dump(task), "utf-8")
    wanted = made_of(tmp_path / "mmlu", "mmlu_astronomy")
    found = [pair for item in items_of(
        TASKS["mmlu"], SAMPLES, Options("harness"))
        if item.group == "STEM/astronomy" for pair in item.pairs()]
    assert sorted(found) == sorted(wanted) and len(found) == 16


def test_its_evaluation_of_our_model_is_ours(ours, data, tmp_path):
    """acc and acc_norm through its evaluator, on a task of its own form."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    write_lines(tmp_path / "rows.json", [
        {"goal": row["goal"], "choices": [row["sol1"], row["sol2"]],
         "label": int(row["label"])} for row in rows(data / "piqa")])
    (tmp_path / "twoways.yaml").write_text(
        "task: twoways\ndataset_path: json\ntest_split: test\n"
        f"dataset_kwargs:\n  data_files:\n    test: {tmp_path}/rows.json\n"
        "output_type: multiple_choice\ndoc_to_text: '{{goal}}'\n"
        "doc_to_choice: choices\ndoc_to_target: label\n"
        "metric_list:\n  - metric: acc\n  - metric: acc_norm\n", "utf-8")
    result = simple_evaluate(
        harness_model(ours), tasks=["twoways"], bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(tmp_path),
                                 include_defaults=False))
    items = items_of(TASKS["piqa"], data, Options())
    answers = ask(ours, TASKS["piqa"], items)
    for metric, rule in (("acc,none", "none"), ("acc_norm,none",
                                                "character")):
        right = sum(pick(i, a, rule) == i.gold
                    for i, a in zip(items, answers))
        assert result["results"]["twoways"][metric] == right / len(items)


def test_texts_end_where_it_says(ours):
    model = harness_model(ours)
    wish = {"until": ["\n"], "max_gen_toks": 30}
    [text] = model.generate_until([request(
        "generate_until", "My lord, I have", wish)])
    assert text and "\n" not in text
    [short] = model.generate_until([request(
        "generate_until", "My lord, I have",
        {"until": text[3], "max_gen_toks": 30})])
    assert short == text[:text.index(text[3])]
