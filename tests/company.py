"""Processes that tests start: gloo on this machine, shapes checked in each.

Not collected by pytest. `start(world, job, *arguments)` runs `job(rank,
*arguments)` in so many processes and returns what the first one returned.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

if "pytest" not in sys.modules:  # there, conftest.py has done it
    install_import_hook("minillama", "beartype.beartype")

import torch  # noqa: E402


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def join(rank: int, world: int, port: int) -> None:
    """Say in the environment what torchrun would say."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def start(world: int, job: Callable[..., Any], *arguments: Any) -> Any:
    """Run a job in `world` new processes; what rank 0 returns, as JSON."""
    how = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        # PyTorch and the job's module are imported once, not in each.
        how = "forkserver"
        multiprocessing.set_forkserver_preload([job.__module__])
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        torch.multiprocessing.start_processes(
            _work, (world, free_port(), answer, job, arguments),
            nprocs=world, start_method=how)
        return json.loads(answer.read_text(encoding="utf-8"))


def _work(rank: int, world: int, port: int, answer: Path,
          job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The body of one process."""
    torch.set_num_threads(1)
    join(rank, world, port)
    result = job(rank, *arguments)
    if rank == 0:
        answer.write_text(json.dumps(result), encoding="utf-8")
