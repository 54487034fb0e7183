"""Tokenizers and chat templates that come with open weights.

The oracle for ids is `tokenizers` on files that are trained here, and
SentencePiece against its own conversion, on random strings. The templates
are the published forms of three open models in our own words; what a
stranger's template may not do is tried.
"""

from __future__ import annotations

import json
import os
import random

import pytest
import torch

from minillama import samples, weights
from minillama.config import ModelConfig
from minillama.generate import generate
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from minillama.weights.text import (
    ChatTemplate, JsonTokenizer, chat_template, open_tokenizer,
    to_tokenizer_json)
from tests import small

os.environ.setdefault("HF_HUB_OFFLINE", "1")
tokenizers = pytest.importorskip("tokenizers")
ODD = ["", " ", "  two spaces", "\n\ttabs\n", "12 apples, 3.5 %", "下雨了 🌧️🦊",
       "a\u00a0b", "é" * 3, "To be, or not to be", "\x00", "trailing  "]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A folder with a tokenizer as SmolLM and Llama 3 have it."""
    from tokenizers import decoders, models, pre_tokenizers, trainers

    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.train_from_iterator([small.sentences(200)], trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>", "<|turn|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    folder = tmp_path_factory.mktemp("json")
    fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": {"content": "<|end|>", "__type": "AddedToken"},
        "eos_token": "<|end|>"}), "utf-8")
    return folder


def test_a_tokenizer_json_has_the_same_interface(byte_level):
    ours = open_tokenizer(byte_level)
    theirs = tokenizers.Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    size = theirs.get_vocab_size()
    assert isinstance(ours, Tokenizer) and ours.vocab_size == size
    assert ours.bos_id == ours.eos_id == 0 and not ours.dummy_prefix
    for text in ODD:
        ids = ours.encode(text)
        assert ids == theirs.encode(text).ids
        assert ours.decode(ids) == text
        assert ours.count_bytes(ids) == len(text.encode("utf-8"))
        assert "".join([*map(stream.feed, ids), stream.finish()]
                       if (stream := ours.stream()) else []) == text
    assert ours.encode("a", eos=True)[-1] == 0
    assert ours.encode_batch(["a", "b c"]) == [ours.encode("a"),
                                               ours.encode("b c")]
    with pytest.raises(ValueError, match="surrogate"):
        ours.encode("\ud800")


def test_special_pieces_in_a_text_stay_text(byte_level):
    ours = open_tokenizer(byte_level)
    assert 0 not in ours.encode("x<|end|>y")
    assert 0 in ours.encode_marked("x<|end|>y")
    assert 0 not in ours.encode("x<|end|>y")  # and stay so afterwards


def test_it_is_kept_whole_under_one_name(byte_level, tmp_path):
    """A continued run saves it as `tokenizer.model` and finds it again."""
    ours = open_tokenizer(byte_level)
    ours.save(tmp_path / "tokenizer.model")
    again = open_tokenizer(tmp_path)
    assert again.to_bytes() == ours.to_bytes()
    assert again.eos_id == 0 and again.encode("a fox") == ours.encode("a fox")


def test_a_model_with_a_tokenizer_json_writes(byte_level, tmp_path):
    torch.manual_seed(1)
    model = Transformer(ModelConfig(16, 1, 2, multiple_of=8, vocab_size=400,
                                    max_seq_len=32))
    weights.save_hf(model, tmp_path / "h", tokenizer=open_tokenizer(
        byte_level))
    loaded, tokenizer = weights.load(tmp_path / "h")
    text = generate(loaded, tokenizer, ["a fox"], max_new_tokens=5)[0]
    assert text.startswith("a fox")
    from transformers import AutoTokenizer
    theirs = AutoTokenizer.from_pretrained(tmp_path / "h")
    assert theirs("the miller").input_ids == tokenizer.encode("the miller")
    assert theirs.eos_token_id == tokenizer.eos_id == 0
    with pytest.raises(ValueError, match="SentencePiece tokenizer only"):
        weights.save_gguf(loaded, tmp_path / "m.gguf", tokenizer=tokenizer)


def test_the_conversion_gives_sentencepieces_ids(tmp_path):
    """2,000 random strings, spaces first included; and decoding."""
    ours = Tokenizer(samples.MINI / "tokenizer.model")
    theirs = tokenizers.Tokenizer.from_str(to_tokenizer_json(ours))
    draw, letters = random.Random(4), "  etaoin KTHs.,'\n\t09é下🦊\x00"
    texts = ODD + ["".join(draw.choices(letters, k=draw.randint(0, 30)))
                   for _ in range(2000)]
    for text in texts:
        ids = theirs.encode(text).ids
        assert ids == ours.encode(text, bos=True), repr(text)
        assert theirs.decode(ids) == ours.decode(ids) == text, repr(text)


def test_autotokenizer_reads_the_export(tmp_path):
    from transformers import AutoTokenizer

    model, ours = samples.load_mini()
    weights.save_hf(model, tmp_path / "h", tokenizer=ours)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "h")
    for text in ODD:
        assert theirs(text).input_ids == ours.encode(text, bos=True)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (1, 2)
    config = json.loads((tmp_path / "h/config.json").read_text("utf-8"))
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)


def test_what_is_no_tokenizer_json_is_refused():
    for data in (b"{", b"{}", b'{"minillama": ["a", "b"], "tokenizer": {}}'):
        with pytest.raises(ValueError, match="tokenizer.json cannot be read"):
            JsonTokenizer(data)


# -- chat templates ----------------------------------------------------------

TURNS = ("{% for m in messages %}<|turn|>{{ m['role'] }}\n"
         "{{ m['content'] | trim }}<|end|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}")
INST = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
        "[INST] {{ m.content }} [/INST]{% elif m.role == 'assistant' %}"
        " {{ m.content }} {{ eos_token }}{% else %}"
        "{{ raise_exception('no system role') }}{% endif %}{% endfor %}")
TALK = [{"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A fox."},
        {"role": "user", "content": "Why? "}]


def test_templates_are_found_and_rendered(byte_level, tmp_path):
    tokenizer = open_tokenizer(byte_level)
    assert chat_template(byte_level, tokenizer) is None
    for name, text in (("tokenizer_config.json",
                        json.dumps({"chat_template": TURNS})),
                       ("tokenizer_config.json", json.dumps(
                           {"chat_template": [
                               {"name": "tool", "template": "no"},
                               {"name": "default", "template": TURNS}]})),
                       ("chat_template.jinja", TURNS)):
        (tmp_path / name).write_text(text, "utf-8")
        template = chat_template(tmp_path, tokenizer)
        assert template.render(TALK) == (
            "<|turn|>user\nWho are you?<|end|>\n<|turn|>assistant\nA fox."
            "<|end|>\n<|turn|>user\nWhy?<|end|>\n<|turn|>assistant\n")
        (tmp_path / name).unlink()


def test_rendering_equals_transformers(byte_level, tmp_path):
    """The same text as AutoTokenizer.apply_chat_template, and the ids."""
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((byte_level / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text(TURNS, "utf-8")
    tokenizer = open_tokenizer(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = chat_template(tmp_path, tokenizer)
    assert ours.render(TALK) == theirs.apply_chat_template(
        TALK, tokenize=False, add_generation_prompt=True)
    assert ours.encode(TALK) == theirs.apply_chat_template(
        TALK, add_generation_prompt=True, return_dict=False)


def test_sentencepiece_ends_are_ids_in_a_chat():
    tokenizer = Tokenizer(samples.MINI / "tokenizer.model")
    ids = ChatTemplate(INST, tokenizer).encode(TALK)
    first, second = (tokenizer.encode(text) for text in (
        "[INST] Who are you? [/INST] A fox. ", "[INST] Why?  [/INST]"))
    assert ids == [1, *first, 2, *second]


@pytest.mark.parametrize(("source", "message"), [
    ("{% for %}", "chat template"),
    ("{{ raise_exception('one role only') }}", "one role only"),
    ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ("{{ messages.append(1) }}", "unsafe"),
    ("{{ open('x') }}", "undefined"),
    ("{% include 'x' %}", "chat template"),
    ("{{ raise_exception.__globals__['json'] }}", "unsafe"),
])
def test_what_a_template_may_not_do(source, message):
    tokenizer = Tokenizer(samples.MINI / "tokenizer.model")
    with pytest.raises(ValueError, match=message):
        ChatTemplate(source, tokenizer).render(TALK)
