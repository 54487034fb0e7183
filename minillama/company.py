"""The processes of one run: how they meet, part and give up (section 2.4).

torchrun starts them and tells each its number. Here they join at its store,
under the number of the start, so that what a killed process left behind
deceives nobody; and whatever breaks between them ends in one line.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch.distributed.tensor.parallel import loss_parallel


class BrokenCompany(ConnectionError):
    """The processes could not be brought or held together; says why."""


@contextlib.contextmanager
def join(timeout: float, device: str = "auto") -> Iterator[torch.device]:
    """Join the processes that torchrun started, and leave them at the end.

    Inside, cross-entropy takes logits of which each process holds the columns
    of its own part of the vocabulary.

    Args:
        timeout: seconds to wait for a process that does not answer.
        device: `cuda`, `cpu` or `auto`; NCCL carries the one, gloo the other.

    Yields:
        The device of this process.

    Raises:
        BrokenCompany: in one line, if a process is missing or dies, or the
            port is taken.

    Chapter: notebooks/13_scaling.ipynb
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    try:
        _meet("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
              datetime.timedelta(seconds=timeout))
        with loss_parallel():
            yield torch.device(device)
    except RuntimeError as error:
        if cause := _cause(error, timeout):
            raise BrokenCompany(cause) from error
        raise
    dist.destroy_process_group()


def _meet(backend: str, patience: datetime.timedelta) -> None:
    """Join the others at torchrun's store, under the number of this start.

    torchrun keeps one store over all restarts. Without a number of its own a
    new start may find where a process of the last one, now dead, listened.
    """
    store, rank, world = next(dist.rendezvous("env://", timeout=patience))
    start = _number_of_start(store, rank, world)
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(start - 1)
    dist.init_process_group(
        backend, store=dist.PrefixStore(f"start-{start}", store), rank=rank,
        world_size=world, timeout=patience)


def _number_of_start(store: dist.Store, rank: int, world: int) -> int:
    """1, 2, ...: what those alive agree on, whatever the dead have left.

    torchrun counts too, but on each machine its own restarts only. So the
    first process counts, and answers whoever calls until it knows that all
    others heard it; a call of a dead process is answered in vain.
    """
    def call() -> str:
        number = store.add("calls", 1)
        store.set(f"call/{number}", "")
        return f"answer/{number}"

    if rank:
        start = int(store.get(call()))
        store.add(f"heard/{start}", 1)
        call()  # the first may be waiting for another one
        return start
    start, number = store.add("starts", 1), 0
    while store.add(f"heard/{start}", 0) < world - 1:
        number += 1
        store.get(f"call/{number}")
        store.set(f"answer/{number}", str(start))
    return start


def _cause(error: RuntimeError, timeout: float) -> str | None:
    """What a failure of the network means, or None if it is none."""
    text, rank = str(error), os.environ.get("RANK", "?")
    world = os.environ.get("WORLD_SIZE", "?")
    where = ":".join(os.environ.get(name, "?")
                     for name in ("MASTER_ADDR", "MASTER_PORT"))
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return (f"process {rank}: {where} is taken by another program; give "
                "torchrun another --master-port, or --standalone")
    if isinstance(error, dist.DistStoreError | dist.DistNetworkError):
        return (f"process {rank}: not all of {world} processes met at {where} "
                f"within {timeout:g} s; start the missing ones, or raise "
                "--timeout")
    if "imed out" in text or "imeout" in text:
        return (f"process {rank}: another process did not answer for "
                f"{timeout:g} s; it hangs, or is slower than --timeout")
    if isinstance(error, dist.DistError) or any(
            word in text for word in ("gloo", "NCCL", "onnection")):
        return (f"process {rank}: the connection to another process broke; it "
                "died, and its own last line says why. --resume goes on from "
                "the last checkpoint, as torchrun --max-restarts does")
    return None


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Only the first process prints."""
    with contextlib.ExitStack() as stack:
        if dist.get_rank():
            sink = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(sink))
        yield


@contextlib.contextmanager
def one_first() -> Iterator[None]:
    """The body in the first process, which leaves files, then in the others.

    They wait for an hour at most; if the first ends early, torchrun ends all.
    """
    store, key = dist.distributed_c10d._get_default_store(), "first/done"
    if dist.get_rank():
        store.wait([key], datetime.timedelta(hours=1))
    yield
    if not dist.get_rank():
        store.set(key, "1")
