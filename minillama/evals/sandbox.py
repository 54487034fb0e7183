"""Run a program that a model wrote, and come to no harm.

The program runs in a process of its own behind the kernel's walls
(`walls.py`), with a wall-clock limit and a limit on what it may print. Where
the machine has no such walls, nothing is run.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import functools
import secrets
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

WALLS = Path(__file__).with_name("walls.py")


@dataclass(frozen=True)
class Outcome:
    """What became of a program."""

    passed: bool
    """Whether it ran to its end without an error."""
    reason: str
    """`passed`, `timeout`, `output`, or the last line of its complaint."""


def run(
    program: str,
    *,
    seconds: float = 3.0,
    memory: int = 2**30,
    output: int = 2**16,
) -> Outcome:
    """Run a program behind walls, in an empty folder that is then deleted.

    Args:
        program: Python source; an exception, or an end before its last line,
            is a failure.
        seconds: of wall-clock time; as many of processor time, and one more.
        memory: bytes of address space.
        output: bytes that it may print before it is ended.

    Raises:
        ValueError: if this machine has no walls (see `offered`).

    Chapter: notebooks/14_evaluation.ipynb
    """
    word = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        child = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", str(WALLS), folder,
             str(int(seconds) + 1), str(memory), word],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=folder, start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder})
        assert child.stdin and child.stdout and child.stderr
        watch = threading.Timer(seconds, child.kill)
        with child:
            watch.start()
            said: dict[IO[bytes], bytes] = {}
            readers = [threading.Thread(
                target=_read, args=(child, pipe, output, said))
                for pipe in (child.stdout, child.stderr)]
            for reader in readers:
                reader.start()
            try:
                child.stdin.write(program.encode("utf-8", "surrogatepass"))
                child.stdin.close()
            except BrokenPipeError:
                pass  # it ended before it had read itself
            for reader in readers:
                reader.join()
            child.wait()
        # Python's rmtree calls itself, and gives up on deep folders.
        subprocess.run(["rm", "-rf", folder], check=False)
        late = not watch.is_alive()
        watch.cancel()
    complaint = said[child.stderr].decode("utf-8", "replace")
    if child.returncode == 3 and complaint.startswith("no walls: "):
        raise ValueError(
            f"model-written programs are not run here: {complaint.strip()}; "
            "use Linux 5.13 or later with Landlock and seccomp")
    if child.returncode == 0 and complaint.endswith(word):
        return Outcome(True, "passed")
    if len(complaint) > output or len(said[child.stdout]) > output:
        return Outcome(False, "output")
    if late or child.returncode == -24:  # SIGXCPU
        return Outcome(False, "timeout")
    last = complaint.strip().split("\n")[-1]
    return Outcome(False, last[:200] or f"ended with {child.returncode}")


def _read(
    child: subprocess.Popen, pipe: IO[bytes], most: int,
    said: dict[IO[bytes], bytes],
) -> None:
    """Keep what a pipe says; end the child when it says too much."""
    said[pipe] = b""
    while piece := pipe.read1(2**13):  # type: ignore[attr-defined]
        if len(said[pipe]) <= most:
            said[pipe] += piece
        else:
            child.kill()


@functools.cache
def offered() -> str | None:
    """The walls of this machine in words, or None if there are none.

    Found out by putting them up in a child that does nothing.

    Chapter: notebooks/14_evaluation.ipynb
    """
    try:
        if not run("pass", seconds=20.0).passed:
            return None
    except (ValueError, OSError):
        return None
    return "Landlock (no writing outside), seccomp (no processes, no network)"
