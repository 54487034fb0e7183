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

# Rooms that do not touch the weights; all others may.
IDLE = {"ablations", "checks", "cli", "generate", "plots", "samples", "show",
        "tiled"}


def folder() -> Path:
    """Where the run of this code lies, or will lie."""
    package = ROOT / "minillama"
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if place.with_suffix("").parts[0] not in IDLE:
            found.update(place.as_posix().encode())
            # Line ends differ between systems, and mean nothing here.
            found.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return ROOT / "runs" / f"toy-{found.hexdigest()[:8]}"


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
    begun = any((folder() / "checkpoints").glob("step-*"))
    resume = ["--resume"] if begun else []
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
