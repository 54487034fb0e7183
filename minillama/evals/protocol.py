"""How a language model is asked: items, tasks, and two questions to a model.

Everything in this room sees a model through `Scorer`, which has two methods:
how likely is this text after that one, and what do you write after this. An
`Item` is one question in the model's own terms (text), a `Task` says how a
benchmark becomes items and how answers become a score.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Pair = tuple[str, str]
"""A context and the text that may continue it."""

Wording = Literal["paper", "harness"]
"""Whose prompts: the paper's (and GPT-3's), or lm-evaluation-harness's."""


@dataclass(frozen=True)
class Score:
    """How likely a continuation is."""

    log_prob: float
    """Sum of the log-probabilities of its tokens, in nats."""
    greedy: bool
    """Whether every token is the likeliest one."""
    tokens: int
    """Tokens of the continuation."""
    cut: int = 0
    """Tokens of the context that did not fit and were left out, in front."""


@dataclass(frozen=True)
class Sampling:
    """How text is drawn."""

    max_tokens: int = 64
    """Tokens of one text, at most."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    temperature: float = 0.0
    """Divides the logits; 0 takes the likeliest token every time."""
    top_p: float = 1.0
    """Keep the likeliest tokens until their probabilities reach this."""
    samples: int = 1
    """Texts for each prompt."""
    seed: int = 1
    """Seed of the draws."""


@dataclass(frozen=True)
class Completion:
    """One text that a model wrote."""

    text: str
    """What follows the prompt, before the stop string."""
    tokens: int
    """Tokens drawn, those of the stop string too."""
    ended: bool
    """Whether it came to an end by itself, before max_tokens."""
    cut: int = 0
    """Tokens of the prompt that did not fit and were left out, in front."""


@runtime_checkable
class Scorer(Protocol):
    """What the benchmarks need of a model."""

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """The log-probability of each continuation after its context."""

    def generate(
        self, prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Completion]]:
        """`sampling.samples` texts after each prompt."""


@dataclass(frozen=True)
class Item:
    """One question of a benchmark, as text."""

    id: str
    """Its name in the file, or its line; unique in the task."""
    prompt: str
    """What the model reads, up to where the answer begins."""
    choices: tuple[str, ...] = ()
    """Continuations to compare, without the delimiter; none: write freely."""
    gold: int | None = None
    """Index of the right choice."""
    answers: tuple[str, ...] = ()
    """Texts that count as right, where the model writes freely."""
    prompts: tuple[str, ...] = ()
    """A prompt for each choice, where they differ (WinoGrande)."""
    target: str = ""
    """What an example shows after its prompt; empty: the right answer."""
    group: str = ""
    """Category, or domain/subject; examples come from the same one."""
    header: str = ""
    """Stands once, before the examples."""
    delimiter: str = " "
    """Stands between prompt and answer."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Whatever else the judge needs (tests of a program, a category)."""

    def pairs(self) -> list[Pair]:
        """Context and continuation of each choice."""
        prompts = self.prompts or (self.prompt,) * len(self.choices)
        return [(prompt, self.delimiter + choice)
                for prompt, choice in zip(prompts, self.choices)]

    def shown(self) -> str:
        """The item as an example: its prompt and the right answer."""
        if self.target or self.gold is None:
            answer = self.target or self.delimiter + self.answers[0]
            return self.prompt + answer
        return "".join(self.pairs()[self.gold])

    def after(self, examples: Sequence[Item], separator: str) -> Item:
        """The same item with examples before it.

        Chapter: notebooks/14_evaluation.ipynb
        """
        before = self.header + "".join(
            example.shown() + separator for example in examples)
        return replace(self, prompt=before + self.prompt, header="",
                       prompts=tuple(before + p for p in self.prompts))


@dataclass(frozen=True)
class Answer:
    """What a model said to one item."""

    scores: tuple[Score, ...] = ()
    """Of each choice after the prompt."""
    baseline: tuple[Score, ...] = ()
    """Of each choice after `Task.baseline` alone, where that is asked."""
    texts: tuple[Completion, ...] = ()
    """What it wrote, one text a sample."""


Judge = Callable[[Item, Answer], dict[str, float]]
"""Figures of one item by name; the task's metric is one of them."""

Loader = Callable[[Path, str, Wording], list[Item]]
"""Folder, split and wording to items; ValueError names file and line."""


@dataclass(frozen=True)
class Task:
    """How one benchmark is asked and judged.

    The same fields fill the table of the book and the manifest, so that a
    protocol is written down once.
    """

    name: str
    """On the command line, and the folder in DATA unless `folder` is."""
    title: str
    """Its column in the paper's tables (`samples/paper_tables.csv`)."""
    load: Loader
    """Reads a split in the benchmark's original format."""
    file: str
    """Where the split lies, for the manifest and for messages."""
    count: int
    """Items in the whole split that the paper used."""
    licence: str
    """As its authors state it."""
    split: str = "test"
    """The split that is scored."""
    shots: int = 0
    """Examples before each item."""
    shots_split: str = "train"
    """The split that examples come from."""
    separator: str = "\n\n"
    """Stands after each example."""
    judge: Judge | None = None
    """None: multiple choice."""
    metric: str = "accuracy"
    """The figure of the judge that is printed as the score."""
    normalisation: str = "character"
    """How choices of different length are compared (`measures`)."""
    baseline: str = "Answer:"
    """The context of the `unconditional` normalisation."""
    sampling: Sampling | None = None
    """How text is drawn; None where nothing is."""
    runs_code: bool = False
    """Whether judging runs programs that the model wrote."""
    note: str = ""
    """What one must know to read the score."""
    folder: str = ""
    """Where the files lie in DATA, for a second task on the same ones."""
