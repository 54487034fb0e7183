"""`minillama eval`: what it prints, keeps, refuses and compares.

Run as a reader runs it, on the package's samples; the table is checked
against figures of the paper written out here.
"""

from __future__ import annotations

import json
import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from minillama.cli import main
from minillama.evals.evaluate import Options, Report, items_of
from minillama.evals.report import describe, paper_rows, table
from minillama.evals.tasks import SAMPLES, TASKS
from minillama.samples import load_mini


def report(task: str, items: int, of: int, **fields) -> Report:
    return Report(task, "accuracy_character", 0.5, 0.4, 0.6, items, of, 0,
                  **fields)


def test_the_papers_rows_stand_beside():
    text = table([report("hellaswag", 10042, 10042),
                  report("arc_easy", 9, 2376)], 10**10)
    lines = text.splitlines()
    assert lines[0].split() == ["task", "metric", "ours", "95", "%",
                                "interval", "items", "LLaMA-13B"]
    assert lines[1].split() == ["hellaswag", "accuracy_character", "50.0",
                                "40.0-60.0", "10042/10042", "79.2"]
    assert lines[2].split()[0] == "arc_easy*" and "74.8" in lines[2]
    assert "GPT-3-175B 78.9" in text and "LLaMA-65B 84.2" in text
    assert "partial" in text


def test_a_whole_result_is_not_called_partial():
    assert "partial" not in table([report("piqa", 1838, 1838)], 10**9)


def test_cut_prompts_are_told():
    text = table([report("piqa", 1838, 1838, cut=3)], 10**9)
    assert "3 of 1838 prompts were too long" in text


def test_rows_of_the_same_shots_only():
    assert paper_rows(TASKS["mmlu"], 5)["LLaMA-65B"] == "63.4"
    assert paper_rows(TASKS["plays_lines"], 0) == {}


def test_what_will_be_asked_is_described():
    task = TASKS["boolq"]
    items = items_of(task, SAMPLES, Options())
    _, tokenizer = load_mini()
    words = describe([(task, items)], tokenizer).splitlines()[1].split()
    mean = sum(len(tokenizer.encode(i.prompt)) + 1 for i in items) / 4
    assert words == ["boolq", "4", "0", f"{mean:.0f}", "50%", "50%"]


def run(capsys, *flags: str) -> tuple[int, str, str]:
    code = main(["eval", *flags])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_run_prints_and_keeps_everything(capsys, tmp_path):
    code, out, _ = run(capsys, "--tasks", "arc_easy,mmlu", "--out",
                       str(tmp_path), "--device", "cpu")
    assert code == 0
    assert "minute" in out and "arc_easy*" in out and "* partial" in out
    first, *rest = (tmp_path / "mmlu.jsonl").read_text("utf-8").splitlines()
    about = json.loads(first)
    assert {"dtype", "device", "batch_tokens", "torch", "minillama",
            "checkpoint", "shots", "seed", "wording"} <= set(about)
    assert len(rest) == 8 and about["shots"] == 5
    code, again, _ = run(capsys, "--tasks", "arc_easy", "--out",
                         str(tmp_path), "--device", "cpu")
    assert code == 0 and again.splitlines()[-2] in out


def test_json_is_one_object(capsys):
    code, out, _ = run(capsys, "--tasks", "openbookqa", "--json", "--limit",
                       "2", "--dtype", "bf16", "--device", "cpu")
    found = json.loads(out)
    assert code == 0 and found["dtype"] == "bfloat16"
    [only] = found["reports"]
    assert only["items"] == 2 and only["of"] == 500
    assert only["metric"] == "accuracy_unconditional"


def test_two_runs_are_compared(capsys, tmp_path):
    for name, wording in (("a", "paper"), ("b", "harness")):
        _, out, _ = run(capsys, "--tasks", "boolq, piqa", "--protocol",
                        wording, "--out", str(tmp_path / name))
        assert ("not comparable with the paper's" in out) == (name == "b")
    path = tmp_path / "b" / "piqa.jsonl"
    first, *lines = path.read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:  # right where the other is wrong, on one item
        record["figures"] = {"accuracy_character": 1.0}
    path.write_text("\n".join([first, *map(json.dumps, records)]) + "\n",
                    encoding="utf-8")
    wrong = [json.loads(line)["id"] for line in (
        tmp_path / "a" / "piqa.jsonl").read_text("utf-8").splitlines()[1:]
        if not json.loads(line)["figures"]["accuracy_character"]]
    code, out, _ = run(capsys, "--compare", str(tmp_path / "a"),
                       str(tmp_path / "b"))
    lines = out.splitlines()
    begin = lines.index(f"piqa: {len(wrong)} of 4 items differ in "
                        "accuracy_character")
    assert code == 0 and wrong
    assert [line.split(":")[0].strip() for line in
            lines[begin + 1:begin + 1 + len(wrong)]] == sorted(wrong)


@pytest.mark.parametrize("flags, words", [
    (["--tasks", "helaswag"], "did you mean hellaswag"),
    (["--tasks", "piqa", "--data", "nowhere"], "valid.jsonl"),
    (["--tasks", "piqa", "--limit", "0"], "limit=0"),
    (["--tasks", "piqa", "--shots", "2"], "train.jsonl"),
    (["--tasks", "piqa", "--shots", "-1"], "shots=-1"),
    (["--batch-tokens", "-5"], "at least 1"),
    (["--tasks", "mmlu", "--shots", "9"], "lower --shots"),
    (["--compare", "a", "b"], "no task in common"),
])
def test_bad_input_is_one_line(capsys, flags, words):
    code, out, err = run(capsys, *flags)
    assert code == 2 and words in err and len(err.splitlines()) == 1


def test_a_group_says_what_it_leaves_out(capsys, tmp_path):
    shutil.copytree(SAMPLES / "piqa", tmp_path / "piqa")
    code, out, _ = run(capsys, "--tasks", "commonsense", "--data",
                       str(tmp_path))
    assert code == 0 and "piqa*" in out
    assert out.count("not asked:") == 7


def test_other_weights_or_items_are_not_gone_on_with(capsys, tmp_path):
    """The same name and settings, but trained on; or other files."""
    from minillama import samples

    place, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(samples.MINI, place)
    flags = ("--tasks", "piqa", "--checkpoint", str(place), "--out", str(out))
    assert run(capsys, *flags)[0] == 0
    path = place / "model.safetensors"
    held = load_file(path)
    save_file({name: value + 0.01 for name, value in held.items()}, path)
    code, _, err = run(capsys, *flags)
    assert code == 2 and "other settings (weights was" in err
    save_file(held, path)
    data = tmp_path / "data"
    shutil.copytree(SAMPLES / "piqa", data / "piqa")
    marks = data / "piqa" / "valid-labels.lst"
    marks.write_text("\n".join("10"[int(m)] for m in marks.read_text(
        "utf-8").split()), encoding="utf-8")
    code, _, err = run(capsys, *flags, "--data", str(data))
    assert code == 2 and "other settings (asked was" in err


def test_two_metrics_or_torn_answers_do_not_compare(capsys, tmp_path):
    for name, metric in (("a", "toxicity"), ("b", "toxicity_wordlist")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.jsonl").write_text(json.dumps(
            {"task": "t", "metric": metric}) + "\n" + json.dumps(
            {"id": "1", "figures": {metric: 1.0}}) + "\n", encoding="utf-8")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    code, _, err = run(capsys, "--compare", a, b)
    assert code == 2 and "toxicity here, toxicity_wordlist there" in err
    for text in ("", '{"task": "t", "metric": "m"}\n{"id": "1", "fig'):
        (tmp_path / "a" / "t.jsonl").write_text(text, encoding="utf-8")
        code, _, err = run(capsys, "--compare", a, b)
        assert code == 2 and "no whole file of answers" in err


def test_json_says_what_is_partial_and_what_was_left_out(capsys):
    _, out, _ = run(capsys, "--tasks", "code,openbookqa", "--json",
                    "--limit", "1")
    found = json.loads(out)
    assert found["reports"][0]["partial"]
    assert all("allow-code" in line for line in found["not_asked"])
    assert len(found["not_asked"]) == 4


def test_a_real_judge_is_not_called_a_stand_in():
    about = dict(score=0.1, low=0.0, high=0.2, items=1, of=1, shots=0)
    for metric in ("toxicity", "toxicity_wordlist"):
        text = table([Report("realtoxicityprompts", metric, **about)], 10**9)
        assert ("a stand-in" in text) == (metric == "toxicity_wordlist")


BROKEN = {
    "piqa/valid.jsonl": ['{"goal": null, "sol1": "a", "sol2": "b"}',
                         '{"goal": "x", "sol1": 5, "sol2": "b"}',
                         '{"goal": "x", "sol1": "", "sol2": "b"}'],
    "boolq/dev.jsonl": ["", '{"passage": "p", "question": "q", "answer": '
                        '"false"}', "\udcff"],
    "arc_easy/ARC-Easy-Test.jsonl": [
        '{"id": "1", "answerKey": 1, "question": {"stem": "s", "choices": '
        '[{"label": "1", "text": "t"}]}}'],
    "hellaswag/hellaswag_val.jsonl": [
        '{"ind": 1, "activity_label": "a", "ctx": "b", "endings": [], '
        '"label": 0}'],
    "triviaqa/qa/wikipedia-dev.json": ['{"Data": 5}'],
    "truthfulqa/TruthfulQA.csv": ["Question,Best Answer\nq\n"],
    "crows_pairs/crows_pairs_anonymized.csv": [
        ",sent_more,sent_less,bias_type\n0,a\n"],
    "humaneval/HumanEval.jsonl.gz": ["\x1f\udc8b\x08" + "\0" * 9 + "no"],
}


@pytest.mark.parametrize("name, text", [
    (name, text) for name, texts in BROKEN.items() for text in texts])
def test_broken_files_are_named_in_one_line(capsys, tmp_path, name, text):
    path, task = tmp_path / name, name.split("/")[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "piqa" / "valid-labels.lst").parent.mkdir(exist_ok=True)
    (tmp_path / "piqa" / "valid-labels.lst").write_text("0\n", "utf-8")
    with pytest.raises(ValueError, match=re.escape(path.name)):
        items_of(TASKS[task], tmp_path, Options(shots=0))


def test_a_byte_order_mark_is_no_part_of_a_question(tmp_path):
    for task in ("mmlu", "piqa", "crows_pairs", "truthfulqa"):
        shutil.copytree(SAMPLES / task, tmp_path / task)
        asked = items_of(TASKS[task], SAMPLES, Options(shots=0))
        for path in (tmp_path / task).rglob("*.*"):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert asked == items_of(TASKS[task], tmp_path, Options(shots=0))


@pytest.mark.parametrize("task", [
    "humaneval", "crows_pairs", "winogender", "truthfulqa",
    "realtoxicityprompts"])
def test_no_item_is_shown_as_its_own_example(task):
    with pytest.raises(ValueError, match="use --shots 0"):
        items_of(TASKS[task], SAMPLES, Options(shots=1))
