"""`minillama eval`: what it prints, keeps, refuses and compares.

Run as a reader runs it, on the package's samples; the table is checked
against figures of the paper written out here.
"""

from __future__ import annotations

import json
import shutil

import pytest

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
