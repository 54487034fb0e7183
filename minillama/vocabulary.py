"""How a vocabulary is learnt: SentencePiece's trainer, made safe to use.

LLaMA's settings were read back from the released `tokenizer.model`; the paper
names three of them (section 2.1: BPE, single digits, bytes for unknown
characters).

Chapter: notebooks/04_tokenizer.ipynb
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator

import sentencepiece as spm

SPACE = "\u2581"
"""SentencePiece writes every space as this character, the marker."""

# The trainer's settings inside the released tokenizer.model. Only the number
# of threads is ours: it is stored in the file, so it must not vary.
LLAMA_SETTINGS = dict(
    model_type="bpe",
    byte_fallback=True,
    split_digits=True,
    split_by_unicode_script=True,
    split_by_whitespace=True,
    split_by_number=True,
    allow_whitespace_only_pieces=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    add_dummy_prefix=True,
    character_coverage=0.99995,
    max_sentence_length=4192,
    max_sentencepiece_length=16,
    input_sentence_size=200_000_000,
    shuffle_input_sentence=True,
    unk_id=0,
    bos_id=1,
    eos_id=2,
    pad_id=-1,
    num_threads=2,
)
# The trainer drops longer lines and lines with its own mark for unknown
# characters, without a word; so we cut before it can.
_LONGEST_LINE = 4000
_TRAINER_MARK = "\u2585"


def learn(texts: Iterable[str], vocab_size: int) -> bytes:
    """Learn BPE merges from texts with LLaMA's settings.

    Args:
        texts: documents; a merge never crosses the end of a line.
        vocab_size: V, all pieces together.

    Returns:
        The content of a SentencePiece `.model` file.

    Raises:
        ValueError: as `Tokenizer.train` says.

    Chapter: notebooks/04_tokenizer.ipynb
    """
    texts = [texts] if isinstance(texts, str) else texts
    lines = [line for text in texts for line in training_lines(text)]
    if not lines:
        raise ValueError(
            "texts: there is no text to learn a vocabulary from; give at "
            "least one line that is not empty")
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model,
            vocab_size=vocab_size, minloglevel=2, **LLAMA_SETTINGS)
    except RuntimeError as error:
        raise _size_error(vocab_size, str(error)) from error
    return model.getvalue()


def check_unicode(text: str) -> None:
    """Refuse a lone surrogate, half of a UTF-16 pair, which has no bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text: the character at position {error.start} is the lone "
            f"surrogate U+{ord(text[error.start]):04X}, which no UTF-8 text "
            "can hold; remove it or decode the file again") from error


def training_lines(text: str) -> Iterator[str]:
    """Cut a document into lines that the trainer takes whole."""
    check_unicode(text)
    for line in re.split(f"[\n{_TRAINER_MARK}]", text):
        start = 0
        if len(line.encode("utf-8")) > _LONGEST_LINE:
            # No character has more than 4 bytes, so this many always fit.
            room = _LONGEST_LINE // 4
            while len(line) - start > room:
                cut = line.rfind(" ", start + 1, start + room)
                cut = start + room if cut < 0 else cut
                yield line[start:cut]
                start = cut
        if line[start:]:
            yield line[start:]


def _size_error(vocab_size: int, message: str) -> ValueError:
    """Say in our words what SentencePiece did not like about the size."""
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return ValueError(
            f"vocab_size={vocab_size} is too small: this text needs 3 "
            "special pieces, 256 bytes and its characters; try at least "
            f"vocab_size={found[1]}")
    if found := re.search(r"value <= (\d+)", message):
        return ValueError(
            f"vocab_size={vocab_size} is too large for this text, which has "
            f"too few different pieces; try at most vocab_size={found[1]}, "
            "or give more text")
    return ValueError(
        f"vocab_size={vocab_size}: SentencePiece could not learn from this "
        f"text ({message.strip()}); try another size or more text")
