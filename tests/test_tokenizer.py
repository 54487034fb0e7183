"""minillama/tokenizer.py: exact round trips, layout, true bytes.

Oracles: Python's UTF-8 codec for every count of bytes, and, where the real
32,000-piece model is at hand (see `tests/real.py`), ids that it is known to
give.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillama.tokenizer import SPACE, Tokenizer
from tests.real import real_tokenizer

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
    return Tokenizer(real_tokenizer())


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


def test_bytes_of_pieces_by_kind(tokenizer):
    """Byte pieces 1, specials 0, the marker 1, and UTF-8 otherwise."""
    sizes, _ = tokenizer._sizes
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
