"""`minillama tokenizer`: learn a vocabulary, or look at one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True)
class TokenizerTrain:
    """Learn a SentencePiece BPE vocabulary with LLaMA's settings."""

    input: Path
    """A UTF-8 text file or a folder of them."""
    out: Path
    """The model file to write."""
    vocab_size: int = 32000
    """V, all pieces together."""


@dataclass(frozen=True)
class TokenizerEncode:
    """Show how a text is cut into pieces."""

    model: Path
    """A SentencePiece model file."""
    text: Annotated[str, tyro.conf.Positional]
    """The text."""
    json: bool = False
    """Print ids and pieces as JSON."""


@dataclass(frozen=True)
class TokenizerCommand:
    """Train a tokenizer or look at one."""

    action: (
        Annotated[TokenizerTrain, tyro.conf.subcommand("train")]
        | Annotated[TokenizerEncode, tyro.conf.subcommand("encode")])


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[TokenizerCommand, tyro.conf.subcommand("tokenizer")]


def run(command: TokenizerCommand) -> int:
    """Train and write a model, or print the pieces of a text."""
    from minillama.data import corpus
    from minillama.tokenizer import Tokenizer

    action = command.action
    if isinstance(action, TokenizerTrain):
        made = Tokenizer.train(
            corpus.read_texts(action.input), action.vocab_size, action.out)
        print(f"{made.vocab_size} pieces in {action.out}")
        return 0
    tokenizer = Tokenizer(action.model)
    ids = tokenizer.encode(action.text)
    pieces = [tokenizer.piece(i) for i in ids]
    if action.json:
        print(json.dumps({"ids": ids, "pieces": pieces}))
    else:
        print("\n".join(f"{i:>6}  {p}" for i, p in zip(ids, pieces)))
    return 0
