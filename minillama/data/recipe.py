"""What is built from what: sources, models and limits of one build.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from minillama.data.mixture import TABLE_1, percentages
from minillama.files import fingerprint

SOURCES = (*TABLE_1, "own")
"""What a build can read: the paper's seven, and the reader's."""

_VERSION = 3
# Input bytes whose hashes one task sorts in memory, and the most parts.
_PART_BYTES, _MOST_PARTS = 2**24, 4096
_RULES = {
    "language_model": ("language of web pages", {"commoncrawl", "c4"}),
    "perplexity_model": ("perplexity of CommonCrawl", {"commoncrawl"}),
    "reference_model": ("pages like Wikipedia's references", {"commoncrawl"}),
    "bad_words": ("bad words of C4", {"c4"}),
}


@dataclass(frozen=True)
class Unit:
    """One raw file, or folder, that is read as a whole."""

    source: str
    """Its name."""
    number: int
    """Its place among the source's units."""
    path: Path
    """Where it lies."""

    @property
    def name(self) -> str:
        """Names the files of this unit."""
        return f"{self.source}-{self.number:06d}"


@dataclass(frozen=True)
class Recipe:
    """What is built from what.

    Raises:
        ValueError: if a field makes no sense.

    Chapter: notebooks/03_mixture.ipynb
    """

    sources: dict[str, Path]
    """By name: the folder or file of the raw data."""
    out: Path
    """The folder to write."""
    tokenizer: Path
    """A SentencePiece model."""
    language_model: Path | None = None
    """`lid.176.ftz`; without it no page is dropped for its language."""
    perplexity_model: Path | None = None
    """CCNet's n-gram model as an ARPA file, with its SentencePiece model and
    its cuts beside it (lm.arpa, lm.model, lm.json: what `data judges`
    writes); without it no page is badly written."""
    reference_model: Path | None = None
    """The classifier of pages that Wikipedia cites; without it all stay."""
    buckets: tuple[str, ...] = ("head", "middle")
    """Which perplexities stay: LLaMA's choice is not published."""
    bad_words: Path | None = None
    """C4's list, one a line; without it no page is dropped for a word."""
    overlap: float = 0.9
    """Texts that share more than this with another one are dropped."""
    near: tuple[str, ...] = ("books",)
    """Sources whose texts are compared so; equal texts always are."""
    weights: dict[str, float] = field(default_factory=dict)
    """Percentages other than Table 1's."""

    def __post_init__(self) -> None:
        for name in (*self.sources, *self.near, *[""][:not self.sources]):
            if name not in SOURCES:
                raise ValueError(f"source {name!r} is unknown; give NAME="
                                 f"PATH with a name of {', '.join(SOURCES)}")
        if not 0 < self.overlap <= 1:
            raise ValueError(
                f"overlap={self.overlap} must be above 0 and at most 1; the "
                "paper's is 0.9")
        if not {*self.buckets} <= {"head", "middle", "tail"}:
            raise ValueError(f"buckets={' '.join(self.buckets)!r}: they are "
                             "head, middle and tail")
        percentages(list(self.sources), self.weights)

    @functools.cached_property
    def models(self) -> dict[str, Path]:
        """All files that the rules rest on, by rule.

        Raises:
            ValueError: if one is missing.
        """
        files = {rule: Path(getattr(self, rule)) for rule in _RULES
                 if getattr(self, rule)}
        if model := files.get("perplexity_model"):
            files |= {f"perplexity_model, {end}": model.with_suffix(end)
                      for end in (".model", ".json")}
        for rule, path in files.items():
            if not path.is_file():
                raise ValueError(
                    f"{rule}={str(path)!r} is not a file; `minillama data "
                    "judges` and `data fetch language-model` make them")
        return files

    @functools.cached_property
    def units(self) -> tuple[Unit, ...]:
        """All raw files.

        Raises:
            ValueError: if a source has none.
        """
        units = []
        for source, path in self.sources.items():
            path = Path(path).resolve()
            found = module(source).inputs(path) if path.exists() else []
            if not found:
                raise ValueError(
                    f"source {source}={str(path)!r} holds no file of this "
                    "source; check the path, or try `minillama data fetch "
                    "--help` for real samples")
            units += [Unit(source, n, p) for n, p in enumerate(found)]
        return tuple(units)

    @functools.cached_property
    def key(self) -> str:
        """Changes whenever the output might."""
        facts = [_VERSION, self.overlap, self.near, self.buckets, sorted(
            self.weights.items()), *((unit.name, unit.path, _state(unit.path))
                                     for unit in self.units)]
        models = {"tokenizer": Path(self.tokenizer), **self.models}
        facts += [(name, fingerprint(path)) for name, path in models.items()]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @functools.cached_property
    def parts(self) -> int:
        """How many parts all hashes are cut into."""
        size = sum(_state(unit.path)[0] for unit in self.units)
        return min(1 + size // _PART_BYTES, _MOST_PARTS)

    @property
    def work(self) -> Path:
        """The folder of what is in between."""
        return Path(self.out) / ".work" / self.key

    def rules_off(self) -> list[str]:
        """Rules that nobody applies, because what they need is not given."""
        return [f"{words} (--{rule.replace('_', '-')})"
                for rule, (words, sources) in _RULES.items()
                if sources & set(self.sources) and getattr(self, rule) is None]


def module(source: str) -> ModuleType:
    """The module that reads a source."""
    return importlib.import_module(f"minillama.data.{source}")


def _state(path: Path) -> tuple[int, int, int]:
    """Bytes, files and the time of the last change below a path."""
    files = [path] if path.is_file() else [
        file for file in Path(path).rglob("*") if file.is_file()]
    each = [file.stat() for file in files]
    return (sum(s.st_size for s in each), len(each),
            max((s.st_mtime_ns for s in each), default=0))
