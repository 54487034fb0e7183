"""What the processes of tests/test_parallel.py do; see tests/company.py."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests import company, small  # first: it turns the shape checks on

import jaxtyping
import torch
import torch.distributed as dist

from minillama import parallel, runs, train
from minillama.batches import Batch
from minillama.checkpoint import checkpoints
from minillama.company import BrokenCompany, join
from minillama.config import ModelConfig, TrainConfig
from minillama.generate import generate
from minillama.model import Transformer

STEPS = 20
MODEL = ModelConfig(dim=16, n_layers=2, n_heads=4, multiple_of=8,
                    vocab_size=small.VOCAB, max_seq_len=16)
SHARED_HEADS = replace(MODEL, n_kv_heads=2)
TIED = replace(MODEL, tie_embeddings=True)
MIXES = {2: [(2, 1, 1), (1, 2, 1), (1, 1, 2)],
         4: [(4, 1, 1), (1, 4, 1), (2, 2, 1), (1, 1, 4), (2, 1, 2),
             (1, 2, 2)]}
"""(dp_replicate, dp_shard, tensor_parallel) by world size."""
DTYPES = {"fp64": torch.float64, "fp32": torch.float32}


def config_of(data: str, out: str = "unused", **settings: Any) -> TrainConfig:
    """A run of 20 steps of 4 x 16 tokens."""
    return small.run_config(Path(data), Path(out), **{
        "model": MODEL, "steps": STEPS, "sample_prompt": "A", "timeout": 60.0,
        **settings})


def mix(sizes: tuple[int, int, int] | list[int]) -> dict[str, int]:
    """The settings of a mix."""
    return dict(zip(("dp_replicate", "dp_shard", "tensor_parallel"), sizes))


def fresh(config: TrainConfig, dtype: str = "fp64") -> runs.State:
    """A run at step 0 with weights of this type."""
    model = Transformer(config.model)
    model.init_weights(torch.Generator().manual_seed(config.seed))
    return train.new_state(config, model.to(DTYPES[dtype]))


def walk(state: runs.State, config: TrainConfig, steps: int) -> list[Any]:
    """(loss, gradient norm) of so many steps."""
    records = []
    for _ in range(steps):
        state.step += 1
        record = train.train_step(state, next(state.batches), config)
        records.append((record["loss"], record["grad_norm"]))
    return records


def ragged(batch: Batch, first: int, stride: int) -> Batch:
    """Row i of the whole batch loses its first 3 i targets."""
    targets = batch.targets.clone()
    for row in range(len(targets)):
        targets[row, :3 * (first + row * stride)] = train.IGNORE
    return replace(batch, targets=targets)


def uneven(state: runs.State, config: TrainConfig, first: int,
           stride: int) -> list[float]:
    """One step of a batch whose rows have unequal numbers of targets."""
    state.step += 1
    record = train.train_step(
        state, ragged(next(state.batches), first, stride), config)
    return [record["loss"], record["grad_norm"]]


def texts(state: runs.State, data: str) -> list[str]:
    """What a model writes, greedily and by chance, past its context."""
    tokenizer = small.tokenizer_of(Path(data))
    state.model.eval()
    found = [generate(
        state.model, tokenizer, ["A fox", "My aunt sells"],
        max_new_tokens=17, temperature=temperature,
        generator=torch.Generator().manual_seed(3))
        for temperature in (0.0, 1.0)]
    state.model.train()
    return sum(found, [])


def held_out(state: runs.State, data: str) -> list[float]:
    """Loss and bits per byte on some text."""
    tokenizer = small.tokenizer_of(Path(data))
    ids = tokenizer.encode(small.sentences(9, seed=5), bos=True, eos=True)
    return list(train.evaluate_loss(
        state.model, tokenizer, torch.tensor(ids).numpy(), batch_size=4))


def everything(rank: int, world: int, data: str, out: str, alone: str,
               folders: list[str]) -> dict[str, Any]:
    """All mixes of a world size, and all that is asked of them."""
    found: dict[str, Any] = {"steps": {}, "texts": {}, "held_out": {},
                             "uneven": {}, "other": {}, "resumed": {}}
    torch.use_deterministic_algorithms(False)
    with join(60.0, "cpu"):
        for sizes in MIXES[world]:
            name = "x".join(map(str, sizes))
            for dtype in DTYPES:
                config = config_of(data, **mix(sizes))
                state = fresh(config, dtype)
                found["steps"][f"{name} {dtype}"] = walk(
                    state, config, STEPS)
                if dtype == "fp64":
                    found["texts"][name] = texts(state, data)
                    found["held_out"][name] = held_out(state, data)
            state = fresh(config)
            tensor = sizes[2]
            found["uneven"][name] = uneven(
                state, config, rank // tensor, state.shares)
            resumed(found["resumed"], name, config, out, alone)
        others(found["other"], world, data)
        found["crossed"] = crossed(world, data, folders)
    return found


def resumed(found: dict[str, Any], name: str, config: TrainConfig, out: str,
            alone: str) -> None:
    """Four steps after a checkpoint of one process, then one of this mix."""
    state = fresh(config)
    runs.resume_state(state, Path(alone))
    found[f"one -> {name}"] = [state.step, walk(state, config, 4)]
    here = Path(out) / name
    state.save(state, here, 2)
    walk(state, config, 1)  # what is loaded must replace what is there
    again = fresh(config)
    runs.resume_state(again, here)
    found[f"{name} -> {name}"] = [again.step, walk(again, config, 4)]


def others(found: dict[str, Any], world: int, data: str) -> None:
    """Micro-batches, shared heads, tied embeddings, whole streams."""
    split = mix((1, 1, 2) if world == 2 else (1, 2, 2))
    for name, settings in {
            "micro": {"micro_batch_size": 1},
            "whole stream": {"sequence_parallel": False},
            "shared heads": {"model": SHARED_HEADS},
            "tied": {"model": TIED}}.items():
        config = config_of(data, **split, **settings)
        found[name] = walk(fresh(config), config, 5)
    config = config_of(data, **mix((1, world, 1)), dtype="bf16")
    state = fresh(config, "fp32")
    found["16 bits"] = [
        train.train_step(state, next(state.batches), config)["loss"],
        train._sample(state, small.tokenizer_of(Path(data)), config)]


def crossed(world: int, data: str, folders: list[str]) -> dict[str, Any]:
    """Four steps after checkpoints that other mixes wrote."""
    found = {}
    for folder in folders:
        config = config_of(data, **mix(MIXES[world][-1]))
        state = fresh(config)
        runs.resume_state(state, Path(folder))
        found[folder] = [state.step, walk(state, config, 4)]
    return found


def cross(rank: int, world: int, data: str, folders: list[str]) -> Any:
    """The same, in processes of its own."""
    with join(60.0, "cpu"):
        return crossed(world, data, folders)


def broken(rank: int, port: int, how: str) -> list[Any]:
    """One of two processes hangs or dies; what the other one says, when."""
    company.join(rank, 2, port)
    begun = time.monotonic()
    try:
        with join(4.0, "cpu"):
            parallel.mean(1.0)
            if rank and how == "hangs":
                time.sleep(9)
            if rank:
                os._exit(0)
            parallel.mean(1.0)
    except BrokenCompany as error:
        return [str(error), time.monotonic() - begun]
    return ["nothing happened", 0]


def newest(folder: str) -> Path:
    """The last checkpoint of a run."""
    return checkpoints(Path(folder))[-1]


def group_is_left() -> bool:
    """Whether a process group was left behind."""
    return dist.is_initialized()


def compiled(rank: int, data: str) -> dict[str, Any]:
    """Steps of compiled layers whose matrices are split: plainly, and with
    products cut into pieces that travel meanwhile.

    Only GPUs can open their memory to each other. Here the compiler is told
    that they do, and its fused operations are carried out one after the other
    by PyTorch's reference of them.
    """
    import torch._inductor.config as inductor
    from torch._inductor.fx_passes import post_grad
    from torch.distributed import _symmetric_memory as symmetric

    config = config_of(data, compile=True, **mix((1, 1, 2)))
    found: dict[str, Any] = {"fused": []}
    real = post_grad.micro_pipeline_tp_pass

    def seen(graph: Any) -> None:
        real(graph)
        names = [str(node.target).split(".")[1] for node in graph.nodes
                 if str(node.target).startswith(("symm_mem", "_c10d_func"))]
        found["fused"].append(sorted(names))

    jaxtyping.config.update("jaxtyping_disable", True)
    torch.use_deterministic_algorithms(False)
    library = torch.library.Library("symm_mem", "IMPL")
    with join(60.0, "cpu"):
        found["plain"] = walk(fresh(config), config, 3)
        for name in ("all_gather_matmul", "matmul_reduce_scatter"):
            library.impl(f"fused_{name}", getattr(
                symmetric, f"_fused_{name}_fallback"), "CPU")
        post_grad.micro_pipeline_tp_pass = seen
        dist.is_nccl_available = lambda: True
        inductor._micro_pipeline_tp = True
        torch.compiler.reset()
        with symmetric._test_mode():
            found["overlapped"] = walk(fresh(config), config, 3)
    return found
