"""Train the toy LLaMA on this machine, through the command line, once.

The run lies in runs/, which git ignores, in a folder named after the code
that trained it: a change in that code trains again, a second `book` does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tools import environment
from tools.shell import ROOT, call

# What decides the weights; pictures, checks and prose do not.
TRAINS = ("config", "tokenizer", "norm", "swiglu", "rope", "attention",
          "model", "optim", "batches", "train", "data/corpus", "data/fetch")


def folder() -> Path:
    """Where the run of this code lies, or will lie."""
    text = b"".join(
        (ROOT / "minillama" / f"{name}.py").read_bytes()
        for name in TRAINS).replace(b"\r\n", b"\n")
    return ROOT / "runs" / f"toy-{hashlib.sha256(text).hexdigest()[:8]}"


def done() -> Path:
    """The mark of a finished run."""
    return folder() / "finished"


def steps(step: Callable[..., object]) -> list:
    """What a plan says about training: one line, or none."""
    if done().is_file():
        return []
    return [step("train the toy LLaMA on Shakespeare's plays",
                 "3 minutes on two processor cores; downloads 2 MB of text",
                 train)]


def train() -> None:
    """Train, or go on with a run that was stopped; draw a sample."""
    resume = ["--resume"] if folder().is_dir() else []
    call(environment.tool("minillama"), "train", "--preset", "toy", "--out",
         folder(), *resume)
    print("\nA sample of what it writes:\n", flush=True)
    call(environment.tool("minillama"), "generate", "--checkpoint", folder(),
         "--prompt", "KING HENRY")
    done().write_text("This run is complete.\n", encoding="utf-8")


def generate_command() -> str:
    """The command that lets the reader's model write."""
    program = environment.tool("minillama")
    if program.is_relative_to(ROOT):
        program = program.relative_to(ROOT)
    return (f"{program} generate --checkpoint "
            f"{folder().relative_to(ROOT)} --prompt \"KING HENRY\"")
