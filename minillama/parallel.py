"""Many processes train one model, wrapped from outside (section 2.4).

The model knows nothing of this. PyTorch's engine is put around it in one
fixed order, each layer of wrapping blind to those outside it:

    1. tensor and sequence parallelism   who holds which part of a matrix
    2. recompute                         what the backward pass does again
    3. compile                           layer by layer
    4. data parallelism                  FSDP2, or plain copies (DDP)

Processes are numbered as `layout.Layout` says: neighbours share matrices
(they talk most), then come those that share one copy, then the copies.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed._composable.replicate import replicate
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, PrepareModuleOutput,
    RowwiseParallel, SequenceParallel, parallelize_module)

from minillama import checkpoint, recompute, runs, sharded
from minillama.config import TrainConfig
from minillama.devices import choose_dtype
from minillama.fields import refuse
from minillama.layout import Layout
from minillama.model import Transformer

AXES = ("copies", "shards", "tensor")
"""The axes of the mesh, slowest first: the last are neighbours."""


def layout_of(config: TrainConfig, world_size: int) -> Layout:
    """The layout of a run, `dp_shard` settled by what the others leave.

    Raises:
        ValueError: naming each size that does not divide, and what would.

    Chapter: notebooks/13_scaling.ipynb
    """
    fixed = config.dp_replicate * config.tensor_parallel
    shards = config.dp_shard or max(1, world_size // fixed)
    layout = Layout(
        config.dp_replicate, shards, config.tensor_parallel,
        config.sequence_parallel, config.micro_batch_size or max(
            1, config.batch_size // (config.dp_replicate * shards)),
        config.recompute)
    problems = layout.misfits(config.model, config.model.max_seq_len)
    if layout.world_size != world_size:
        problems.append(
            f"dp_replicate * dp_shard * tensor_parallel = "
            f"{config.dp_replicate} * {shards} * {config.tensor_parallel} = "
            f"{layout.world_size}, but there are {world_size} processes; try "
            f"torchrun --nproc-per-node {layout.world_size}")
    if config.batch_size % layout.data_parallel:
        fits = -(-config.batch_size // layout.data_parallel)
        problems.append(
            f"batch_size={config.batch_size} does not divide among "
            f"{layout.data_parallel} data-parallel processes; try "
            f"{fits * layout.data_parallel}")
    refuse("layout", problems)
    return layout


def mesh_of(layout: Layout, device: str) -> DeviceMesh:
    """The processes as a box with the axes `AXES`."""
    return init_device_mesh(
        device, (layout.dp_replicate, layout.dp_shard, layout.tensor_parallel),
        mesh_dim_names=AXES)


# --- wrapping --------------------------------------------------------------

def split_matrices(
    model: Transformer, mesh: DeviceMesh, *, sequence_parallel: bool = True
) -> Transformer:
    """Tensor and sequence parallelism (Korthikanti et al. 2022).

    Columns of wq, wk, wv, w_gate and w_up, then rows of wo and w_down: one
    all-gather before and one reduce-scatter behind each pair, and nothing in
    between. The stream between is dealt out by positions, norms with it; the
    embedding by columns, as in LLaMA's release; the output by the vocabulary.

    In training the logits stay dealt out, for `loss_parallel`; else they are
    gathered, so that generation sees them whole.

    Args:
        model: on the device of the mesh, or the meta device.
        mesh: its one axis is `tensor`.
        sequence_parallel: False keeps the stream whole on every process.

    Returns:
        The model itself.

    Chapter: notebooks/13_scaling.ipynb
    """
    stream = Shard(1) if sequence_parallel else Replicate()
    norm = {"norm": SequenceParallel()} if sequence_parallel else {}
    norms = {f"{name}_norm": style for name in ("attention", "ffn")
             for style in norm.values()}
    rest = (None, None, None)  # tables, start_pos, cache
    gather, gather_first = (PrepareModuleInput(
        input_layouts=(stream, *others),
        desired_input_layouts=(Replicate(), *others))
        for others in ((), rest))
    # A stream of DTensors knows its length, also where some have one more.
    local = not sequence_parallel
    out_of = RowwiseParallel(output_layouts=stream, use_local_output=local)
    tied = model.config.tie_embeddings
    for layer in model.layers:
        layer.attention.kv_heads //= mesh.size()
        parallelize_module(layer, mesh, {
            **norms, "attention": gather_first,
            "attention.wq": ColwiseParallel(),
            "attention.wk": ColwiseParallel(),
            "attention.wv": ColwiseParallel(), "attention.wo": out_of,
            "feed_forward": gather,
            "feed_forward.w_gate": ColwiseParallel(),
            "feed_forward.w_up": ColwiseParallel(),
            "feed_forward.w_down": out_of})
    # By columns: of rows DTensor makes the gradient whole everywhere.
    for style in ([RowwiseParallel(
            input_layouts=Replicate(), output_layouts=stream,
            use_local_output=local)] if tied else [
        ColwiseParallel(output_layouts=Replicate(), use_local_output=False),
        PrepareModuleOutput(
            output_layouts=Replicate(), desired_output_layouts=stream,
            use_local_output=local)]):
        parallelize_module(model.tok_embeddings, mesh, style)
    parallelize_module(model, mesh, {
        **norm,
        "output": ColwiseParallel(
            input_layouts=stream, use_local_output=False)})
    if tied:
        model.output.weight = model.tok_embeddings.weight
    model.register_forward_hook(
        lambda model, _, logits:
        logits if model.training else logits.full_tensor())
    return model


def overlap_products(mesh: DeviceMesh) -> bool:
    """Let pieces of a product travel while the next piece is multiplied.

    Asynchronous tensor parallelism: in compiled layers PyTorch cuts a product
    together with the all-gather before it, or the reduce-scatter behind it.
    The pieces go through memory that GPUs of one machine open to each other;
    where they cannot, nothing changes.

    Args:
        mesh: its one axis is `tensor`.

    Returns:
        Whether it was switched on.

    Chapter: notebooks/13_scaling.ipynb
    """
    if mesh.device_type != "cuda":
        return False
    me, size = torch.cuda.current_device(), mesh.size()
    group = range(me - me % size, me - me % size + size)
    if group.stop > torch.cuda.device_count() or not all(
            torch.cuda.can_device_access_peer(me, other)
            for other in group if other != me):
        return False
    from torch._inductor import config
    from torch.distributed import _symmetric_memory as symmetric
    config._micro_pipeline_tp = True
    symmetric.enable_symm_mem_for_group(mesh.get_group().group_name)
    return True


def split_for_writing(model: Transformer) -> Transformer:
    """A loaded model, its matrices dealt out over all processes.

    Raises:
        ValueError: if heads, columns or vocabulary do not divide.

    Chapter: notebooks/13_scaling.ipynb
    """
    layout = Layout(tensor_parallel=dist.get_world_size())
    # Any number of positions can be dealt out, with some left over.
    refuse("layout", layout.misfits(model.config, 0))
    where = next(model.parameters()).device.type
    return split_matrices(model, mesh_of(layout, where)["tensor"])


def share_data(
    model: Transformer, mesh: DeviceMesh, dtype: torch.dtype
) -> Transformer:
    """Data parallelism: plain copies, shards, or copies of shards.

    Copies alone average their gradients while the backward pass runs (DDP).
    Shards hold a part of every weight, gradient and moment; a layer's weights
    are gathered just before it runs and dropped behind it (FSDP2), the next
    layer's on their way meanwhile.

    Args:
        model: tensor-parallel already, or not.
        mesh: of `mesh_of`.
        dtype: in which gathered weights travel; they are kept in fp32.

    Returns:
        The model itself.

    Chapter: notebooks/13_scaling.ipynb
    """
    copies, shards, tensor = mesh.shape
    if copies * shards == 1:
        return model
    if shards * tensor == 1:
        return replicate(model, device_mesh=mesh["copies"])
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=None if dtype == torch.float32 else torch.float32,
        cast_forward_inputs=False)
    where = mesh["copies", "shards"] if copies > 1 else mesh["shards"]
    layers = list(model.layers)
    for module in [*layers, model]:
        fully_shard(module, mesh=where, mp_policy=policy,
                    reshard_after_forward=True)
    for this, following in zip(layers, layers[1:]):
        this.set_modules_to_forward_prefetch([following])
        following.set_modules_to_backward_prefetch([this])
    return model


def apply(
    model: Transformer,
    mesh: DeviceMesh,
    layout: Layout,
    *,
    dtype: torch.dtype = torch.float32,
    compile: bool = False,
    async_tensor_parallel: bool = True,
) -> Transformer:
    """All the wrapping of a layout, in the one fixed order.

    Raises:
        ValueError: for a recompute mode that knows no other processes.

    Chapter: notebooks/13_scaling.ipynb
    """
    if layout.tensor_parallel > 1:
        split_matrices(model, mesh["tensor"],
                       sequence_parallel=layout.sequence_parallel)
    if layout.recompute == "by_hand":
        raise ValueError(
            "recompute='by_hand' writes the backward pass of whole matrices "
            "out; many processes need PyTorch's: try 'selective'")
    recompute.apply(model, layout.recompute)
    if compile:
        if (async_tensor_parallel and layout.sequence_parallel
                and layout.tensor_parallel > 1):
            overlap_products(mesh["tensor"])
        for layer in model.layers:
            layer.compile()
    return share_data(model, mesh, dtype)


# --- training --------------------------------------------------------------

def begin(
    config: TrainConfig,
    loss_fn: Callable[..., Tensor],
    model: Transformer | None = None,
) -> runs.State:
    """A run at step 0 on all processes; see `train.new_state`.

    Every process draws the weights that one process would draw, so that a
    layout changes nothing but the order of sums.

    Raises:
        ValueError: if the layout does not fit (`layout_of`).

    Chapter: notebooks/13_scaling.ipynb
    """
    layout = layout_of(config, dist.get_world_size())
    device = "cuda" if torch.cuda.is_available() and (
        config.device != "cpu") else "cpu"
    config = replace(config, device=device)
    mesh = mesh_of(layout, device)
    dtype = choose_dtype(config.dtype, torch.device(device))
    state = runs.begin(
        config, whole_loss(loss_fn), model,
        wrap=lambda model: apply(
            model, mesh, layout, dtype=dtype, compile=config.compile,
            async_tensor_parallel=config.async_tensor_parallel),
        rank=dist.get_rank() // layout.tensor_parallel,
        shares=layout.data_parallel)
    state.lead = dist.get_rank() == 0
    state.shares, state.devices = layout.data_parallel, layout.world_size
    state.mean, state.clip, state.save = mean, clip_grad_norm, save
    return state


def whole_loss(loss_fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss as a plain number, of whatever kind its logits were."""

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        value = loss_fn(model, inputs, targets)
        return value.to_local() if isinstance(value, DTensor) else value

    return loss


def mean(value: float | int | Tensor) -> float:
    """A number's mean over all processes, in float64.

    Of those that share matrices all have the same, which changes no mean.
    """
    total = torch.tensor(float(value), dtype=torch.float64)
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


@torch.no_grad()
def clip_grad_norm(
    parameters: Iterable[Tensor], max_norm: float
) -> Float[Tensor, ""]:
    """`optim.clip_grad_norm` over all processes, with one all-reduce.

    Each adds up the squares it holds; what k processes hold alike counts a
    k-th in each of them.
    """
    weights = [w for w in parameters if w.grad is not None]
    world, total = dist.get_world_size(), 0.0
    for weight in weights:
        if isinstance(weight.grad, DTensor):
            # A norm's gradient is a sum over positions, still to be added up.
            weight.grad = weight.grad.redistribute(
                placements=weight.placements)
    grads = [w.grad for w in weights]
    for grad in grads:
        parts = 1
        if isinstance(grad, DTensor):
            # A shard of a shard has another type than a shard.
            parts = math.prod(size for size, place in zip(
                grad.device_mesh.shape, grad.placements)
                if not place.is_replicate())
            grad = grad.to_local()
        total = total + grad.norm().square() * parts / world
    dist.all_reduce(total)
    norm = total.sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        (grad.to_local() if isinstance(grad, DTensor) else grad).mul_(scale)
    return norm


def save(state: runs.State, out: Path, keep_last: int) -> None:
    """One checkpoint, to which every process adds the parts it holds."""
    parts = sharded.tensors(state.model, state.optimizer)

    def write(folder: Path) -> None:
        dist.barrier()  # the folder is there
        sharded.write(folder, parts)

    if state.lead:
        checkpoint.save(out, state.step, state.model, runs.position(state),
                        keep_last=keep_last, write=write)
    else:
        write(checkpoint.writing(out, state.step))
    dist.barrier()  # it is whole


def restarted(config: TrainConfig) -> TrainConfig:
    """A run that torchrun starts again goes on from its last checkpoint."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if again and checkpoint.checkpoints(config.out):
        return replace(config, resume=True)
    return config
