"""Models behind the two questions of `protocol.Scorer`.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from minillama.evals.protocol import Completion, Pair, Sampling, Score
from minillama.generate import empty_cache, next_tokens
from minillama.model import LayerCache, Transformer


CACHE_BYTES = 2**32
"""Keys and values of one batch take no more memory than this."""


@dataclass(frozen=True)
class Row:
    """One window of one pair: the model reads ids[:-1], predicts the end."""

    pair: int
    ids: list[int]
    predicted: int


def split_pair(tokenizer: Any, pair: Pair) -> tuple[list[int], int]:
    """Ids of context and continuation together, and where the latter begins.

    White space at the end of the context belongs to the continuation: a piece
    of a vocabulary begins with its space, and a model has hardly ever seen a
    text go on after a lone one. Encoding the two apart would cut pieces in
    two; the continuation begins at the first id that the context alone would
    not have given. The first id is BOS, so that an empty context is one too.

    Raises:
        ValueError: if there is nothing to predict.

    Chapter: notebooks/14_evaluation.ipynb
    """
    context = pair[0].rstrip()
    whole = tokenizer.encode(pair[0] + pair[1], bos=True)
    alone = tokenizer.encode(context, bos=True)
    first = len(os.path.commonprefix([whole, alone]))
    if not pair[1].strip() or first == len(whole):
        raise ValueError(
            f"the continuation {pair[1]!r} of {context[-40:]!r} is empty; "
            "give a text to predict")
    return whole, first


def windows(
    ids: list[int], first: int, room: int
) -> Iterator[tuple[list[int], int]]:
    """Predict ids[first:], each once, reading `room` ids at a time.

    What fits is one window; a context that is too long loses its beginning;
    a continuation that is too long takes several (rolling perplexity).

    Chapter: notebooks/14_evaluation.ipynb
    """
    for begin in range(first, len(ids), room):
        end = min(begin + room, len(ids))
        yield ids[max(0, end - 1 - room):end], end - begin


class Family:
    """Rows of one context, which is read once for all of them."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        # What is read anew for a row has to hold all positions that predict.
        self.known: list[int] = os.path.commonprefix(
            [row.ids[:-1 - row.predicted] for row in rows])
        texts = {tuple(row.ids[:-1]) for row in rows}
        self.longest, self.texts = max(map(len, texts)), len(texts)
        self.ids = sum(map(len, texts))


def ids_read(families: Sequence[Family], start: int) -> int:
    """Ids that the model reads for a batch of which it has `start` already.

    Each context up to where the shortest one ends, then what is left of each
    text.
    """
    texts = sum(family.texts for family in families)
    stop = start if texts == len(families) else min(
        len(family.known) for family in families)
    return len(families) * (stop - start) + sum(
        family.ids - family.texts * stop for family in families)


def alike(lengths: Sequence[int], waste: int) -> Iterator[slice]:
    """Cut falling lengths where the padding would outgrow `waste`."""
    begin = padding = 0
    for n, length in enumerate(lengths):
        padding += lengths[begin] - length
        if padding > waste:
            yield slice(begin, n)
            begin, padding = n, 0
    yield slice(begin, len(lengths))


class LlamaScorer:
    """A model of this package behind the two questions.

    What pairs have in common is read once, and its keys and values are used
    again: first the examples or the article that many contexts begin with,
    then each context, then every continuation after it. Texts of similar
    length are read together, padded on the right, where causal attention
    never looks. A continuation of one token has nothing to read: the context
    alone predicts it.

    Args:
        model: in evaluation mode.
        tokenizer: the one it was trained with.
        batch_tokens: ids read at once, padding included; None: 2,048 on a
            CPU, where more gains nothing, and 8,192 elsewhere.

    Chapter: notebooks/14_evaluation.ipynb
    """

    def __init__(self, model: Transformer, tokenizer: Any,
                 batch_tokens: int | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.room: int = model.config.max_seq_len
        self.device = model.tok_embeddings.weight.device
        self.batch_tokens = batch_tokens or (
            2048 if self.device.type == "cpu" else 8192)
        # A call costs about as much as these ids more in another one.
        self.call = self.batch_tokens // 32

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """The log-probability of each continuation after its context."""
        split = [split_pair(self.tokenizer, pair) for pair in pairs]
        rows: dict[str, list[Row]] = {}
        for n, (ids, first) in enumerate(split):
            rows.setdefault(pairs[n][0], []).extend(
                Row(n, *window) for window in windows(ids, first, self.room))
        stems: dict[tuple[int, ...], list[Family]] = {}
        for own in rows.values():
            own.sort(key=lambda row: len(row.ids))
            for i in range(0, len(own), 8):  # no family outgrows a batch
                stem = tuple(own[i].ids[:32])
                stems.setdefault(stem, []).append(Family(own[i:i + 8]))
        alone = [f for fs in stems.values() if len(fs) == 1 for f in fs]
        log_prob, greedy = [0.0] * len(pairs), [True] * len(pairs)
        with tqdm(total=sum(map(len, rows.values())), unit="text",
                  disable=None, leave=False) as bar:
            for group in (alone, *(
                    fs for fs in stems.values() if len(fs) > 1)):
                for row, nats, best in self._read_group(group):
                    log_prob[row.pair] += nats
                    greedy[row.pair] &= best
                    bar.update()
        return [
            Score(nats, best, len(ids) - first, max(
                0, min(first + self.room, len(ids)) - 1 - self.room))
            for nats, best, (ids, first) in zip(log_prob, greedy, split)]

    @torch.inference_mode()
    def _read_group(
        self, group: list[Family]
    ) -> Iterator[tuple[Row, float, bool]]:
        """Rows with their nats, and whether every token was the likeliest."""
        head = os.path.commonprefix([family.known for family in group])
        head = head if len(head) >= 16 else []  # else not worth a call
        stem = empty_cache(self.model, 1, len(head))
        if head:
            self.model(torch.tensor([head], device=self.device), 0, stem)
        position = sum(k.nbytes + v.nbytes
                       for k, v in empty_cache(self.model, 1, 1))
        batch: list[Family] = []
        for family in sorted(group, reverse=True, key=lambda family: (
                len(family.known), family.longest)):
            both = [*batch, family]
            ids = ids_read(both, len(head))
            kept = position * sum(f.texts for f in both) * max(
                f.longest for f in both)
            if batch and (kept > CACHE_BYTES or ids > min(
                    self.batch_tokens, self.call + ids_read(batch, len(head))
                    + ids_read([family], len(head)))):
                yield from self._read(batch, stem, len(head))
                both = [family]
            batch = both
        if batch:
            yield from self._read(batch, stem, len(head))

    def _read(
        self, batch: list[Family], stem: list[LayerCache], start: int
    ) -> Iterator[tuple[Row, float, bool]]:
        """Read contexts, then texts, after the keys and values of a stem."""
        readers: dict[tuple[int, ...], list[Row]] = {}
        owners: dict[tuple[int, ...], int] = {}
        for n, family in enumerate(batch):
            for row in family.rows:
                text = tuple(row.ids[:-1])
                readers.setdefault(text, []).append(row)
                owners.setdefault(text, n)
        texts = sorted(readers, key=len, reverse=True)
        cache = empty_cache(self.model, len(batch), len(texts[0]))
        for new, old in zip(cache, stem):
            for x, y in zip(new, old):
                x[:, :, :start] = y
        if len(batch) < len(texts):
            stop = min(len(family.known) for family in batch)
            if stop > start:
                self.model(torch.tensor(
                    [family.known[start:stop] for family in batch],
                    device=self.device), start, cache)
                start = stop
        for part in alike(list(map(len, texts)), self.call):
            some = texts[part]
            length = len(some[0])
            parents = [owners[text] for text in some]
            logits = self.model(torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(text[start:]) for text in some],
                batch_first=True).to(self.device), start, [
                    (k[parents, :, :length], v[parents, :, :length])
                    for k, v in cache])
            for own, text in zip(logits, some):
                stop = len(text) - start
                for row in readers[text]:
                    yield row, *_nats(own[stop - row.predicted:stop],
                                      torch.tensor(row.ids[-row.predicted:]))

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Completion]]:
        """`sampling.samples` texts after each prompt.

        The same call gives the same texts on the same machine; a prompt that
        leaves no room for max_tokens loses its beginning.
        """
        room = max(self.room - sampling.max_tokens, self.room // 2)
        ids = [self.tokenizer.encode(prompt, bos=True) for prompt in prompts]
        order = sorted((n for n in range(len(ids))
                        for _ in range(sampling.samples)),
                       key=lambda n: len(ids[n]))
        texts: list[list[Completion]] = [[] for _ in ids]
        width = max(1, 4 * self.batch_tokens // self.room)
        bar = tqdm(total=len(order), unit="text", disable=None, leave=False)
        for i in range(0, len(order), width):
            rows = order[i:i + width]
            drawn = self._write([ids[n][-room:] for n in rows], sampling, i)
            for n, (text, count, ended) in zip(rows, drawn):
                texts[n].append(Completion(
                    text, count, ended, max(0, len(ids[n]) - room)))
            bar.update(len(rows))
        bar.close()
        return texts

    def _write(
        self, prompts: list[list[int]], sampling: Sampling, salt: int
    ) -> list[tuple[str, int, bool]]:
        """Text, tokens and whether it ended, of each row of a batch."""
        seed = zlib.crc32(repr((sampling.seed, salt, prompts)).encode())
        streams = [self.tokenizer.stream(prompt) for prompt in prompts]
        texts = ["" for _ in prompts]
        found: list[tuple[str, int, bool] | None] = [None] * len(prompts)
        for position, column in enumerate(next_tokens(
                self.model, prompts, max_new_tokens=sampling.max_tokens,
                temperature=sampling.temperature, top_p=sampling.top_p,
                generator=torch.Generator(self.device).manual_seed(seed))):
            for n, token in enumerate(column.tolist()):
                count = position + 1 - len(prompts[n])
                if count < 1 or found[n]:
                    continue
                ended = token == self.tokenizer.eos_id
                if not ended:
                    texts[n] += streams[n].feed(token)
                if ended or count == sampling.max_tokens:
                    texts[n] += streams[n].finish()
                cuts = [texts[n].find(stop) for stop in sampling.stop
                        if stop in texts[n]]
                if cuts or ended or count == sampling.max_tokens:
                    found[n] = (texts[n][:min(cuts, default=None)], count,
                                ended or bool(cuts))
            if all(found):
                break
        return [text or ("", 0, False) for text in found]


def _nats(logits: Tensor, targets: Tensor) -> tuple[float, bool]:
    """Log-probability of the targets, and whether each is the likeliest."""
    targets = targets.to(logits.device)
    nats = -F.cross_entropy(logits, targets, reduction="none")
    # Apple's GPUs have no 64 bits to add up in.
    return (nats.cpu().double().sum().item(),
            bool((logits.argmax(dim=-1) == targets).all()))
