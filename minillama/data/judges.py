"""Train what judges CommonCrawl's pages: good text, and pages like cited ones.

Two models, out of a Wikipedia dump and a crawl. The n-gram model of
`quality` learns from articles, and the percentiles of the crawl's own pages
under it say where the head and the middle end. The classifier of `references`
learns pages that the dump cites from others of the same crawl. Both see pages
as a build shows them: without lines that several have, in one language.

    lm.model, lm.arpa   SentencePiece, and the n-gram model over its pieces
    lm.json             the cuts: `head_below` and `middle_below`
    cited.npz           the classifier

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

import heapq
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minillama.data import (
    arpa, ccnet, commoncrawl, dedup, references, wikipedia)
from minillama.data.document import Document, Ledger
from minillama.data.language import LanguageId
from minillama.data.quality import KneserNey
from minillama.data.seen import Seen
from minillama.files import replace_bytes

FEWEST = 50
"""With fewer cited pages, Wikipedia's articles stand in for them."""
_HELD_OUT = 5


def train(
    wikipedia_dump: Path, crawl: Path, out: Path, *,
    language_model: Path | None = None, vocab_size: int = 65536,
    order: int = 5, sample: int = 20000,
) -> dict[str, Any]:
    """Train both judges and write them into a folder.

    Args:
        wikipedia_dump: a dump, or a folder of them.
        crawl: a WARC or WET file, or a folder of them.
        out: the folder.
        language_model: `lid.176.ftz`; None: pages of all languages.
        vocab_size: pieces at most, CCNet's 65,536; a small text has fewer.
        order: words in the longest n-gram; CCNet's 5.
        sample: articles and pages of each kind at most, those with the
            smallest hashes, which no order of files can change.

    Returns:
        What they learnt from, the cuts, and the area under the curve on held
        out pages with its interval; `stand_in` says whether articles had to
        stand in for cited pages.

    Raises:
        ValueError: if there are too few articles or pages.

    Chapter: notebooks/01_web_data.ipynb
    """
    [found] = _samples(wikipedia, wikipedia_dump, sample, bool)
    articles = [page.text for page in found]
    keys = np.unique(np.fromiter(
        (_number(key) for dump in wikipedia.inputs(wikipedia_dump)
         for key in references.cited_addresses(dump)), np.uint64))
    cited, pages = (_cleaned(found, language_model) for found in _samples(
        commoncrawl, crawl, sample, lambda page: _cites(keys, page), bool))
    others = [page.text for page in pages if not _cites(keys, page)]
    if min(len(articles), len(others)) < _HELD_OUT * 2:
        raise ValueError(
            f"wikipedia holds {len(articles)} articles and crawl {len(others)}"
            " pages that it does not cite; give files with at least "
            f"{_HELD_OUT * 2} of each")
    perplexity = language(articles, out, vocab_size, order)
    cuts = dict(zip(("head_below", "middle_below"), ccnet.cuts(
        [perplexity(page.text) for page in pages])))
    replace_bytes(out / "lm.json", json.dumps(cuts).encode())
    stand_in = len(cited) < FEWEST
    positive = articles if stand_in else [page.text for page in cited]
    judge = references.CitedPages.train(*(
        [text for n, text in enumerate(texts) if n % _HELD_OUT]
        for texts in (positive, others)))
    judge.save(out / "cited.npz")
    area = references.area_under_curve(*(
        judge.scores(texts[::_HELD_OUT]) for texts in (positive, others)))
    return {"articles": len(articles), "pages": len(pages), **cuts,
            "cited": len(cited), "others": len(others), "stand_in": stand_in,
            "auc": [round(value, 3) for value in area]}


def language(
    texts: Sequence[str], out: Path, vocab_size: int, order: int
) -> arpa.PagePerplexity:
    """Write lm.model and lm.arpa, learnt from these texts; read them back.

    As CCNet's: a unigram SentencePiece model that covers 0.9995 of the
    characters, and modified Kneser-Ney smoothing. Every line is a sequence.

    Chapter: notebooks/01_web_data.ipynb
    """
    import sentencepiece

    lines = [ccnet.normalise_for_model(line) for text in texts
             for line in text.split("\n") if line.strip()]
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=made,
        vocab_size=vocab_size, hard_vocab_limit=False, model_type="unigram",
        character_coverage=0.9995, num_threads=1, minloglevel=2)
    replace_bytes(out / "lm.model", made.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    model = KneserNey.train(
        ([pieces.bos_id(), *pieces.encode(line), pieces.eos_id()]
         for line in lines), len(pieces), order)
    arpa.write(model, [pieces.id_to_piece(i) for i in range(len(pieces))],
               out / "lm.arpa")
    return arpa.PagePerplexity(out / "lm.model", out / "lm.arpa")


def _samples(
    source: ModuleType, path: Path, count: int,
    *groups: Callable[[Document], bool],
) -> list[list[Document]]:
    """Of each group those with the smallest hashes of their ids.

    Random, yet always the same; all groups out of one reading.
    """
    heaps: list[list[tuple[int, int, Document]]] = [[] for _ in groups]
    for number, document in enumerate(
            document for file in source.inputs(path)
            for document in source.read(file, Ledger())):
        entry = -int(dedup.text_key(document.id), 16), -number, document
        for heap, wanted in zip(heaps, groups):
            if wanted(document):
                heapq.heappush(heap, entry)
                if len(heap) > count:
                    heapq.heappop(heap)
    return [[document for *_, document in sorted(heap, reverse=True)]
            for heap in heaps]


def _cleaned(
    pages: list[Document], language_model: Path | None
) -> list[Document]:
    """Pages without the lines that several of them have, in one language."""
    seen = Seen.of((rank, ccnet.line_hashes(page.text))
                   for rank, page in enumerate(pages))
    models = ccnet.Models(language_model and LanguageId(language_model))
    left = filter(None, (ccnet.drop_repeated_lines(
        page, seen, Ledger()) for page in pages))
    return [page for page in left if ccnet.finish(page, models, Ledger())]


def _cites(keys: np.ndarray, page: Document) -> bool:
    """Whether a page's address is among the sorted numbers."""
    key = _number(references.address_key(page.metadata["url"]))
    return key in keys[np.searchsorted(keys, key):][:1]


def _number(key: str) -> np.uint64:
    """64 bits of an address, so that those of all Wikipedia fit."""
    return np.uint64(int(dedup.text_key(key)[:16], 16))
