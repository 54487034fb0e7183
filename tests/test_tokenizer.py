"""minillama/tokenizer.py: exact round trips, LLaMA's settings, true bytes.

Oracles: Python's UTF-8 codec for every count of bytes, the settings as they
stand in the released file, a byte-pair encoder of twenty lines, and, where
the real 32,000-piece model is at hand (MINILLAMA_REAL_TOKENIZER, or a folder
data/models/llama_tokenizer beside the repository), the model itself.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillama.tokenizer import SPACE, Tokenizer

TEXT = [
    "The quick brown fox jumps over the lazy dog.\nIt was 1623, and 7 plays "
    "were lost.\n  Two spaces, and\ttabs.",
    "To be, or not to be: that is the question.\nWhether 'tis nobler in the "
    "mind to suffer\nThe slings and arrows of outrageous fortune,",
] * 20
# Strings made to hurt: markers, special pieces, bytes, spaces, emoji.
PARTS = st.sampled_from([
    " ", "  ", "\n", "\r\n", "\t", "\0", "a", "the ", "1623", SPACE,
    SPACE * 2, "\U0010ffff", "\U0010fffe", "\u2585", "\u2047", " \u2047 ",
    "<s>", "</s>", "<unk>", "<0x41>", "\u00a0", "\u3000", "\u2028",
    "e\u0301", "\u00e9", "\u4f60\u597d", "\U0001f642",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\ufffd", "\ufeff",
    "\ufdd0", "\x7f", "\u0627\u0644", "\U000e0001"])
TEXTS = st.lists(
    PARTS | st.text(st.characters(exclude_categories=["Cs"])), max_size=12
).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    """340 pieces of our own training."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return Tokenizer.train(TEXT, 340, path)


@pytest.fixture(scope="module")
def real() -> Tokenizer:
    """The 32,000 pieces of the release, where a copy is at hand."""
    beside = Path(__file__).resolve().parents[2].glob(
        "*/data/models/llama_tokenizer/tokenizer.model")
    path = os.environ.get("MINILLAMA_REAL_TOKENIZER") or next(beside, None)
    if path is None:
        pytest.skip("the real 32k model is not on this machine")
    return Tokenizer(path)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
@example(text="")
@example(text=SPACE)
@example(text=f" {SPACE}\U0010ffff{SPACE} ")
def test_round_trip(tokenizer, text):
    """decode(encode(text)) is text; so with BOS and EOS, and in batches."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(text, bos=True, eos=True) == [1, *ids, 2]
    assert tokenizer.decode([1, *ids, 2]) == text
    assert tokenizer.encode_batch([text, "a", text]) == [
        ids, tokenizer.encode("a"), ids]


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TEXTS, max_size=3))
def test_counts_the_bytes_of_the_text(tokenizer, texts):
    """As many bytes as Python's UTF-8 codec writes, documents in a row."""
    rows = tokenizer.encode_batch(texts, bos=True, eos=True)
    stream = np.array([i for row in rows for i in row], dtype=np.int64)
    want = sum(len(text.encode("utf-8")) for text in texts)
    assert tokenizer.count_bytes(stream) == want


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_stream_settles_to_the_same_text(tokenizer, text):
    """Piece by piece gives the whole, and never half a character."""
    stream, shown = tokenizer.stream(), ""
    for token in tokenizer.encode(text, bos=True):
        shown += stream.feed(token)
        assert text.startswith(shown)
    assert shown + stream.finish() == text


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 339), max_size=20))
def test_stream_of_any_ids(tokenizer, ids):
    """Random ids, invalid UTF-8 among them: joined pieces are `decode`."""
    stream = tokenizer.stream()
    text = "".join(stream.feed(i) for i in ids) + stream.finish()
    assert text == tokenizer.decode(ids)


def test_stream_after_a_prompt(tokenizer):
    """What follows a prompt keeps its leading space."""
    ids = tokenizer.encode("not to be")
    stream = tokenizer.stream(after=ids[:1])
    rest = "".join(stream.feed(i) for i in ids[1:]) + stream.finish()
    assert tokenizer.decode(ids[:1]) + rest == "not to be"


@settings(max_examples=40, deadline=None)
@given(before=TEXTS, code=st.integers(0xD800, 0xDFFF), after=TEXTS)
def test_lone_surrogate_is_refused(tokenizer, before, code, after):
    """Half of a UTF-16 pair has no bytes; the message says where it is."""
    text = before + chr(code) + after
    says = rf"position {len(before)} .*U\+{code:04X}"
    with pytest.raises(ValueError, match=says):
        tokenizer.encode(text)
    with pytest.raises(ValueError, match=says):
        tokenizer.encode_batch(["fine", text])


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in protobuf's wire format, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 128:
            return value, at


def fields(data: bytes) -> dict[int, int | float | bytes]:
    """The fields of one protobuf message by number, the last of each."""
    out, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            out[tag >> 3], at = varint(data, at)
        elif tag & 7 == 5:
            out[tag >> 3] = struct.unpack_from("<f", data, at)[0]
            at += 4
        else:
            size, at = varint(data, at)
            out[tag >> 3] = data[at:at + size]
            at += size
    return out


# Numbers of the fields in SentencePiece's schema, values of the release.
TRAINER = {
    3: 2,               # model_type: BPE
    11: 200_000_000,    # input_sentence_size
    18: 4192,           # max_sentence_length, in bytes
    19: 1,              # shuffle_input_sentence
    20: 16,             # max_sentencepiece_length
    21: 1, 22: 1, 23: 1,  # split by script, by whitespace, by number
    24: 0,              # treat_whitespace_as_suffix
    25: 1,              # split_digits
    26: 1,              # allow_whitespace_only_pieces
    35: 1,              # byte_fallback
    40: 0, 41: 1, 42: 2, 43: 2**64 - 1,  # unk, bos, eos, pad (-1)
    44: " \u2047 ".encode(), 45: b"<unk>", 46: b"<s>", 47: b"</s>",
}
# What SentencePiece leaves out of the file where it is the default.
UNWRITTEN = {k: TRAINER[k] for k in (24, 44, 45, 46, 47)}
NORMALIZER = {1: b"identity", 2: b"", 3: 1, 4: 0}  # dummy prefix; no removal


def test_trainer_settings_are_those_of_the_release(tokenizer):
    """Field by field, as stored in the file."""
    model = fields(tokenizer.to_bytes())
    trainer, normalizer = fields(model[2]), fields(model[3])
    assert trainer[4] == 340
    assert trainer[10] == pytest.approx(0.99995)
    assert {k: (UNWRITTEN | trainer)[k] for k in TRAINER} == TRAINER
    assert {k: normalizer.get(k, b"") for k in NORMALIZER} == NORMALIZER


def test_the_release_has_these_settings(real):
    """The table above is what the real file says."""
    model = fields(real.to_bytes())
    trainer, normalizer = fields(model[2]), fields(model[3])
    assert {k: (UNWRITTEN | trainer)[k] for k in TRAINER} == TRAINER
    assert {k: normalizer.get(k, b"") for k in NORMALIZER} == NORMALIZER


def test_layout_of_the_vocabulary(tokenizer):
    """Specials, 256 bytes, merges with falling scores, then characters."""
    pieces = [tokenizer.piece(i) for i in range(340)]
    assert pieces[:3] == ["<unk>", "<s>", "</s>"]
    assert pieces[3:259] == [f"<0x{b:02X}>" for b in range(256)]
    lengths = [len(piece) for piece in pieces[259:]]
    merges = lengths.index(1)
    assert merges > 10 and set(lengths[merges:]) == {1}
    assert not any(sum(c.isdigit() for c in p) > 1 for p in pieces[259:])
    assert tokenizer.encode("1623")[-4:] == [
        pieces.index(digit) for digit in "1623"]


def merges_by_hand(lines: list[str], count: int) -> list[str]:
    """Byte-pair encoding of words, by dictionary: the first merges."""
    words = Counter(SPACE + w for line in lines for w in line.split(" "))
    split = {word: list(word) for word in words}
    learnt = []
    while len(learnt) < count:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(split[word], split[word][1:]):
                pairs[pair] += n
        a, b = max(pairs, key=pairs.get)
        learnt.append(a + b)
        for word, parts in split.items():
            i = 0
            while i < len(parts) - 1:
                if parts[i] == a and parts[i + 1] == b:
                    parts[i:i + 2] = [a + b]
                i += 1
    return learnt


@pytest.mark.oracle
def test_merges_are_those_found_by_hand(tmp_path):
    """Where no two pairs tie, SentencePiece learns what a dictionary does."""
    lines = (["hugs"] * 50 + ["hug"] * 31 + ["pug"] * 17 + ["bun"] * 7
             + ["pun"] * 4)
    want = merges_by_hand(lines, 6)
    vocabulary = Tokenizer.train(
        lines, 259 + 8 + 6, tmp_path / "toy.model")
    got = [vocabulary.piece(259 + i) for i in range(6)]
    assert got == want


def test_token_bytes_by_kind(tokenizer):
    """Byte pieces 1, specials 0, the marker 1, and UTF-8 otherwise."""
    sizes = tokenizer.token_bytes()
    assert sizes[:3].tolist() == [0, 0, 0]
    assert sizes[3:259].tolist() == [1] * 256
    for i in range(259, 340):
        text = tokenizer.piece(i).replace(SPACE, " ")
        assert sizes[i] == len(text.encode("utf-8"))
    assert sizes.dtype == np.int64 and sizes.shape == (340,)


def test_middle_of_a_document_is_counted_in_full(tokenizer):
    """Only the piece after BOS carries a space that nobody wrote."""
    ids = tokenizer.encode(" be that", bos=True)
    assert tokenizer.count_bytes(ids) == len(" be that")
    assert tokenizer.count_bytes(ids[1:]) == len(" be that") + 1
    assert tokenizer.count_bytes([]) == 0


def test_same_text_same_bytes(tmp_path):
    """Training twice writes one file, byte for byte, and no scraps."""
    Tokenizer.train(TEXT, 300, tmp_path / "a.model")
    Tokenizer.train(iter(TEXT), 300, tmp_path / "b.model")
    assert ((tmp_path / "a.model").read_bytes()
            == (tmp_path / "b.model").read_bytes())
    assert len(list(tmp_path.iterdir())) == 2


def test_no_text_is_lost_in_training(tmp_path):
    """Long lines, and lines with U+2585, teach their characters too.

    The trainer itself would drop either whole, so \u03a9 and \u0416 would fall
    back to bytes.
    """
    omega, zhe = "\u03a9", "\u0416"
    texts = ["a b " * 50, f"{omega} word " * 2000, f"\u2585{zhe} word " * 300,
             omega * 20_000]
    learnt = Tokenizer.train(texts, 276, tmp_path / "t.model")
    pieces = {learnt.piece(i) for i in range(learnt.vocab_size)}
    assert omega in pieces and zhe in pieces
    assert learnt.decode(learnt.encode("\u2585")) == "\u2585"


def test_long_lines_weigh_as_much_as_short_ones(tmp_path):
    """One line of 100,000 words gives the merges of 100,000 lines."""
    words = ["hugs"] * 500 + ["pug"] * 300 + ["bun"] * 70
    a = Tokenizer.train(words, 273, tmp_path / "a.model")
    b = Tokenizer.train([" ".join(words)], 273, tmp_path / "b.model")
    assert ([a.piece(i) for i in range(259, 263)]
            == [b.piece(i) for i in range(259, 263)])


@pytest.mark.parametrize("texts, size, says", [
    ([], 300, "no text"),
    (["", "\n\n"], 300, "no text"),
    (["abc"], 100, r"vocab_size=100 is too small.*at least vocab_size=263"),
    (["abc"], 9000, r"vocab_size=9000 is too large.*at most vocab_size="),
    (["a\ud800"], 300, "position 1"),
])
def test_training_refuses_with_what_would_work(tmp_path, texts, size, says):
    """The field, the value and a size to try; no file is left."""
    with pytest.raises(ValueError, match=says):
        Tokenizer.train(texts, size, tmp_path / "t.model")
    assert not list(tmp_path.iterdir())


def test_suggested_sizes_work(tmp_path):
    """The sizes named by the two messages are right."""
    Tokenizer.train(["abc"], 263, tmp_path / "t.model")
    with pytest.raises(ValueError) as caught:
        Tokenizer.train(["abc"], 9000, tmp_path / "t.model")
    most = int(str(caught.value).split("vocab_size=")[2].split(",")[0])
    assert Tokenizer.train(["abc"], most, tmp_path / "t").vocab_size == most


def test_opening_and_decoding_refuse(tokenizer, tmp_path):
    """Missing file, another kind of file, an id from another tokenizer."""
    with pytest.raises(ValueError, match="is not a file"):
        Tokenizer(tmp_path / "none.model")
    (tmp_path / "other").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        Tokenizer(tmp_path / "other")
    with pytest.raises(ValueError, match="ids: 340 .* 0 to 339"):
        tokenizer.decode([5, 340])


def test_saved_file_opens_again(tokenizer, tmp_path):
    """A saved copy gives the same ids."""
    tokenizer.save(tmp_path / "deep" / "copy.model")
    copy = Tokenizer(tmp_path / "deep" / "copy.model")
    assert copy.encode(TEXT[0]) == tokenizer.encode(TEXT[0])
    assert (copy.vocab_size, copy.bos_id, copy.eos_id) == (340, 1, 2)


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_real_model_round_trip(real, text):
    """The release's own model, the same promises."""
    ids = real.encode(text, bos=True)
    assert real.decode(ids) == text
    assert real.count_bytes(ids) == len(text.encode("utf-8"))


def test_real_model_known_ids(real):
    """Digits, newline and emoji where the release has them."""
    assert real.vocab_size == 32000
    assert real.encode("Hello 123\n", bos=True) == [
        1, 15043, 29871, 29896, 29906, 29941, 13]
    assert [real.encode(d)[-1] for d in "0123456789"] == [
        29900, 29896, 29906, 29941, 29946, 29945, 29953, 29955, 29947, 29929]
