"""The `minillama` command: one sub-command per verb, one module per verb.

Flags are the fields of dataclasses. Bad input ends in one line on stderr and
exit code 2. PyTorch is imported only by the verbs that need it, inside their
functions, so that `--help` answers at once.

A module of this folder has `command(argv)`, the verb as tyro reads it, and
`run(command)`, which carries it out and returns the exit code.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import operator
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

VERBS = ("train", "generate", "tokenizer", "data", "plan", "eval",
         "finetune", "chat", "convert", "verify")
"""In the order of the help."""
FULL = re.compile(r"out of memory|can't allocate memory|failed writing|"
                  r"unexpected pos \d")
"""What PyTorch's RuntimeError says of a full memory or disk."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 if a training run broke off on a loss that is not finite; 2 for
        bad input.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        command = parse(argv)
        # Its dataclass may live elsewhere, the verb is the first word.
        verb = importlib.import_module(f"{__name__}.{argv[0]}")
        return verb.run(command)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return complain("stopped") + 128  # as shells count signals: 130
    # Not imported for this: unless it is there, nothing has raised its error.
    except (ValueError, OSError, RuntimeError, getattr(
            sys.modules.get("safetensors"), "SafetensorError", OSError)) as e:
        if type(e) is RuntimeError and not FULL.search(str(e)):
            raise  # a mistake of ours
        return complain(str(e))


def parse(argv: Sequence[str]) -> Any:
    """The command's dataclass, filled from flags.

    Raises:
        ValueError: in one line, for flags that do not fit.
        SystemExit: with code 0, after `--help`.
    """
    commands = (importlib.import_module(f"{__name__}.{verb}").command(argv)
                for verb in VERBS)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                functools.reduce(operator.or_, commands), prog="minillama",
                args=list(argv), description="LLaMA rebuilt end to end.",
                config=(tyro.conf.OmitArgPrefixes,
                        tyro.conf.OmitSubcommandPrefixes,
                        tyro.conf.AvoidSubcommands))
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_one_line(errors.getvalue())) from None
        raise


def _one_line(box: str) -> str:
    """tyro's boxed complaint without the box."""
    inside = [line.strip("│ ") for line in box.splitlines()
              if line.startswith("│") and "───" not in line]
    words = " ".join(" ".join(inside).split("For full helptext")[0].split())
    # A dataclass's own message needs no preface.
    words = re.sub(r"^Error parsing \S+: (?=\w+Config: )", "", words)
    return words.split(" Argument helptext:")[0] + " (see --help)"


def complain(message: str) -> int:
    """One line on stderr, and the exit code of bad input.

    torchrun, if it started this process, says it once more at its own end.
    """
    line = "minillama: " + " ".join(message.split())
    print(line, file=sys.stderr)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        when = {"timestamp": int(time.time())}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps(
                {"message": {"message": line, "extraInfo": when}}), "utf-8")
    return 2


def open_model(checkpoint: Path | None, **how: Any) -> tuple[Any, Any]:
    """The model and tokenizer that a verb was given.

    Args:
        checkpoint: any folder that `weights.load` reads; None: the model in
            the package.
        **how: for `weights.load`, such as `device`.

    Raises:
        ValueError: if there is no tokenizer, or no model.
    """
    from minillama import samples, weights

    folder = checkpoint or samples.MINI
    model, tokenizer = weights.load(folder, **how)
    if tokenizer is None:
        raise ValueError(f"checkpoint={folder} has no tokenizer; put its "
                         "tokenizer.model or tokenizer.json there")
    return model, tokenizer
