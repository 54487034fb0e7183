"""A process that has imported everything, and forks one run at a time.

Importing PyTorch takes seconds; a fork takes milliseconds. So tests that
start the command line many times talk to this program: one JSON line in with
the arguments, one line out with the process number of the run, and one more
with its exit code (negative: the signal that ended it).
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Serve until standard input closes."""
    # What a run imports only once it is running.
    import matplotlib.figure  # noqa: F401
    import torch._dynamo  # noqa: F401
    from matplotlib.backends import backend_agg  # noqa: F401

    import minillama.plots.training  # noqa: F401
    import minillama.train  # noqa: F401
    from minillama.cli import main as command_line

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _quiet()
            code = 70
            try:
                code = command_line(json.loads(line))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _quiet() -> None:
    """The run must not write into the conversation, nor read from it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)


if __name__ == "__main__":
    main()
