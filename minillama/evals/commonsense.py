"""Table 3: eight benchmarks of common sense, asked without examples.

The paper prints no prompts; it follows GPT-3 (Brown et al. 2020, appendix
G), whose templates are used here. SIQA is not in GPT-3 and is asked as
lm-evaluation-harness asks it.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Callable

from minillama.evals.originals import Row, lines_loader
from minillama.evals.protocol import Item, Loader, Task, Wording


def _boolq(row: Row, wording: Wording) -> Item:
    q, a = (("question", "answer") if wording == "paper"
            else ("Question", "Answer"))
    return Item("", f"{row['passage']}\n{q}: {row['question']}?\n{a}:",
                ("no", "yes"), [False, True].index(row["answer"]))


def _piqa(row: Row, wording: Wording) -> Item:
    prompt = (row["goal"] if wording == "paper"
              else f"Question: {row['goal']}\nAnswer:")
    return Item("", prompt, (row["sol1"], row["sol2"]), int(row["label"]))


def _siqa(row: Row, wording: Wording) -> Item:
    return Item("", f"Q: {row['context']} {row['question']}\nA:",
                tuple(row[f"answer{letter}"] for letter in "ABC"),
                int(row["label"]) - 1)


def hellaswag(row: Row, wording: Wording) -> Item:
    """An activity, the begin of its description, four ends of it.

    Chapter: notebooks/14_evaluation.ipynb
    """
    if wording == "paper":
        return Item(str(row["ind"]), f"{row['activity_label']}: {row['ctx']}",
                    tuple(row["endings"]), int(row["label"]))
    prompt = (f"{row['activity_label']}: {row['ctx_a']} "
              f"{row['ctx_b'].capitalize()}")
    return Item(str(row["ind"]), _plain(prompt),
                tuple(map(_plain, row["endings"])), int(row["label"]))


def _plain(text: str) -> str:
    """WikiHow's marks such as [title] and [step] taken out."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _winogrande(row: Row, wording: Wording) -> Item:
    before, after = row["sentence"].split("_", 1)
    options = row["option1"], row["option2"]
    return Item(row.get("qID", ""), row["sentence"], (after.strip(),) * 2,
                int(row["answer"]) - 1,
                prompts=tuple(before + option for option in options))


def science(template: str) -> Callable[[Row, Wording], Item]:
    """ARC and OpenBookQA: a stem and lettered (or numbered) choices.

    Chapter: notebooks/14_evaluation.ipynb
    """
    def make(row: Row, wording: Wording) -> Item:
        choices = row["question"]["choices"]
        labels = [choice["label"] for choice in choices]
        return Item(row["id"], template.format(row["question"]["stem"]),
                    tuple(choice["text"] for choice in choices),
                    labels.index(row["answerKey"].strip()))
    return make


def _arc(kind: str) -> Loader:
    return lines_loader(science("Question: {}\nAnswer:"), {
        "test": (f"ARC-{kind}-Test.jsonl",),
        "validation": (f"ARC-{kind}-Dev.jsonl",),
        "train": (f"ARC-{kind}-Train.jsonl",)})


TASKS = (
    Task("boolq", "BoolQ", lines_loader(_boolq, {
        "validation": ("dev.jsonl",), "train": ("train.jsonl",)}),
        "dev.jsonl", 3270, "CC BY-SA 3.0", "validation",
        normalisation="unconditional"),
    Task("piqa", "PIQA", lines_loader(_piqa, {
        "validation": ("valid.jsonl", "dev.jsonl"),
        "train": ("train.jsonl",)}, {
        "validation": ("valid-labels.lst", "dev-labels.lst"),
        "train": ("train-labels.lst",)}),
        "valid.jsonl, valid-labels.lst", 1838, "AFL-3.0", "validation"),
    Task("siqa", "SIQA", lines_loader(_siqa, {
        "validation": ("dev.jsonl",), "train": ("train.jsonl",)}, {
        "validation": ("dev-labels.lst",), "train": ("train-labels.lst",)}),
        "dev.jsonl, dev-labels.lst", 1954, "not stated", "validation",
        note="not in GPT-3; the wording is lm-evaluation-harness's"),
    Task("hellaswag", "HellaSwag", lines_loader(hellaswag, {
        "validation": ("hellaswag_val.jsonl",),
        "train": ("hellaswag_train.jsonl",)}),
        "hellaswag_val.jsonl", 10042, "MIT", "validation"),
    Task("winogrande", "WinoGrande", lines_loader(_winogrande, {
        "validation": ("dev.jsonl",), "train": ("train_xl.jsonl",)}),
        "dev.jsonl", 1267, "CC BY", "validation", normalisation="none",
        note="the same ending under each option, so nothing to normalise"),
    Task("arc_easy", "ARC-e", _arc("Easy"), "ARC-Easy-Test.jsonl", 2376,
         "CC BY-SA 4.0"),
    Task("arc_challenge", "ARC-c", _arc("Challenge"),
         "ARC-Challenge-Test.jsonl", 1172, "CC BY-SA 4.0"),
    Task("openbookqa", "OBQA", lines_loader(science("{}"), {
        "test": ("test.jsonl",), "validation": ("dev.jsonl",),
        "train": ("train.jsonl",)}),
        "test.jsonl", 500, "Apache-2.0", normalisation="unconditional"),
)
"""Table 3, in its order."""
