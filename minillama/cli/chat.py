"""`minillama chat`: talk to a model in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from minillama.cli import open_model

HELP = ("Enter sends, Ctrl-C stops an answer, Ctrl-D ends. /new forgets the "
        "conversation.")


@dataclass(frozen=True)
class ChatConfig:
    """Whom to talk to, and how it draws its words."""

    checkpoint: Path | None = None
    """What `train --out` wrote or an exported folder; None: the mini model."""
    system: str = ""
    """What an instruct model is told before anything else."""
    max_new_tokens: int = 200
    """Longest answer in tokens."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token every time."""
    top_p: float = 0.95
    """Keep the likeliest tokens until their probabilities reach this."""
    seed: int = 1
    """Seed of the draws."""
    device: str = "auto"
    """`cuda`, `mps`, `cpu`, or `auto` for the first of these present."""


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[ChatConfig, tyro.conf.subcommand(
        "chat", description="Talk to a model.")]


def run(config: ChatConfig) -> int:
    """Ask, answer, until the end of the input."""
    from minillama import samples, weights
    from minillama.chat import Conversation
    from minillama.devices import choose_device

    device = choose_device(config.device)
    model, tokenizer = open_model(config.checkpoint, device=device)
    if device.type != "cuda":
        model.float()  # 16 bits are slower there
    template = weights.chat_template(
        config.checkpoint or samples.MINI, tokenizer)

    def begin() -> Conversation:
        return Conversation(
            model, tokenizer, template, system=config.system,
            max_new_tokens=config.max_new_tokens, seed=config.seed,
            temperature=config.temperature, top_p=config.top_p)

    talk = begin()
    print("An instruct model." if template else
          "A base model: it continues your text, it does not answer.", HELP)
    while True:
        try:
            question = input("> ")
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print("\n(Ctrl-D ends)")
            continue
        if question == "/new":
            talk = begin()
        elif question:
            _answer(talk, question)


def _answer(talk: Any, question: str) -> None:
    """Print one answer as it comes; Ctrl-C ends it, not the session."""
    try:
        for piece in talk.stream(question):
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print(" [stopped]")
    except ValueError as error:
        print(f"minillama: {error}")
