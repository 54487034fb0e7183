"""The tokenizers that come with open weights, and their chat templates.

`tokenizer.model` is SentencePiece's, as in this book. `tokenizer.json` is
read by the `tokenizers` package. A chat template is a small program in the
language jinja2 that a stranger wrote: it runs in a sandbox.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor

from minillama.files import needs
from minillama.tokenizer import Tokenizer
from minillama.vocabulary import SPACE, check_unicode
from minillama.weights.parts import read_json

NEEDS = 'needs more packages; pip install "minillama[hf]"'


class JsonTokenizer(Tokenizer):
    """A `tokenizer.json`, with the interface of `Tokenizer`.

    Args:
        data: the file's bytes, or what `to_bytes` gave.
        bos: the piece that begins a text, if there is one.
        eos: the piece that ends it.

    Raises:
        ValueError: if it is not one, or `tokenizers` is not installed.

    Chapter: notebooks/11_generation.ipynb
    """

    def __init__(
        self, data: bytes, bos: str | None = None, eos: str | None = None
    ) -> None:
        with needs(f"tokenizer.json {NEEDS}"):
            from tokenizers import Tokenizer as Fast
        try:
            held = json.loads(data)
            if "minillama" in held:  # written by to_bytes
                bos, eos = held["minillama"]
                held = held["tokenizer"]
            self._fast = Fast.from_str(json.dumps(held))
        except Exception as error:  # tokenizers raises Exception itself
            raise ValueError(
                f"tokenizer.json cannot be read ({error}); get the file "
                "again") from error
        self._ends = (bos, eos)
        self.bos_id, self.eos_id = (
            -1 if piece is None or (found := self._fast.token_to_id(piece))
            is None else found for piece in (bos, eos))
        self.vocab_size = max(self._fast.get_vocab().values()) + 1
        self._byte_level = "ByteLevel" in json.dumps(held.get("decoder"))
        first = self._fast.encode("a", add_special_tokens=False).tokens[0]
        self.dummy_prefix = first.startswith(SPACE)

    def to_bytes(self) -> bytes:
        """All that is needed to open it again."""
        return json.dumps({
            "minillama": self._ends, "tokenizer": json.loads(self.json())},
            sort_keys=True).encode()

    def json(self) -> str:
        """The content of a plain `tokenizer.json`."""
        return self._fast.to_str()

    def encode(
        self, text: str, bos: bool = False, eos: bool = False
    ) -> list[int]:
        """As `Tokenizer.encode`; `bos` adds what these weights saw first.

        That is what the file itself says: some models begin a text with
        nothing. Special pieces inside the text stay text.
        """
        return self.encode_batch([text], bos, eos)[0]

    def encode_batch(
        self, texts: Sequence[str], bos: bool = False, eos: bool = False
    ) -> list[list[int]]:
        """`encode` for many texts."""
        for text in texts:
            check_unicode(text)
        self._fast.encode_special_tokens = True
        return [row.ids + [self.eos_id] * eos for row in
                self._fast.encode_batch(list(texts), add_special_tokens=bos)]

    def encode_marked(self, text: str) -> list[int]:
        """The ids of a rendered chat, in which special pieces are meant."""
        self._fast.encode_special_tokens = False
        return self._fast.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids; special pieces leave nothing behind."""
        return self._fast.decode([int(i) for i in ids])

    def piece(self, token: int) -> str:
        """How the vocabulary spells an id; nothing for an unused one."""
        return self._fast.id_to_token(int(token)) or ""

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Per piece: bytes of text, and whether it begins with the marker."""
        pieces = [self.piece(i) for i in range(self.vocab_size)]
        special = {i for i, added in
                   self._fast.get_added_tokens_decoder().items()
                   if added.special}
        sizes = [
            0 if i in special
            else len(piece) if self._byte_level  # one sign is one byte
            else 1 if re.fullmatch("<0x[0-9A-F]{2}>", piece)
            else len(piece.replace(SPACE, " ").encode("utf-8"))
            for i, piece in enumerate(pieces)]
        return (np.array(sizes, dtype=np.int64),
                np.array([piece.startswith(SPACE) for piece in pieces]))


def sentencepiece_of(tokenizer: Tokenizer) -> SentencePieceProcessor:
    """SentencePiece's own object, which knows scores and kinds of pieces."""
    return SentencePieceProcessor(model_proto=tokenizer.to_bytes())


def to_tokenizer_json(tokenizer: Tokenizer) -> str:
    """A SentencePiece model as a `tokenizer.json` that gives the same ids.

    Scores become merges: each way to put a piece together from two others,
    the best pieces first. Hugging Face's own conversion puts no second space
    before a text that begins with one; this one does, as SentencePiece.
    In text, `<s>` and `</s>` become special ids there.

    Raises:
        ValueError: if `tokenizers` is not installed.

    Chapter: notebooks/11_generation.ipynb
    """
    with needs(f"tokenizer.json {NEEDS}"):
        from tokenizers import AddedToken, decoders, normalizers, processors
        from tokenizers import Tokenizer as Fast
        from tokenizers.models import BPE
    model = sentencepiece_of(tokenizer)
    pieces = [model.id_to_piece(i) for i in range(tokenizer.vocab_size)]
    rank = {piece: i for i, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for i, piece in sorted(
            enumerate(pieces), key=lambda p: -model.get_score(p[0]))
        if not (model.is_byte(i) or model.is_control(i) or model.is_unknown(i))
        for cut in range(1, len(piece))
        if piece[:cut] in rank and piece[cut:] in rank]
    unk = pieces[model.unk_id()]
    bos, eos = pieces[tokenizer.bos_id], pieces[tokenizer.eos_id]
    fast = Fast(BPE(rank, merges, unk_token=unk, fuse_unk=True,
                    byte_fallback=True))
    marks = [normalizers.Replace(" ", SPACE)]
    undo = [decoders.Replace(SPACE, " "), decoders.ByteFallback(),
            decoders.Fuse()]
    if tokenizer.dummy_prefix:
        marks.insert(0, normalizers.Prepend(SPACE))
        undo.append(decoders.Strip(" ", 1, 0))
    fast.normalizer = normalizers.Sequence(marks)
    fast.decoder = decoders.Sequence(undo)
    fast.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.bos_id)])
    fast.add_special_tokens(
        [AddedToken(p, special=True, normalized=False)
         for p in (unk, bos, eos)])
    return fast.to_str(pretty=True)


def open_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder of weights, or None if there is none.

    `tokenizer.model` is taken before `tokenizer.json`.

    Chapter: notebooks/11_generation.ipynb
    """
    folder = Path(folder)
    model, plain = folder / "tokenizer.model", folder / "tokenizer.json"
    if model.is_file():
        data = model.read_bytes()
        # Continued runs keep whatever tokenizer they have under one name.
        return JsonTokenizer(data) if data[:1] == b"{" else Tokenizer(model)
    if plain.is_file():
        return JsonTokenizer(plain.read_bytes(), *_ends(folder))
    return None


def _ends(folder: Path) -> tuple[str | None, str | None]:
    """The pieces that tokenizer_config.json says begin and end a text."""
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    found = [settings.get(name) for name in ("bos_token", "eos_token")]
    bos, eos = (x["content"] if isinstance(x, dict) else x for x in found)
    return bos, eos


class ChatTemplate:
    """How one model wants a conversation written down.

    Args:
        source: the template, in jinja2.
        tokenizer: of the same model.

    Raises:
        ValueError: if jinja2 is not installed, or the template is broken.

    Chapter: notebooks/11_generation.ipynb
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        with needs(f"a chat template {NEEDS}"):
            from jinja2 import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        self._error, self._tokenizer = TemplateError, tokenizer
        room = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True)
        room.globals["raise_exception"] = _refuse
        room.filters["tojson"] = lambda value, **options: json.dumps(
            value, ensure_ascii=False, **options)
        try:
            self._template = room.from_string(source)
        except TemplateError as error:
            raise ValueError(f"chat template: {error}") from error

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The conversation as one text that asks for the next answer.

        Args:
            messages: each with `role` (system, user, assistant) and
                `content`.

        Raises:
            ValueError: if the template refuses them, or reaches for what a
                sandbox does not give.
        """
        bos, eos = (self._tokenizer.piece(i) if i >= 0 else "" for i in (
            self._tokenizer.bos_id, self._tokenizer.eos_id))
        try:
            return self._template.render(
                messages=list(messages), bos_token=bos, eos_token=eos,
                add_generation_prompt=True)
        except (self._error, TypeError) as error:
            raise ValueError(f"chat template: {error}") from error

    def encode(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The ids of `render`, special pieces as what they are."""
        text, t = self.render(messages), self._tokenizer
        if isinstance(t, JsonTokenizer):
            return t.encode_marked(text)
        ends = {t.piece(i): i for i in (t.bos_id, t.eos_id)}
        parts = re.split("(" + "|".join(map(re.escape, ends)) + ")", text)
        ids = [[ends[part]] if part in ends else t.encode(part)
               for part in parts]
        ids = [token for part in ids for token in part]
        return ids if ids[:1] == [t.bos_id] else [t.bos_id, *ids]


def _refuse(message: Any) -> None:
    """What templates call on a conversation that they cannot write."""
    raise ValueError(f"chat template: {message}")


def chat_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template of a folder, or None: a base model has none.

    Looked for in `chat_template.jinja`, then in `tokenizer_config.json`.

    Chapter: notebooks/11_generation.ipynb
    """
    own = Path(folder) / "chat_template.jinja"
    if own.is_file():
        return ChatTemplate(own.read_text(encoding="utf-8"), tokenizer)
    path = Path(folder) / "tokenizer_config.json"
    source = read_json(path).get("chat_template") if path.is_file() else None
    if isinstance(source, list):  # several, by name
        named = {entry["name"]: entry["template"] for entry in source}
        source = named.get("default")
    return ChatTemplate(source, tokenizer) if source else None
