"""minillama/vocabulary.py: LLaMA's settings, true merges, no text lost.

Oracles: the settings as they stand in the released file (read with a protobuf
reader of a dozen lines, and compared with the file itself where it is at
hand), and byte-pair encoding by dictionary.
"""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from minillama.tokenizer import Tokenizer
from minillama.vocabulary import SPACE
from tests.real import real_tokenizer
from tests.test_tokenizer import TEXT


@pytest.fixture(scope="module")
def learnt(tmp_path_factory) -> Tokenizer:
    """340 pieces of our own training."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return Tokenizer.train(TEXT, 340, path)


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


def test_trainer_settings_are_those_of_the_release(learnt):
    """Field by field, as stored in the file."""
    model = fields(learnt.to_bytes())
    trainer, normalizer = fields(model[2]), fields(model[3])
    assert trainer[4] == 340
    assert trainer[10] == pytest.approx(0.99995)
    assert {k: (UNWRITTEN | trainer)[k] for k in TRAINER} == TRAINER
    assert {k: normalizer.get(k, b"") for k in NORMALIZER} == NORMALIZER


def test_the_release_has_these_settings():
    """The table above is what the real file says."""
    model = fields(real_tokenizer().read_bytes())
    trainer, normalizer = fields(model[2]), fields(model[3])
    assert {k: (UNWRITTEN | trainer)[k] for k in TRAINER} == TRAINER
    assert {k: normalizer.get(k, b"") for k in NORMALIZER} == NORMALIZER


def merges_by_hand(lines: list[str], count: int) -> list[str]:
    """Byte-pair encoding of words, by dictionary: the first merges."""
    words = Counter(SPACE + w for line in lines for w in line.split(" "))
    split = {word: list(word) for word in words}
    found = []
    while len(found) < count:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(split[word], split[word][1:]):
                pairs[pair] += n
        a, b = max(pairs, key=pairs.get)
        found.append(a + b)
        for word, parts in split.items():
            i = 0
            while i < len(parts) - 1:
                if parts[i] == a and parts[i + 1] == b:
                    parts[i:i + 2] = [a + b]
                i += 1
    return found


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
    omegas = Tokenizer.train(texts, 276, tmp_path / "t.model")
    pieces = {omegas.piece(i) for i in range(omegas.vocab_size)}
    assert omega in pieces and zhe in pieces
    assert omegas.decode(omegas.encode("\u2585")) == "\u2585"


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
