"""Two small benchmarks made by program from a text that was held out.

Real benchmarks tell nothing about a model of a million parameters: it
guesses. These two ask what such a model can know, in the file formats of
HellaSwag (how does the speech go on?) and ARC (which line is English?).
`samples/evals` holds both, made by `tools/plays.py` from The Tempest, which
the shipped model has not read.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

from minillama.evals.commonsense import hellaswag, science
from minillama.evals.originals import lines_loader
from minillama.evals.protocol import Task

TASKS = (
    Task("plays_endings", "", lines_loader(hellaswag, {
        "validation": ("hellaswag_val.jsonl",)}), "hellaswag_val.jsonl",
        200, "public domain", "validation",
        note="made by program from The Tempest"),
    Task("plays_lines", "", lines_loader(science("Question: {}\nAnswer:"), {
        "test": ("ARC-Easy-Test.jsonl",)}), "ARC-Easy-Test.jsonl", 200,
        "public domain", note="made by program from The Tempest"),
)
"""In HellaSwag's and ARC's formats."""
