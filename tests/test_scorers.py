"""A model behind the two questions: how likely is this, what comes next.

Checked against one plain forward pass per pair, without batches, padding or
cache; generation against `minillama.generate`; Hugging Face's own model
with the same weights against ours.
"""

from __future__ import annotations

import random

import pytest
import torch

from benchmarks.hugging_face import twin, twin_tokenizer
from minillama.config import ModelConfig
from minillama.evals.hugging_face import hugging_face
from minillama.evals.protocol import Sampling
from minillama.evals.scorers import LlamaScorer, split_pair, windows
from minillama.generate import generate
from minillama.model import Transformer
from minillama.samples import MINI, load_mini

WORDS = ("the king of france and my lord shall speak with thee of war "
         "o night").split()


@pytest.fixture(scope="module")
def mini():
    return load_mini()


def words(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))


def some_pairs() -> list[tuple[str, str]]:
    """Shared contexts, empty ones, trailing spaces, long and longer texts."""
    draw = random.Random(3)
    pairs = []
    for _ in range(12):
        context = words(draw, 0, 50) + " " * draw.randint(0, 2)
        pairs += [(context, " " + words(draw, 1, 8)) for _ in range(4)]
    shots = words(draw, 60, 60)
    for _ in range(6):  # few-shot neighbours
        context = shots + "\n\n" + words(draw, 5, 20)
        pairs += [(context, " " + words(draw, 1, 3)) for _ in range(2)]
        pairs += [(context, f" {letter}") for letter in "ABCD"]
    pairs += [("", " " + words(draw, 1, 30)) for _ in range(20)]
    long = words(draw, 200, 200)
    pairs += [("", long), (long, " my lord"), (long, " " + long),
              ("", "war")]
    draw.shuffle(pairs)
    return pairs


def plain(model, tokenizer, pair) -> tuple[float, bool]:
    """Nats and greediness by one forward pass a window."""
    nats, greedy = 0.0, True
    for ids, n in windows(*split_pair(tokenizer, pair),
                          model.config.max_seq_len):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:-1]]))[0, -n:].double()
        targets = torch.tensor(ids[-n:])
        nats += torch.log_softmax(logits, -1)[
            torch.arange(n), targets].sum().item()
        greedy &= bool((logits.argmax(-1) == targets).all())
    return nats, greedy


@pytest.mark.parametrize("batch_tokens", [64, 300, 8192])
def test_batches_and_shared_contexts_change_nothing(mini, batch_tokens):
    pairs = some_pairs()
    scores = LlamaScorer(*mini, batch_tokens).score(pairs)
    for pair, score in zip(pairs, scores, strict=True):
        nats, greedy = plain(*mini, pair)
        assert score.log_prob == pytest.approx(nats, abs=2e-4, rel=2e-6)
        assert score.greedy == greedy


def test_what_texts_have_in_common_is_read_once(mini):
    """Of five examples, of a question, and of letters after one question."""
    model, tokenizer = mini
    scorer, read = LlamaScorer(model, tokenizer), []
    handle = model.register_forward_pre_hook(
        lambda module, args: read.append(args[0].numel()))
    draw = random.Random(4)
    shots = words(draw, 60, 60) + "\n\n"
    pairs = [(shots + words(draw, 8, 12), f" {letter}")
             for _ in range(20) for letter in "ABCD"]
    scorer.score(pairs)
    handle.remove()
    ids = {pair[0]: len(tokenizer.encode(pair[0])) for pair in pairs}
    once = len(tokenizer.encode(shots))
    assert sum(read) < 1.2 * (once + sum(n - once for n in ids.values()))
    assert sum(read) < sum(ids.values()) / 3


def test_a_batch_keeps_to_its_size(mini, monkeypatch):
    """Ids at once, and memory for keys and values."""
    model, tokenizer = mini
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, args: rows.append(tuple(args[0].shape)))
    pairs = [("", " " + words(random.Random(n), 8, 12)) for n in range(200)]
    LlamaScorer(model, tokenizer, 400).score(pairs)
    assert max(height * width for height, width in rows) <= 420
    rows.clear()
    monkeypatch.setattr("minillama.evals.scorers.CACHE_BYTES", 1 << 20)
    LlamaScorer(model, tokenizer).score(pairs)
    handle.remove()
    position = 2 * model.config.n_layers * model.config.dim * 4
    assert max(height * width for height, width in rows) <= 2**20 // position


def test_a_greedy_continuation_is_recognised(mini):
    scorer = LlamaScorer(*mini)
    [[text]] = scorer.generate(["KING HENRY"], Sampling(8))
    wrong = text.text.replace("I", "A")
    assert wrong != text.text
    right, other = scorer.score([("KING HENRY", text.text),
                                 ("KING HENRY", wrong)])
    assert right.greedy and not other.greedy
    assert right.log_prob > other.log_prob


def test_spaces_go_with_what_follows(mini):
    _, tokenizer = mini
    for context, rest in (("my lord", " speaks"), ("my lord ", "speaks"),
                          ("my lord  ", "speaks")):
        ids, first = split_pair(tokenizer, (context, rest))
        assert ids == tokenizer.encode(context + rest, bos=True)
        assert tokenizer.decode(ids[1:first]) == "my lord"
    one, other = LlamaScorer(*mini).score(
        [("my lord", " speaks"), ("my lord ", "speaks")])
    assert one == other


def test_a_piece_that_crosses_the_border_is_predicted(mini):
    """`vi` and `vi` + `ce` are not the same first piece."""
    _, tokenizer = mini
    crossing = 0
    for word in ("service", "father", "something", "hath", "dukedom"):
        for cut in range(1, len(word)):
            pair = ("the " + word[:cut], word[cut:])
            ids, first = split_pair(tokenizer, pair)
            alone = tokenizer.encode(pair[0], bos=True)
            assert ids[:first] == alone[:first]
            assert tokenizer.decode(ids).endswith(word)
            crossing += first < len(alone)
    assert crossing  # else this test would see nothing


def test_nothing_to_predict_is_refused(mini):
    for pair in (("a", ""), ("a ", "  ")):
        with pytest.raises(ValueError, match="is empty"):
            LlamaScorer(*mini).score([pair])


def test_windows_predict_every_id_once_with_the_most_context():
    ids = list(range(30))
    for first, room in ((1, 7), (12, 7), (25, 7), (1, 100), (29, 5)):
        seen = []
        for window, n in windows(ids, first, room):
            assert len(window) - 1 <= room
            seen += window[-n:]
            # Nothing more would fit, or there is nothing more.
            assert len(window) - 1 == room or window[0] == 0
        assert seen == ids[first:]


def test_what_was_cut_is_counted(mini):
    scorer = LlamaScorer(*mini)
    long = words(random.Random(1), 300, 300)
    ids, first = split_pair(mini[1], (long, " my lord"))
    [score] = scorer.score([(long, " my lord")])
    assert score.cut == len(ids) - 1 - scorer.room > 0
    assert score.tokens == len(ids) - first
    assert scorer.score([("a king", " speaks")])[0].cut == 0
    [[text]] = scorer.generate([long], Sampling(16))
    assert text.cut == first - (scorer.room - 16)


def test_greedy_texts_are_those_of_generate(mini):
    prompts = ["KING HENRY", "My lord, I have", "O"]
    texts = LlamaScorer(*mini).generate(prompts, Sampling(24))
    for prompt, [text] in zip(prompts, texts):
        [want] = generate(*mini, [prompt], max_new_tokens=24, temperature=0.0)
        assert prompt + text.text == want
        assert text.tokens <= 24


def test_a_text_ends_before_the_first_stop_string(mini):
    scorer = LlamaScorer(*mini)
    [[whole]] = scorer.generate(["My lord, I have"], Sampling(60))
    stops = whole.text[5:8], whole.text[9:12]
    [[text]] = scorer.generate(["My lord, I have"], Sampling(60, stops))
    first = min(whole.text.index(stop) for stop in stops)
    assert text.text == whole.text[:first]
    assert text.ended and text.tokens < whole.tokens


def test_samples_differ_and_come_again(mini):
    scorer = LlamaScorer(*mini)
    drawn = Sampling(12, temperature=0.9, top_p=0.95, samples=6, seed=5)
    one = scorer.generate(["KING", "What"], drawn)
    assert [len(texts) for texts in one] == [6, 6]
    assert len({text.text for text in one[0]}) > 3
    assert scorer.generate(["KING", "What"], drawn) == one
    other = Sampling(12, temperature=0.9, top_p=0.95, samples=6, seed=6)
    assert scorer.generate(["KING", "What"], other) != one


@pytest.mark.oracle
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_hugging_faces_model_says_the_same(mini, kv_heads):
    """Same weights and pieces, another model, cache and tokenizer."""
    model, tokenizer = mini
    if kv_heads != 4:
        torch.manual_seed(2)
        model = Transformer(ModelConfig(
            64, 2, 4, n_kv_heads=2, multiple_of=8, vocab_size=512,
            max_seq_len=256)).eval()
    ours = LlamaScorer(model, tokenizer)
    theirs = hugging_face(twin(model),
                          twin_tokenizer(MINI / "tokenizer.model"))
    pairs = some_pairs()
    for mine, other in zip(ours.score(pairs), theirs.score(pairs)):
        assert mine.log_prob == pytest.approx(
            other.log_prob, abs=2e-4, rel=2e-6)
        assert (mine.greedy, mine.tokens, mine.cut) == (
            other.greedy, other.tokens, other.cut)
    greedy = Sampling(20, stop=(".",))
    prompts = ["KING HENRY", "What", "My lord, the"]
    if kv_heads == 4:  # broken bytes of random weights are shown otherwise
        assert ours.generate(prompts, greedy) == theirs.generate(
            prompts, greedy)


def test_a_folder_of_hugging_face_is_opened(mini, tmp_path):
    twin(mini[0]).save_pretrained(tmp_path)
    twin_tokenizer(MINI / "tokenizer.model").save_pretrained(tmp_path)
    pairs = [("my lord", " speaks")]
    assert hugging_face(tmp_path).score(pairs)[0].log_prob == pytest.approx(
        LlamaScorer(*mini).score(pairs)[0].log_prob, abs=1e-4)
