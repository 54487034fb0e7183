"""Generation: one token after another, with a cache (facts of the release).

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillama.model import LayerCache, Transformer
from minillama.tokenizer import Tokenizer


def empty_cache(
    model: Transformer, batch: int, length: int
) -> list[LayerCache]:
    """Room for the keys and values of `length` positions in every layer.

    Returns:
        One pair (B, G, S, K) a layer, on the device and of the dtype of the
        weights.

    Chapter: notebooks/11_generation.ipynb
    """
    weight = model.tok_embeddings.weight
    like = dict(device=weight.device, dtype=weight.dtype)
    # Of heads that many processes share, each keeps its own.
    shapes = [(batch, layer.attention.kv_heads, length, model.config.head_dim)
              for layer in model.layers]
    return [(torch.zeros(s, **like), torch.zeros(s, **like)) for s in shapes]


def top_p_filter(
    probs: Float[Tensor, "B V"], top_p: float
) -> Float[Tensor, "B V"]:
    """Nucleus sampling (Holtzman et al. 2020): cut the unlikely tail.

    Tokens are taken from the likeliest down until their sum passes top_p; the
    one that crosses is kept. The rest get 0 and the remainder is rescaled.

    Chapter: notebooks/11_generation.ipynb
    """
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill(before > top_p, 0.0)
    kept = torch.zeros_like(probs).scatter(-1, order, ordered)
    return kept / kept.sum(dim=-1, keepdim=True)


def sample(
    logits: Float[Tensor, "B V"],
    *,
    temperature: float,
    top_p: float,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B"]:
    """Choose one token a row.

    Args:
        logits: of the next token.
        temperature: divides the logits; 0 takes the largest.
        top_p: see `top_p_filter`; 1 keeps all.
        generator: source of randomness, on the device of the logits.

    Raises:
        ValueError: for a temperature below 0 or top_p outside (0, 1].

    Chapter: notebooks/11_generation.ipynb
    """
    if not temperature >= 0:  # nor nan
        raise ValueError(
            f"temperature={temperature} must not be negative; 0 is greedy")
    if not 0 < top_p <= 1:
        raise ValueError(
            f"top_p={top_p} must be in (0, 1]; 1 keeps every token")
    if temperature == 0:
        return logits.argmax(dim=-1)
    probs = torch.softmax(logits / temperature, dim=-1)
    if top_p < 1:
        probs = top_p_filter(probs, top_p)
    return torch.multinomial(probs, 1, generator=generator).squeeze(-1)


def next_tokens(
    model: Transformer,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.8,
    top_p: float = 0.95,
    generator: torch.Generator | None = None,
) -> Iterator[Int[Tensor, "B"]]:
    """The columns of a batch of texts, prompts included, as they come.

    As in the release: all rows start at the shortest prompt, and where a
    longer prompt has a token, that token is forced. So no padding ever
    reaches the model. When max_seq_len is full, the newest half of the text
    is read again and the cache starts anew.

    Args:
        model: in evaluation mode.
        prompts: token ids, none empty.
        max_new_tokens: columns after the longest prompt.
        temperature, top_p, generator: see `sample`.

    Yields:
        (B,) ids of one position, from the first of the prompts on.

    Raises:
        ValueError: if a prompt is empty or as long as max_seq_len, or
            max_new_tokens negative.

    Chapter: notebooks/11_generation.ipynb
    """
    lengths = [len(p) for p in prompts]
    room = model.config.max_seq_len
    if min(lengths) < 1 or max(lengths) >= room:
        raise ValueError(
            f"prompts have {min(lengths)} to {max(lengths)} tokens; each "
            f"needs at least 1 and fewer than max_seq_len={room}")
    if max_new_tokens < 0:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} must not be negative")
    total = max(lengths) + max_new_tokens
    device = model.tok_embeddings.weight.device
    text = torch.full((len(prompts), total), -1, device=device)
    for row, prompt in zip(text, prompts):
        row[:len(prompt)] = torch.tensor(prompt, device=device)
    forced = text >= 0
    cache = empty_cache(model, len(prompts), min(total, room))
    read, origin = 0, 0  # text[:, origin:read] is in the cache
    yield from text[:, :min(lengths)].unbind(dim=1)
    for position in range(min(lengths), total):
        if position - origin > room:
            origin = read = position - room // 2
        with torch.inference_mode():
            logits = model(
                text[:, read:position], read - origin, cache)[:, -1]
        drawn = sample(logits, temperature=temperature, top_p=top_p,
                       generator=generator)
        text[:, position] = torch.where(
            forced[:, position], text[:, position], drawn)
        read = position
        yield text[:, position]


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: list[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.8,
    top_p: float = 0.95,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Continue each prompt; a text ends at its first end-of-text token.

    Args:
        model: in evaluation mode.
        tokenizer: the one it was trained with.
        prompts: any lengths; each is encoded with a beginning-of-text token.
        max_new_tokens: tokens after each prompt, at most.
        temperature, top_p, generator: see `sample`.

    Returns:
        One text a prompt, the prompt included.

    Chapter: notebooks/11_generation.ipynb
    """
    if not prompts:
        return []
    ids = [tokenizer.encode(p, bos=True) for p in prompts]
    ends = [len(row) + max_new_tokens for row in ids]
    columns, ended = [], torch.zeros(len(ids), dtype=torch.bool)
    longest = max(len(row) for row in ids)
    for column in next_tokens(
            model, ids, max_new_tokens=max_new_tokens,
            temperature=temperature, top_p=top_p, generator=generator):
        columns.append(column.cpu())
        ended |= columns[-1] == tokenizer.eos_id
        if len(columns) >= longest and ended.all():
            break
    rows = torch.stack(columns, dim=1).tolist()
    return [tokenizer.decode(_until_end(row[:end], tokenizer.eos_id))
            for row, end in zip(rows, ends)]


def stream(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.8,
    top_p: float = 0.95,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Continue one prompt and yield the text piece by piece.

    Joined, the pieces are what `generate` returns for the same draws.

    Chapter: notebooks/11_generation.ipynb
    """
    ids = tokenizer.encode(prompt, bos=True)
    settled = tokenizer.stream()
    for column in next_tokens(
            model, [ids], max_new_tokens=max_new_tokens,
            temperature=temperature, top_p=top_p, generator=generator):
        if column.item() == tokenizer.eos_id:
            break
        yield settled.feed(int(column))
    yield settled.finish()


def _until_end(ids: list[int], eos_id: int) -> list[int]:
    """The ids before the first end-of-text token."""
    return ids[:ids.index(eos_id)] if eos_id in ids else ids
