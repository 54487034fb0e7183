"""minillama/generate.py against full forward passes and plain counting.

Oracle for the cache: the model without one, on the whole text so far, token
for token (always in float64; in float32 wherever the two best logits differ
by more than 1e-4). Oracle for top-p: fractions, sorted and summed one by one.
Draws are counted and held against the distribution, with the chance of a
false alarm stated. A scripted model decides where texts end.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minillama.config import ModelConfig
from minillama.generate import (
    empty_cache, generate, next_tokens, sample, stream, top_p_filter)
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from tests.small import MODEL, VOCAB, sentences

LONG = replace(MODEL, max_seq_len=64)
SHAPES = {
    "LLaMA": LONG,
    "shared heads": replace(LONG, n_heads=4, n_kv_heads=2),
    "one key head": replace(LONG, n_heads=4, n_kv_heads=1),
    "tied": replace(LONG, tie_embeddings=True),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """320 pieces, most of them bytes."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return Tokenizer.train(sentences(200), VOCAB, path)


def _model(
    config: ModelConfig = LONG, dtype: torch.dtype = torch.float64
) -> Transformer:
    """Random weights, large enough that each choice hangs on the context."""
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(3))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
    return model.to(dtype).eval()


def _greedy(
    model: Transformer, prompts: list[list[int]], new: int
) -> list[list[int]]:
    columns = next_tokens(
        model, prompts, max_new_tokens=new, temperature=0.0)
    return torch.stack(list(columns), dim=1).tolist()


@torch.no_grad()
def _without_cache(
    model: Transformer, prompt: list[int], new: int
) -> list[int]:
    """The likeliest token after the whole text, again and again."""
    text = list(prompt)
    for _ in range(new):
        text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    return text


PROMPT = [1, 300, 17, 45, 260]


@pytest.mark.oracle
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_greedy_with_cache_equals_the_full_pass(config: ModelConfig) -> None:
    """Token for token in float64."""
    model = _model(config)
    expected = _without_cache(model, PROMPT, 59)
    assert _greedy(model, [PROMPT], 59) == [expected]
    assert len(set(expected)) > 10, "a loop would prove little"


@pytest.mark.oracle
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_in_float32_it_does_so_where_the_choice_is_clear(
    config: ModelConfig,
) -> None:
    """Clear: the two best logits differ by more than 1e-4."""
    model = _model(config, torch.float32)
    text = _greedy(model, [PROMPT], 59)[0]
    with torch.no_grad():
        logits = model(torch.tensor([text]))[0]
    best, second = logits.topk(2).values.T
    clear = 0
    for place in range(len(PROMPT), len(text)):
        if best[place - 1] - second[place - 1] > 1e-4:
            assert text[place] == int(logits[place - 1].argmax())
            clear += 1
    assert clear > 50


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_a_batch_of_different_lengths_equals_each_alone(
    config: ModelConfig,
) -> None:
    """No padding reaches the model; longer prompts are forced."""
    model = _model(config)
    prompts = [[1, 5], [1, 300, 17, 45, 260, 261, 262], [9], [1, 5, 6, 7]]
    together = _greedy(model, prompts, 20)
    assert {len(row) for row in together} == {7 + 20}
    for row, prompt in zip(together, prompts):
        assert row == _without_cache(model, prompt, 27 - len(prompt))


@pytest.mark.parametrize("room", [2, 3, 8, 9])
def test_a_text_longer_than_the_context_goes_on(room: int) -> None:
    """When the context is full, its newest half is read again.

    Written out without a cache: the window grows until it holds `room`
    tokens; the next one starts with the newest room // 2.
    """
    model = _model(replace(MODEL, max_seq_len=room))
    prompts = [[1], [1, 77, 30][:room - 1]]
    rows = _greedy(model, prompts, 5 * room)
    for row, prompt in zip(rows, prompts):
        text, origin = [row[0]], 0
        while len(text) < len(row):
            if len(text) - origin > room:
                origin = len(text) - room // 2
            with torch.no_grad():
                logits = model(torch.tensor([text[origin:]]))[0, -1]
            choice = int(logits.argmax())
            text.append(prompt[len(text)] if len(text) < len(prompt)
                        else choice)
        assert row == text


def test_prompts_that_do_not_fit_are_refused() -> None:
    """Empty, or as long as the context; one token less is fine."""
    model = _model(MODEL)
    for prompts in ([[]], [[1], []], [[1] * 32], [[1], [1] * 40]):
        with pytest.raises(ValueError, match="fewer than max_seq_len=32"):
            list(next_tokens(model, prompts, max_new_tokens=1))
    assert len(_greedy(model, [[1] * 31], 3)[0]) == 34
    with pytest.raises(ValueError, match="max_new_tokens=-1"):
        list(next_tokens(model, [[1]], max_new_tokens=-1))
    assert _greedy(model, [[1, 2]], 0) == [[1, 2]]


def test_the_cache_has_the_right_size_and_type() -> None:
    """(B, G, S, K) twice a layer, of the weights' type."""
    model = _model(SHAPES["shared heads"]).bfloat16()
    cache = empty_cache(model, 3, 10)
    assert len(cache) == 2
    for keys, values in cache:
        assert keys.shape == values.shape == (3, 2, 10, 8)
        assert keys.dtype == torch.bfloat16 and not keys.any()


# -- choosing a token ------------------------------------------------------


@given(weights=st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(
    any), data=st.data())
@settings(deadline=None)
def test_top_p_against_fractions(
    weights: list[int], data: st.DataObject
) -> None:
    """The likeliest tokens up to and with the one that crosses p.

    p lies half a unit off every possible sum, so rounding cannot decide.
    """
    total = sum(weights)
    p = Fraction(2 * data.draw(st.integers(0, total - 1)) + 1, 2 * total)
    probs = torch.tensor([weights], dtype=torch.float64) / total
    kept = top_p_filter(probs, float(p))[0]
    expected, mass = [], Fraction(0)
    for weight in sorted(weights, reverse=True):
        if mass > p:
            break
        expected.append(weight)
        mass += Fraction(weight, total)
    scale = sum(expected)
    survivors = [w for w, k in zip(weights, kept.tolist()) if k > 0]
    assert sorted(survivors) == sorted(w for w in expected if w)
    assert mass >= p  # what is kept reaches p ...
    assert mass - Fraction(expected[-1], total) <= p  # ... and only just
    for weight, share in zip(weights, kept.tolist()):
        assert share == 0 or share == pytest.approx(weight / scale)
    assert float(kept.sum()) == pytest.approx(1)


def test_top_p_by_hand() -> None:
    """Rows apart, in any order; at p itself the next one still counts."""
    probs = torch.tensor([[0.125, 0.5, 0.25, 0.125],
                          [0.25, 0.25, 0.25, 0.25]])
    kept = top_p_filter(probs, 0.6)
    torch.testing.assert_close(kept[0], torch.tensor([0, 2 / 3, 1 / 3, 0]))
    assert kept[1].gt(0).sum() == 3
    # The release drops a token if the sum before it is above p: 0.5 is not.
    kept = top_p_filter(probs, 0.5)
    torch.testing.assert_close(kept[0], torch.tensor([0, 2 / 3, 1 / 3, 0]))
    torch.testing.assert_close(
        top_p_filter(probs, 1e-9)[0], torch.tensor([0., 1, 0, 0]))


def test_temperature_0_takes_the_largest() -> None:
    """And needs no randomness."""
    before = torch.get_rng_state()
    logits = torch.tensor([[1.0, 3.0, 2.0], [-1.0, -9.0, -2.0]])
    assert sample(logits, temperature=0.0, top_p=0.1).tolist() == [1, 0]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("temperature, top_p", [
    (1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.7), (0.8, 0.95)])
def test_draws_follow_the_distribution(
    temperature: float, top_p: float
) -> None:
    """40,000 draws: each count within five standard deviations.

    Five tokens leave that band by chance once in 350,000 runs of a right
    program with a free seed (5 tokens x 5.7e-7); this seed is fixed.
    """
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 1.5], dtype=torch.float64)
    weights = [2.718281828459045 ** (x / temperature)
               for x in logits.tolist()]
    order = sorted(range(5), key=lambda i: -weights[i])
    mass, kept = 0.0, []
    for i in order:
        if mass <= top_p * sum(weights):
            kept.append(i)
        mass += weights[i]
    n = 40_000
    drawn = sample(
        logits.expand(n, 5), temperature=temperature, top_p=top_p,
        generator=torch.Generator().manual_seed(0))
    counts = drawn.bincount(minlength=5).tolist()
    for i in range(5):
        p = weights[i] / sum(weights[j] for j in kept) if i in kept else 0.0
        assert abs(counts[i] - n * p) <= 5 * (n * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("settings, message", [
    ({"temperature": -0.1}, "temperature=-0.1.*0 is greedy"),
    ({"top_p": 0.0}, "top_p=0.0.*1 keeps every"),
    ({"top_p": 1.1}, "top_p=1.1.*1 keeps every")])
def test_impossible_settings_are_refused(
    settings: dict[str, float], message: str
) -> None:
    """With the value and what it means."""
    with pytest.raises(ValueError, match=message):
        sample(torch.zeros(1, 3), **{
            "temperature": 1.0, "top_p": 1.0, **settings})


# -- texts -----------------------------------------------------------------


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_seed_decides(tokenizer: Tokenizer) -> None:
    """Same seed, same text, whatever else is drawn; nothing global."""
    model, texts = _model(), []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        texts.append(generate(model, tokenizer, ["A fox", "My aunt sells"],
                              max_new_tokens=20, generator=_draw(seed)))
        assert torch.equal(torch.get_rng_state(), before)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("prompt", ["The miller", "下雨 🦊", " two", ""])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_stream_is_the_text(
    tokenizer: Tokenizer, prompt: str, temperature: float
) -> None:
    """Piece by piece, bytes of half characters held back; joined, equal."""
    model = _model()
    whole = generate(model, tokenizer, [prompt], max_new_tokens=80,
                     temperature=temperature, generator=_draw(4))[0]
    pieces = list(stream(model, tokenizer, prompt, max_new_tokens=80,
                         temperature=temperature, generator=_draw(4)))
    assert "".join(pieces) == whole
    assert whole.startswith(prompt) and len(whole) > len(prompt)
    assert sum(map(bool, pieces)) > 3


def test_generation_leaves_the_model_alone(tokenizer: Tokenizer) -> None:
    """No gradients, no change of weights."""
    model = _model()
    before = copy.deepcopy(model.state_dict())
    generate(model, tokenizer, ["A"], max_new_tokens=5, generator=_draw(1))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    assert all(p.grad is None for p in model.parameters())
    assert generate(model, tokenizer, [], max_new_tokens=5) == []


class _Scripted(Transformer):
    """Says what the script says: one row of ids a text, by position."""

    def __init__(self, script: list[list[int]]) -> None:
        super().__init__(LONG)
        self.script, self.read = script, []

    def forward(
        self, tokens: Tensor, start_pos: int = 0, cache: Any = None
    ) -> Tensor:
        """Logits that leave no doubt."""
        assert not torch.is_grad_enabled(), "nobody will go backward"
        self.read.append(tokens.shape[1])
        logits = torch.zeros(*tokens.shape, VOCAB)
        for row, ids in zip(logits, self.script):
            row[-1, ids[start_pos + tokens.shape[1]]] = 1e9
        return logits


def test_texts_are_cut_at_their_end(tokenizer: Tokenizer) -> None:
    """At the first end-of-text, each on its own; then nothing is computed."""
    fox = tokenizer.encode("A fox finds rain", bos=True)
    crow = tokenizer.encode("One crow paints the old map", bos=True)
    end = tokenizer.eos_id
    size = max(len(fox), len(crow))
    script = [(fox + [end, 50, 60, end] + [70] * 60)[:60],
              (crow + [end] + [80] * 60)[:60]]
    model = _Scripted(script)
    texts = generate(model, tokenizer, ["A", "One"], max_new_tokens=50,
                     temperature=0.0)
    assert texts == ["A fox finds rain", "One crow paints the old map"]
    shortest = min(len(tokenizer.encode(p, bos=True)) for p in ("A", "One"))
    # The shortest prompt at once, then each token once: the cache is used.
    assert model.read == [shortest] + [1] * (size - shortest)
    assert "".join(stream(model, tokenizer, "A", max_new_tokens=50,
                          temperature=0.0)) == "A fox finds rain"


def test_each_text_gets_its_own_number_of_tokens(
    tokenizer: Tokenizer,
) -> None:
    """The shorter prompt is not continued for longer."""
    prompts = ["A", "My aunt would follow every song without a word"]
    ids = [tokenizer.encode(p, bos=True) for p in prompts]
    piece = tokenizer.encode("x")[-1]
    model = _Scripted([row + [piece] * 60 for row in ids])
    texts = generate(
        model, tokenizer, prompts, max_new_tokens=3, temperature=0.0)
    assert [len(text) - len(prompt)
            for text, prompt in zip(texts, prompts)] == [3, 3]


def test_a_text_that_runs_to_the_limit(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Without an end-of-text exactly so many tokens are added."""
    model = _model()
    with torch.no_grad():
        model.output.weight[tokenizer.eos_id] = 0
    columns = list(next_tokens(
        model, [[1, 5, 9]], max_new_tokens=7, generator=_draw(1)))
    assert len(columns) == 10 and all(c.shape == (1,) for c in columns)
    assert [int(c) for c in columns[:3]] == [1, 5, 9]
