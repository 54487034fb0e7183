"""Text to token ids and back: SentencePiece BPE with LLaMA's settings.

The paper says little (section 2.1): byte-pair encoding (Sennrich et al.
2015) as implemented in SentencePiece, every number split into digits, every
unknown character decomposed into its UTF-8 bytes. How the vocabulary is
learnt stands in `minillama.vocabulary`.

Chapter: notebooks/04_tokenizer.ipynb
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece as spm

from minillama import vocabulary
from minillama.files import replace_bytes
from minillama.text_stream import TextStream
from minillama.vocabulary import SPACE, check_unicode

class Tokenizer:
    """A SentencePiece model: LLaMA's, one of ours, or any other.

    With LLaMA's settings `decode(encode(text)) == text` for every string
    that UTF-8 can write.

    Args:
        path: a SentencePiece `.model` file.

    Raises:
        ValueError: if the file is missing or is not a SentencePiece model.

    Chapter: notebooks/04_tokenizer.ipynb
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        if not path.is_file():
            raise ValueError(
                f"tokenizer={str(path)!r} is not a file; give the path of a "
                "SentencePiece .model file")
        self._load(path.read_bytes(), str(path))

    def _load(self, model: bytes, name: str) -> None:
        """Open the serialised model and read what never changes."""
        self._model = spm.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError(
                f"tokenizer={name!r} is not a SentencePiece model; "
                "`minillama tokenizer train` writes one") from error
        self.vocab_size: int = self._model.vocab_size()
        self.bos_id: int = self._model.bos_id()
        self.eos_id: int = self._model.eos_id()
        # Whether a space is put before every text, as LLaMA does.
        self.dummy_prefix: bool = (
            self._model.encode("a", out_type=str)[0].startswith(SPACE))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        path: str | os.PathLike[str],
    ) -> Tokenizer:
        """Learn BPE merges from texts and write the model to `path`.

        The vocabulary is 3 special pieces, 256 byte pieces, the merges in
        the order in which they were learnt, and the single characters. The
        same texts give the same file, byte for byte.

        Args:
            texts: documents; a merge never crosses the end of a line.
            vocab_size: V, all pieces together.
            path: the file to write, replaced in one step.

        Raises:
            ValueError: if there is no text, or too little or too much of it
                for the vocabulary, with the size that would work.

        Chapter: notebooks/04_tokenizer.ipynb
        """
        model = vocabulary.learn(texts, vocab_size)
        tokenizer = cls.__new__(cls)
        tokenizer._load(model, str(path))
        tokenizer.save(path)
        return tokenizer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model file; a kill leaves the old file or the new."""
        replace_bytes(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """The serialised SentencePiece model, the content of its file."""
        return self._model.serialized_model_proto()

    def encode(
        self, text: str, bos: bool = False, eos: bool = False
    ) -> list[int]:
        """The ids of a text, with BOS before and EOS after if asked for.

        `<s>` inside the text stays text. An empty text has no ids.

        Raises:
            ValueError: if the text holds a lone surrogate, which UTF-8
                cannot write.

        Chapter: notebooks/04_tokenizer.ipynb
        """
        check_unicode(text)
        ids = self._encode_marker(text) if SPACE in text else (
            self._model.encode(text))
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def encode_batch(
        self, texts: Sequence[str], bos: bool = False, eos: bool = False
    ) -> list[list[int]]:
        """`encode` for many texts, several times faster than one by one."""
        for text in texts:
            check_unicode(text)
        batch = self._model.encode(list(texts), num_threads=1)
        for row, text in enumerate(texts):
            if SPACE in text:
                batch[row] = self._encode_marker(text)
        return [[self.bos_id] * bos + ids + [self.eos_id] * eos
                for ids in batch]

    def _encode_marker(self, text: str) -> list[int]:
        """Encode a text that holds the marker U+2581 itself.

        SentencePiece would take the marker for a space. A character that
        is in neither text nor vocabulary stands in for it; its four byte
        pieces are then exchanged for the three of the marker.
        """
        unknown = self._model.unk_id()
        stand_in = next(
            char for char in map(chr, range(0x10FFFF, 0xF0000, -1))
            if char not in text
            and self._model.piece_to_id(char) == unknown)
        ids = self._model.encode(text.replace(SPACE, stand_in))
        old, new = (
            [self._model.piece_to_id(f"<0x{byte:02X}>")
             for byte in char.encode("utf-8")] for char in (stand_in, SPACE))
        out: list[int] = []
        for token in ids:
            out.append(token)
            if out[-4:] == old:
                out[-4:] = new
        return out

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids; special pieces leave nothing behind.

        Bytes that are not valid UTF-8 become U+FFFD.

        Raises:
            ValueError: if an id is outside the vocabulary.

        Chapter: notebooks/04_tokenizer.ipynb
        """
        ids = [int(token) for token in ids]
        if odd := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ValueError(
                f"ids: {odd[0]} is outside the vocabulary, which has ids 0 "
                f"to {self.vocab_size - 1}; these ids come from another "
                "tokenizer")
        return self._model.decode(ids)

    def piece(self, token: int) -> str:
        """How the vocabulary spells an id, the marker U+2581 for a space."""
        return self._model.id_to_piece(int(token))

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Per piece: bytes of text, and whether it begins with the marker.

        A byte piece is one byte (its name `<0x41>` has six), the marker is
        one space (in UTF-8 it has three bytes), and a special piece is
        nothing. Counting names instead of text is the usual way to get bits
        per byte wrong.
        """
        model = self._model
        pieces = [model.id_to_piece(i) for i in range(self.vocab_size)]
        sizes = [
            0 if model.is_control(i) or model.is_unknown(i)
            else 1 if model.is_byte(i)
            else len(piece.replace(SPACE, " ").encode("utf-8"))
            for i, piece in enumerate(pieces)]
        return (np.array(sizes, dtype=np.int64),
                np.array([piece.startswith(SPACE) for piece in pieces]))

    def count_bytes(self, ids: Sequence[int] | np.ndarray) -> int:
        """How many bytes of text a stream of documents stands for.

        Each document begins with BOS. The space that the tokenizer puts
        before every document is not text and is not counted. Ids before the
        first BOS are the middle of a document and are counted in full.

        Args:
            ids: (N,) ids, BOS before every document.

        Chapter: notebooks/04_tokenizer.ipynb
        """
        ids = np.asarray(ids, dtype=np.int64)
        sizes, spaced = self._sizes
        total = int(sizes[ids].sum())
        if self.dummy_prefix:
            first = ids[1:][ids[:-1] == self.bos_id]
            total -= int(spaced[first].sum())
        return total

    def stream(self, after: Sequence[int] = ()) -> TextStream:
        """A decoder that is fed one id at a time.

        Args:
            after: ids whose text is known already, such as the prompt's.
        """
        return TextStream(self, after)
