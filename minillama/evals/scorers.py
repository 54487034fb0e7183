"""Models behind the two questions of `protocol.Scorer`.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from minillama.evals.protocol import Completion, Pair, Sampling, Score
from minillama.generate import empty_cache, next_tokens
from minillama.model import Transformer


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


class LlamaScorer:
    """A model of this package behind the two questions.

    Pairs that share a context share its keys and values: the context is read
    once, then every continuation after it. Rows of similar length are read
    together, padded on the right, where causal attention never looks.

    Args:
        model: in evaluation mode.
        tokenizer: the one it was trained with.
        batch_tokens: ids in one batch, padding included.

    Chapter: notebooks/14_evaluation.ipynb
    """

    def __init__(
        self, model: Transformer, tokenizer: Any, batch_tokens: int = 8192
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.batch_tokens = batch_tokens
        self.room: int = model.config.max_seq_len
        self.device = model.tok_embeddings.weight.device

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """The log-probability of each continuation after its context."""
        split = [split_pair(self.tokenizer, pair) for pair in pairs]
        families: dict[str, list[Row]] = {}
        for n, (ids, first) in enumerate(split):
            family = families.setdefault(pairs[n][0], [])
            family += [Row(n, *window)
                       for window in windows(ids, first, self.room)]
        log_prob, greedy = [0.0] * len(pairs), [True] * len(pairs)
        with tqdm(total=len(pairs), unit="pair", disable=None,
                  leave=False) as bar:
            for batch in self._batches(list(families.values())):
                rows = [row for family in batch for row in family]
                for row, (nats, best) in zip(rows, self._read(batch)):
                    log_prob[row.pair] += nats
                    greedy[row.pair] &= best
                bar.update(len({row.pair for row in rows}))
        return [
            Score(nats, best, len(ids) - first, max(
                0, min(first + self.room, len(ids)) - 1 - self.room))
            for nats, best, (ids, first) in zip(log_prob, greedy, split)]

    def _batches(
        self, families: list[list[Row]]
    ) -> Iterator[list[list[Row]]]:
        """Families of like length together, few-shot neighbours first."""
        heads = Counter(tuple(f[0].ids[:32]) for f in families)

        def order(family: list[Row]) -> tuple[Any, int]:
            head = tuple(family[0].ids[:32])
            return head if heads[head] > 1 else (), len(family[0].ids)

        batch: list[list[Row]] = []
        longest = 0
        for family in sorted(families, key=order, reverse=True):
            longest = max(longest, *(len(row.ids) for row in family))
            count = sum(map(len, batch)) + len(family)
            if batch and count * longest > self.batch_tokens:
                yield batch
                batch, longest = [], max(len(row.ids) for row in family)
            batch.append(family)
        if batch:
            yield batch

    @torch.inference_mode()
    def _read(self, batch: list[list[Row]]) -> Iterator[tuple[float, bool]]:
        """Nats of each row, and whether every token was the likeliest.

        Three strides, each after the keys and values of the one before: what
        all rows share, what a family shares, and each row's own rest.
        """
        rows = [row for family in batch for row in family]
        inputs = [row.ids[:-1] for row in rows]
        # A row's own stride has to hold all positions that predict.
        known = [ids[:len(ids) - row.predicted]
                 for ids, row in zip(inputs, rows)]
        owner = [n for n, family in enumerate(batch) for _ in family]
        heads = [owner.index(n) for n in range(len(batch))]
        shared = len(os.path.commonprefix(known))
        shared *= shared >= 16 and len(batch) > 1  # else not worth a stride
        family = min(len(os.path.commonprefix(
            [k for k, o in zip(known, owner) if o == n]))
            for n in range(len(batch)))
        if len(rows) == len(batch):
            family = shared
        tokens = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(ids) for ids in inputs], batch_first=True,
        ).to(self.device)
        length = tokens.shape[1]
        cache = empty_cache(self.model, 1, length)
        start = 0
        for who, end, parents in (([0], shared, [0]),
                                  (heads, family, [0] * len(batch)),
                                  (range(len(rows)), length, owner)):
            if len(parents) > 1 or who is heads:
                cache = [(k[parents], v[parents]) for k, v in cache]
            if end > start:
                logits = self.model(tokens[list(who), start:end], start, cache)
                start = end
        for logit, row, ids in zip(logits, rows, inputs):
            stop = len(ids) - (length - logit.shape[0])
            yield _nats(logit[stop - row.predicted:stop],
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
        width = max(1, self.batch_tokens // self.room)
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
    nats = -F.cross_entropy(logits.double(), targets, reduction="sum")
    return nats.item(), bool((logits.argmax(dim=-1) == targets).all())
