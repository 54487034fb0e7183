"""Start a program; if it fails, say so in one line. Standard library only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """Something did not work; the message is one line for the reader."""


def call(*command: object, cwd: str | Path = ROOT, quiet: bool = False,
         **environment: str) -> None:
    """Run a program to its end.

    Args:
        *command: the program and its arguments.
        cwd: the folder it runs in.
        quiet: show its output only if it fails.
        **environment: variables set for it alone.

    Raises:
        Failed: if it cannot be started or ends with an exit code above 0.
    """
    words = [str(word) for word in command]
    name = " ".join([Path(words[0]).name, *words[1:]])
    try:
        done = subprocess.run(
            words, check=False, cwd=cwd,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None)
    except OSError as error:
        raise Failed(f"could not start `{name}`: {error}") from error
    if done.returncode:
        if quiet:
            print(done.stdout.decode("utf-8", "replace"))
        raise Failed(f"`{name}` ended with exit code {done.returncode}")
