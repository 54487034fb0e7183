"""Living processes that a notebook drives.

`engines = Engines(4)` starts four Python processes with ipyparallel and joins
them with gloo; `engines(f, x)` runs f(x), a function written in a cell, on
each of them at once and returns their answers in order of rank.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from minillama.files import needs


def join(rank: int, size: int, port: int) -> None:
    """What torchrun and `company.join` do; runs in an engine."""
    import contextlib
    import os

    import torch

    from minillama import company

    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    stack = contextlib.ExitStack()
    stack.enter_context(company.join(60.0, "cpu"))
    # Closed when the engine ends, not before.
    company.join.held = stack


class Engines:
    """So many processes, joined as `company.join` joins them.

    Args:
        size: how many.

    Raises:
        ValueError: if ipyparallel is not installed.

    Chapter: notebooks/13_scaling.ipynb
    """

    def __init__(self, size: int) -> None:
        with needs("engines need ipyparallel; try `pip install ipyparallel`"):
            import ipyparallel
        # Its talk would go to stderr, which a finished page has none of.
        self.cluster = ipyparallel.Cluster(n=size, log_level=logging.ERROR)
        self.cluster.start_cluster_sync()
        self.client = self.cluster.connect_client_sync()
        self.client.wait_for_engines(size, timeout=120, interactive=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # By name: each engine has the package, so nothing is sent.
        waiting = [self.client[rank].execute(
            "from minillama import engines\n"
            f"engines.join({rank}, {size}, {port})", block=False)
            for rank in range(size)]
        for answer in waiting:
            answer.get(timeout=120)
        self("import torch, torch.distributed as dist")

    def __call__(self, what: Callable[..., Any] | str, *values: Any) -> Any:
        """Run a function on every engine; its answers, in order of rank.

        A text is run as a statement instead, so that what it imports is
        there for the functions to come.
        """
        everyone = self.client[:]
        if isinstance(what, str):
            return everyone.execute(what, block=True) and None
        return everyone.apply_sync(what, *values)

    def close(self) -> None:
        """End the processes."""
        self.client.close()
        self.cluster.stop_cluster_sync()
