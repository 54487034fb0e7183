"""CCNet: lines seen twice go, then language, then perplexity.

The pipeline of Wenzek et al. (2020), which LLaMA's CommonCrawl went through,
rule by rule as published:

1. every line is normalised and hashed, `line_hashes`;
2. a line that stands in more than one document is removed from all of them,
   `drop_repeated_lines`;
3. the language is told from what is left, and others are dropped;
4. a 5-gram model of Wikipedia gives the page a perplexity, which puts it in
   the head, the middle or the tail, `finish`.

LLaMA adds a classifier: is this a page that Wikipedia would cite? It stands
in `references`, and `finish` asks it last.

Each step counts in a ledger of its own: what came in is what the first one
saw, and what stayed is what the last one kept.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt64

from minillama.data.document import Document, Ledger
from minillama.data.seen import Seen

MIN_LANGUAGE_SCORE = 0.5
MIN_REFERENCE_SCORE = 0.25
"""Below this probability of being cited a page is dropped, as in RedPajama;
LLaMA's own threshold is not published."""

# Typographic characters and what they are read as. CCNet has the full-width
# digit one among the quotes, surely by mistake; it does no harm, because
# digits have become 0 before this table is asked.
_PUNCTUATION = dict(zip(
    "，。、„”“«»１」「《》´∶：？！（）；–～’━〈〉【】％►",
    ",.,\"\"\"\"\"\"\"\"\"\"'::?!();-~'-<>[]%-", strict=True)) | {
        "—": " - ", "．": ". ", "…": "..."}
_TO_ASCII = str.maketrans(_PUNCTUATION)
_CONTROL = dict.fromkeys([*range(32), *range(127, 160)])
_DELETED = _CONTROL | dict.fromkeys(map(ord, _PUNCTUATION))
_DIGIT = re.compile(r"\d")


def normalise_for_hash(line: str) -> str:
    """What two lines must share to count as the same.

    Lower case, every digit a 0, no typographic punctuation and no control
    characters; ASCII punctuation and accents count.
    """
    return _DIGIT.sub("0", line.strip().lower()).translate(_DELETED)


def normalise_for_model(line: str) -> str:
    """What the language model reads of a line.

    Lower case, no accents, every digit a 0, typographic punctuation as its
    ASCII cousin, no control characters.
    """
    parts = unicodedata.normalize("NFD", line.strip().lower())
    plain = "".join(c for c in parts if unicodedata.category(c) != "Mn")
    return _DIGIT.sub("0", plain).translate(_TO_ASCII).translate(_CONTROL)


def line_hashes(text: str) -> UInt64[np.ndarray, "N"]:
    """Of each line the first eight bytes of SHA-1, as a whole number.

    Chapter: notebooks/01_web_data.ipynb
    """
    return np.frombuffer(b"".join(
        hashlib.sha1(normalise_for_hash(line).encode("utf-8", "replace"))
        .digest()[:8] for line in text.split("\n")), dtype="<u8")


def drop_repeated_lines(
    document: Document, seen: Seen, ledger: Ledger
) -> Document | None:
    """A document without the lines that other documents have as well.

    All copies go, the first one included. A line repeated within this
    document only keeps its first copy.

    Args:
        document: a page.
        seen: the `line_hashes` of all documents; `Seen.shared()` is enough.
        ledger: counts the document, and the lines cut out of it.

    Returns:
        The document, with `line_ids`, the numbers of the lines that stayed;
        None if no line is left.

    Chapter: notebooks/01_web_data.ipynb
    """
    lines, hashes = document.text.split("\n"), line_hashes(document.text)
    elsewhere = seen.repeated(hashes)
    first = np.zeros(len(lines), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    stay = np.flatnonzero(first & ~elsewhere).tolist()
    if not stay:
        ledger.drop("only lines that other pages have")
        return None
    for reason, cut in (("in several documents", elsewhere),
                        ("twice in a document", ~first & ~elsewhere)):
        if cut.any():
            ledger.cut(reason, int(cut.sum()))
    return ledger.keep(document.with_text(
        "\n".join(lines[i] for i in stay), line_ids=stay))


@dataclass(frozen=True)
class Models:
    """What judges a page; a judge that is None is not asked."""

    language: Callable[[str], tuple[str, float]] | None = None
    """Text to language and probability: `LanguageId`."""
    perplexity: Callable[[str], float] | None = None
    """Text to perplexity: `PagePerplexity`."""
    reference: Callable[[str], float] | None = None
    """Text to the probability that Wikipedia cites it: `CitedPages`."""
    keep_language: str = "en"
    """The one that stays."""
    head_below: float = 340.0
    """The 30th percentile of English perplexities under CCNet's own language
    model. For another model take the `cuts` of its own perplexities."""
    middle_below: float = 520.0
    """The 60th percentile."""
    keep_buckets: tuple[str, ...] = ("head", "middle")
    """RedPajama's choice; LLaMA's is not published."""

    def each(self) -> dict[str, Models]:
        """The judges that are asked, by name, each one alone."""
        names = ("language", "perplexity", "reference")
        return {name: replace(self, **dict.fromkeys(
            {*names} - {name})) for name in names if getattr(self, name)}


def cuts(perplexities: Sequence[float]) -> tuple[float, float]:
    """Where the head and where the middle end: percentiles 30 and 60."""
    head, middle = np.percentile(perplexities, [30, 60])
    return float(head), float(middle)


def bucket(perplexity: float, models: Models) -> str:
    """`head`, `middle` or `tail`; a border belongs to the worse one."""
    if perplexity < models.head_below:
        return "head"
    return "middle" if perplexity < models.middle_below else "tail"


def finish(
    document: Document, models: Models, ledger: Ledger
) -> Document | None:
    """Language, perplexity and classifier, in this order.

    Returns:
        The document with what the judges said (`language`,
        `language_score`, `perplexity`, `bucket`, `reference_score`), or None.

    Chapter: notebooks/01_web_data.ipynb
    """
    said: dict[str, object] = {}
    if models.language is not None:
        language, score = models.language(document.text)
        said |= {"language": language, "language_score": score}
        if score < MIN_LANGUAGE_SCORE:
            return ledger.drop("language unclear")
        if language != models.keep_language:
            return ledger.drop("another language")
    if models.perplexity is not None:
        value = models.perplexity(document.text)
        said |= {"perplexity": value, "bucket": bucket(value, models)}
        if said["bucket"] not in models.keep_buckets:
            return ledger.drop(f"perplexity in the {said['bucket']}")
    if models.reference is not None:
        score = models.reference(document.text)
        said["reference_score"] = round(score, 4)
        if score < MIN_REFERENCE_SCORE:
            return ledger.drop("not like a cited page")
    return ledger.keep(document.with_text(document.text, **said))
