"""One step of a training run on GPUs that nobody has to own.

The real model, the real plan of `minillama/parallel.py`, a process group of
any size that sends nothing, and tensors that have a shape and no numbers
(PyTorch's FakeTensorMode). What is reported was recorded while that model
ran forward and backward; no formula is asked.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import contextlib
import weakref
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import loss_parallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from minillama import parallel, sharded
from minillama.config import ModelConfig
from minillama.devices import precision
from minillama.fields import refuse
from minillama.layout import Layout
from minillama.model import Transformer
from minillama.optim import decay_groups
from minillama.train import next_token_loss

# What an operation of PyTorch does on the wire; which argument is the whole.
_WIRE = {
    "all_gather_into_tensor": ("all-gather", None),
    "reduce_scatter_tensor": ("reduce-scatter", 0),
    "all_reduce": ("all-reduce", 0),
    "all_to_all_single": ("all-to-all", 0),
    "_allgather_base_": ("all-gather", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "allreduce_": ("all-reduce", 0),
}


@dataclass(frozen=True)
class Traffic:
    """One kind of message along one axis of the mesh, in one step."""

    kind: str
    """all-gather, reduce-scatter, all-reduce or all-to-all."""
    axis: str
    """Between which GPUs: `copies`, `shards` or `tensor`."""
    gpus: int
    """How many take part."""
    calls: int
    """How often."""
    bytes: int
    """Of the whole tensors, gathered or not yet scattered, in all calls."""

    @property
    def received(self) -> float:
        """Bytes that one GPU receives if messages go round in a ring."""
        rounds = 2 if self.kind == "all-reduce" else 1
        return self.bytes * rounds * (self.gpus - 1) / self.gpus


@dataclass(frozen=True)
class DryRun:
    """What one GPU held and sent in one step."""

    gpus: int
    """GPUs in all."""
    parameters: int
    """Of the whole model."""
    shard: int
    """Of them on this GPU."""
    resting_bytes: int
    """Weights and optimiser state, between steps."""
    peak_bytes: int
    """The most that was alive at once."""
    traffic: list[Traffic]
    """Messages of one pass, by kind and axis."""


class Paper(FakeTensorMode):
    """Tensors with a shape and no numbers.

    DTensor enters it again wherever it tries an operation on whole tensors,
    to learn the shape of a result. No step of ours does that.
    """

    depth = 0

    def __enter__(self) -> FakeTensorMode:
        self.depth += 1
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.depth -= 1
        super().__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """As above, without asking each time whether we are compiled."""
        return self.dispatch(func, types, args, kwargs or {})

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Ledger(TorchDispatchMode):
    """Counts bytes alive and bytes sent, operation by operation.

    Real tensors and real messages are counted as well as those on paper.

    Args:
        mesh: of `parallel.mesh_of`; tells along which axis a message goes.
        paper: the mode around, if tensors are on paper.

    Chapter: notebooks/13_scaling.ipynb
    """

    _should_skip_dynamo = Paper._should_skip_dynamo

    def __init__(self, mesh: DeviceMesh, paper: Paper | None = None) -> None:
        super().__init__()
        self.paper = paper
        self.now = self.peak = 0
        # By members: an equal mesh made earlier has groups of other names.
        self.axes = {_members(mesh.get_group(axis).group_name): axis
                     for axis in parallel.AXES}
        self.sizes = dict(zip(parallel.AXES, mesh.shape)) | {
            "all": mesh.size()}
        self.sent: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
        self.held: dict[int, int] = {}

    def __enter__(self) -> Ledger:
        self.plain_resize = torch.UntypedStorage.resize_
        ledger = self

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            """FSDP empties and refills what it gathered, behind our back."""
            result = ledger.plain_resize(storage, size)
            ledger.hold(storage)
            return result

        torch.UntypedStorage.resize_ = resize
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.UntypedStorage.resize_ = self.plain_resize

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Let an operation run, then look at what it left."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its local tensors come by later
        if self.paper and func is torch.ops.prim.device.default:
            return args[0].fake_device  # half of all that is asked
        if "c10d" in func.namespace:
            self.write(func, args)
        if self.paper and func.overloadpacket.__name__ == "wait_tensor":
            return args[0]  # in place, which only real messages know
        result = func(*args, **(kwargs or {}))
        if self.paper and self.paper.depth > 1:
            return result
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor):
                self.hold(tensor.untyped_storage())
        return result

    def hold(self, storage: torch.UntypedStorage) -> None:
        """Count a storage from now until it dies."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self.held:
            weakref.finalize(storage, self.drop, key)
        self.now += size - self.held.get(key, 0)
        self.held[key] = size
        self.peak = max(self.peak, self.now)

    def drop(self, key: int) -> None:
        """A storage is gone."""
        self.now -= self.held.pop(key)

    def traffic(self) -> list[Traffic]:
        """All messages so far, by kind and axis."""
        return [Traffic(kind, axis, self.sizes[axis], *entry)
                for (kind, axis), entry in sorted(self.sent.items())
                if self.sizes[axis] > 1]

    def write(self, func: Any, args: Any) -> None:
        """Enter one message."""
        name = func.overloadpacket.__name__
        if name not in _WIRE:
            return
        kind, whole = _WIRE[name]
        group = args[-1]  # its name; older operations take the group itself
        if not isinstance(group, str):
            boxed = next(a for a in args if isinstance(a, torch.ScriptObject))
            group = dist.ProcessGroup.unbox(boxed).group_name
        tensors = tree_flatten(args[whole or 0])[0]
        size = sum(t.numel() * t.itemsize for t in tensors)
        entry = self.sent[kind, self.axes.get(_members(group), "all")]
        entry[0] += 1
        entry[1] += size * (args[1] if whole is None else 1)


def _members(group: str) -> tuple[int, ...]:
    """The ranks of a process group, by its name."""
    found = dist.distributed_c10d._resolve_process_group(group)
    return tuple(dist.get_process_group_ranks(found))


@contextlib.contextmanager
def pretended(world_size: int) -> Iterator[None]:
    """A process group of which we are rank 0, and the others are air."""
    # Importing it makes the backend known.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise ValueError("a dry run pretends to be many processes, and these "
                         "are many already; start it without torchrun")
    dist.init_process_group(
        "fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def dry_run(
    config: ModelConfig,
    layout: Layout,
    *,
    seq_len: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    accumulate: bool = False,
) -> DryRun:
    """One forward and backward pass of rank 0, on tensors without numbers.

    Args:
        config: the shape.
        layout: any that divides the model, of any number of GPUs.
        seq_len: T; None: max_seq_len.
        dtype: of the matrix products.
        accumulate: another pass has been before, and its gradients stay.

    Raises:
        ValueError: if the layout does not divide the model, or is copies
            alone.

    Chapter: notebooks/13_scaling.ipynb
    """
    length = seq_len or config.max_seq_len
    problems = layout.misfits(config, length)
    if layout.dp_replicate > 1 == layout.dp_shard * layout.tensor_parallel:
        problems.append(
            f"dp_replicate={layout.dp_replicate} alone is DDP, whose compiled "
            "buckets want real numbers; try dp_shard=2 or tensor_parallel=2")
    refuse("layout", problems)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pretended(layout.world_size))
        mesh = parallel.mesh_of(layout, "cpu")
        with torch.device("meta"):
            model = Transformer(config)
        total = sum(p.numel() for p in model.parameters())
        parallel.apply(model, mesh, layout, dtype=dtype)
        paper = stack.enter_context(Paper(allow_non_fake_inputs=True))
        ledger = stack.enter_context(Ledger(mesh, paper))
        model.to_empty(device="cpu")
        optimizer = torch.optim.AdamW(decay_groups(model, 0.1))
        sharded.tensors(model, optimizer)  # makes its moments
        resting = ledger.now
        if accumulate:
            step(model, layout.micro_batch_size, length, dtype)
        ledger.peak = ledger.now
        ledger.sent.clear()
        step(model, layout.micro_batch_size, length, dtype)
    return DryRun(
        layout.world_size, total, sum(
            (p.to_local() if isinstance(p, DTensor) else p).numel()
            for p in model.parameters()),
        resting, ledger.peak, ledger.traffic())


def step(model: Transformer, batch: int, length: int,
         dtype: torch.dtype = torch.float32) -> None:
    """What `train_step` does up to the clipped gradient, on some tokens.

    Args:
        model: wrapped by `parallel.apply`.
        batch: B, sequences.
        length: T.
        dtype: of the matrix products.
    """
    tokens = torch.zeros(batch, length + 1, dtype=torch.int64)
    loss_fn = parallel.whole_loss(next_token_loss)
    with loss_parallel():
        with precision(torch.device("cpu"), dtype):
            loss = loss_fn(model, tokens[:, :-1], tokens[:, 1:]) / length
        loss.backward()
    parallel.clip_grad_norm(model.parameters(), 1.0)
