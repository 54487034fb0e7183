"""One GPU: training at the layer shapes of 7B and 1.1B.

    python -m benchmarks.gpu --layers 0
    python -m benchmarks.gpu --preset 1.1B --modes none full --compile yes
    python -m benchmarks.gpu --preset mini --device cpu --steps 2 --warm-up 1

Tokens a second and model FLOPs utilisation (MFU), optimiser step included,
over `--steps` steps in a row after the warm-up: each backend of attention and
each mode of recompute, as written and with every layer compiled, beside
Hugging Face's LLaMA treated alike, and litgpt where it is installed. All start
from the same weights and batch and must agree on the first loss. A side is
printed and stored as soon as it has run, and one more step of it is profiled:
where its time goes. `--layers 0` takes as many layers as fit.

MFU is stated in three conventions: 6 N with N all parameters, 6 N without the
input embedding, and the latter with causal attention (`flops_per_token`).

Weights and AdamW's moments are kept in `--weights`; products are in 16 bits
on a GPU. The clocks are not touched; what they were is written down.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import harness
from minillama import profiling, recompute
from minillama.attention import attend
from minillama.config import ModelConfig
from minillama.devices import choose_device, choose_dtype, precision
from minillama.metrics import device_peak
from minillama.model import Transformer, count_parameters, flops_per_token
from minillama.weights.ladder import twin

BACKENDS = ("sdpa", "xformers", "eager", "tiled")
RIVAL = "Hugging Face, sdpa"
TOLERANCE = 0.02
"""How far apart first losses (nats a token) may be, in 16 bits."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of inputs and targets."""

KINDS = {
    "attention": ("flash", "fmha", "attention", "Attention"),
    "optimiser": ("adam", "Adam", "multi_tensor", "foreach"),
    "products": ("gemm", "gemv", "nvjet", "cutlass", "xmma", "cublas",
                 "aten::mm", "aten::addmm", "aten::bmm")}
"""Parts of the names that kernels have; what has none of them is `rest`."""


def layers_that_fit(
    config: ModelConfig, free: int, *, batch: int, mode: str, weights: int
) -> int:
    """How many layers of a shape train in so many bytes; an estimate.

    A weight, its gradient and two moments, and 2 bytes of the copy that
    autocast makes; what each layer keeps and its input; logits in fp32 three
    times. A tenth is left for what the kernels need meanwhile.
    """
    one = replace(config, n_layers=1)
    two = replace(config, n_layers=2)
    a_weight = 4 * weights + (2 if weights == 4 else 0)
    layer = count_parameters(two) - count_parameters(one)
    tokens = batch * config.max_seq_len
    kept = recompute.kept_bytes(config, mode, batch=batch)
    a_layer = layer * a_weight + kept + tokens * config.dim * weights
    rest = ((count_parameters(one) - layer) * a_weight
            + 3 * 4 * tokens * config.vocab_size)
    return max(0, int((0.9 * free - rest) // a_layer))


def ours(model: Transformer, backend: str, mode: str) -> Loss:
    """Our model with a backend of attention and a mode of recompute."""
    if mode != "by_hand":  # which has a kernel of its own
        for layer in model.layers:
            layer.attention.attend = functools.partial(
                attend, backend=backend)
    recompute.apply(model, mode)
    return lambda inputs, targets: F.cross_entropy(
        model(inputs).flatten(0, 1), targets.flatten())


def hugging_face(model: nn.Module) -> Loss:
    """Hugging Face's LLaMA, from `twin`."""
    return lambda inputs, targets: model(
        input_ids=inputs, labels=targets, shift_labels=targets,
        use_cache=False).loss


def litgpt(config: ModelConfig, device: torch.device) -> nn.Module:
    """litgpt's model of the same shape, with weights of its own."""
    from litgpt import GPT, Config

    hidden = config.ffn_dim or recompute.ffn_hidden_dim(
        config.dim, config.multiple_of)
    with device:
        return GPT(Config(
            block_size=config.max_seq_len, vocab_size=config.vocab_size,
            padded_vocab_size=config.vocab_size, n_layer=config.n_layers,
            n_head=config.n_heads, n_query_groups=config.kv_heads,
            n_embd=config.dim, intermediate_size=hidden, bias=False,
            parallel_residual=False, rotary_percentage=1.0,
            norm_class_name="RMSNorm", norm_eps=config.norm_eps,
            mlp_class_name="LLaMAMLP"))


def train(
    model: nn.Module, loss_of: Loss, batch: Tensor, *, steps: int,
    warm_up: int, dtype: torch.dtype,
) -> dict[str, Any]:
    """Whole steps in a row: the first loss, and how long the last ones took.

    Args:
        model: its parameters are trained.
        loss_of: the forward pass.
        batch: (B, T + 1) ids.
        steps: timed.
        warm_up: steps before that are not.
        dtype: of the products.
    """
    device = batch.device
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1,
        fused=True)
    inputs, targets = batch[:, :-1], batch[:, 1:].contiguous()

    def step() -> Tensor:
        with precision(device, dtype):
            loss = loss_of(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    begun = time.perf_counter()
    first = [step() for _ in range(max(1, warm_up))][0].item()
    wait(device)
    warm = time.perf_counter()
    for _ in range(steps):
        last = step()
    wait(device)
    seconds = time.perf_counter() - warm
    return {"first_loss": first, "last_loss": last.item(),
            "warm_up_seconds": warm - begun, "seconds": seconds,
            "steps": steps, "tokens_per_s": steps * inputs.numel() / seconds,
            "peak_bytes": (torch.cuda.max_memory_allocated()
                           if device.type == "cuda" else None),
            "spent": spent(step, device)}


def spent(step: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Seconds that one step spends in each kind of kernel, by name.

    On a GPU its kernels are counted, which run one after another; on a CPU
    PyTorch's operators, each without those that it calls.
    """
    with profiling.profiled() as profiler:
        step()
        wait(device)
    found = dict.fromkeys([*KINDS, "rest"], 0.0)
    for event in profiler.events():
        if device.type == "cuda":
            if (event.device_type != torch.autograd.DeviceType.CUDA
                    or event.is_user_annotation):
                continue
            took = event.self_device_time_total
        else:
            took = event.self_cpu_time_total
        found[kind_of(event.name)] += took / 1e6
    return found


def kind_of(name: str) -> str:
    """Which of `KINDS` a kernel is, the first that fits; or `rest`."""
    return next((kind for kind, parts in KINDS.items()
                 if any(part in name for part in parts)), "rest")


def wait(device: torch.device) -> None:
    """Until the GPU has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def utilisation(
    config: ModelConfig, tokens_per_s: float, peak: float | None
) -> dict[str, float | None]:
    """MFU in three conventions; None where the peak is not known."""
    n = count_parameters(config)
    inner = n - (0 if config.tie_embeddings else
                 config.vocab_size * config.dim)
    counts = {"mfu_6n": 6 * n, "mfu_6n_no_embedding": 6 * inner,
              "mfu_with_attention": flops_per_token(
                  config, config.max_seq_len)}
    return {name: tokens_per_s * flops / peak if peak else None
            for name, flops in counts.items()}


def clocks() -> str | None:
    """What nvidia-smi says of the GPU as it is found; None without one."""
    names = ("name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,"
             "power.limit,temperature.gpu")
    try:
        return subprocess.run(
            ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader"],
            capture_output=True, text=True, check=True,
            encoding="utf-8").stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str | None]:
    """Of the packages that take part."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in ("torch", "transformers", "litgpt", "xformers", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return {**found, "cuda": torch.version.cuda}


class Side(NamedTuple):
    """One way to train the same model."""

    name: str
    make: Callable[[Transformer], tuple[nn.Module, Loss]]
    """From the model to what trains, and its loss."""
    compiled: bool = False
    """Whether every layer is compiled."""


def sides(args: argparse.Namespace, config: ModelConfig) -> Iterator[Side]:
    """What the flags ask for, ours first."""
    ways = {"no": (False,), "yes": (True,), "both": (True, False)}
    for backend, mode, compiled in itertools.product(
            args.backends, args.modes, ways[args.compile]):
        # By hand there is one kernel; the compiler sees through no other.
        if backend != "sdpa" and (compiled or mode == "by_hand"):
            continue

        def make(model, backend=backend, mode=mode):
            return model, ours(model, backend, mode)
        yield Side(f"minillama, {backend}, {mode}" + ", compiled" * compiled,
                   make, compiled)
    if args.no_rivals:
        return

    def theirs(model):
        other = twin(model).train()
        return other, hugging_face(other)

    for compiled in ways[args.compile]:
        yield Side(RIVAL + ", compiled" * compiled, theirs, compiled)
    if importlib.util.find_spec("litgpt"):
        def lit(model):
            weight = model.output.weight
            other = litgpt(config, weight.device).to(weight.dtype)
            return other, lambda x, y: F.cross_entropy(
                other(x).flatten(0, 1).float(), y.flatten())
        yield Side("litgpt", lit)


def compile_layers(model: nn.Module, **options: Any) -> None:
    """Each layer by itself, as `parallel.apply` does: one graph for all."""
    inner = model if isinstance(model, Transformer) else model.model
    for layer in inner.layers:
        layer.compile(**options)


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every side in turn on a model of its own; its run as soon as it ends.

    Raises:
        RuntimeError: if two sides do not compute the same.
    """
    device = choose_device(args.device)
    dtype = choose_dtype("auto", device)
    config = ModelConfig.preset(args.preset)
    if args.length:
        config = replace(config, max_seq_len=args.length)
    stored = torch.float32 if args.weights == "fp32" else torch.bfloat16
    layers = args.layers
    if layers == 0:
        if device.type != "cuda":
            raise SystemExit("--layers 0 asks a GPU; give a number")
        layers = min(config.n_layers, layers_that_fit(
            config, torch.cuda.mem_get_info(device)[0],
            batch=args.batch_size, mode="none", weights=stored.itemsize))
    config = replace(config, n_layers=layers or config.n_layers)
    draw = torch.Generator().manual_seed(1)
    batch = torch.randint(
        config.vocab_size, (args.batch_size, config.max_seq_len + 1),
        generator=draw).to(device)
    peak, losses = device_peak(device), {}

    def fresh() -> Transformer:
        with device:
            model = Transformer(config)
        model.init_weights(torch.Generator(device).manual_seed(1))
        return model.to(stored)

    def one(side: Side) -> dict[str, Any]:
        gc.collect()
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            model, loss_of = side.make(fresh())
            if side.compiled:
                compile_layers(model)
            row = train(model, loss_of, batch, steps=args.steps,
                        warm_up=args.warm_up, dtype=dtype)
        except (ValueError, torch.OutOfMemoryError) as error:
            return {"skipped": " ".join(str(error).split())[:200]}
        if side.name != "litgpt":  # it draws weights of its own
            losses[side.name] = row["first_loss"]
            agree(losses)
        return row | utilisation(config, row["tokens_per_s"], peak)

    for side in sides(args, config):
        yield {
            "settings": {
                "preset": args.preset, "layers": config.n_layers,
                "batch_size": args.batch_size, "seq_len": config.max_seq_len,
                "weights": args.weights, "products": str(dtype)},
            "peak_flops": peak, "side": side.name, "row": one(side),
            "clocks": clocks(), "versions": versions()}


def agree(losses: dict[str, float]) -> None:
    """Refuse a comparison of models that do not compute the same.

    Args:
        losses: the first one of each side.
    """
    for name, loss in losses.items():
        if abs(loss - next(iter(losses.values()))) > TOLERANCE:
            raise RuntimeError(f"{name} begins with loss {loss}, the others "
                               f"with {losses}: they do not compute the same")


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The newest row of each side, beside Hugging Face's as written.

    `products`, `attention`, `optimiser` and `rest` are shares of the time that
    the kernels of one step took together.
    """
    rows = {run["side"]: run["row"] for run in runs}
    base = rows.get(RIVAL, {}).get("tokens_per_s")
    return {name: {
        "steps": row["steps"], "tokens_per_s": row["tokens_per_s"],
        "mfu": row["mfu_6n"], "mfu_no_embedding": row["mfu_6n_no_embedding"],
        "mfu_with_attention": row["mfu_with_attention"],
        "over_hugging_face": row["tokens_per_s"] / base if base else None,
        "peak_gb": row["peak_bytes"] and row["peak_bytes"] / 1e9,
        **{kind: took / sum(row["spent"].values())
           for kind, took in row["spent"].items()}}
        for name, row in rows.items() if "skipped" not in row}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="7B")
    parser.add_argument("--layers", type=int, default=None,
                        help="0: as many as fit; left out: the preset's")
    parser.add_argument("--length", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--weights", choices=("fp32", "bf16"),
                        default="fp32")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS[:2]),
                        choices=BACKENDS)
    parser.add_argument("--modes", nargs="+", default=["none", "selective",
                        "by_hand", "full"])
    parser.add_argument("--compile", choices=("no", "yes", "both"),
                        default="both")
    parser.add_argument("--no-rivals", action="store_true",
                        help="only our own model")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(words)


def main() -> None:
    """Measure, print, store, side by side."""
    args = arguments()
    device = choose_device(args.device)
    table, path = {}, None
    for run in measure(args):
        said = run["row"].get("skipped") or (
            f"{run['row']['tokens_per_s']:,.0f} tokens a second")
        print(f"{run['side']}: {said}", file=sys.stderr, flush=True)
        path, table = harness.store(
            f"gpu-{args.preset.lower()}-{args.weights}", run, summarise,
            device)
    print(harness.table(table), path, sep="\n\n")


if __name__ == "__main__":
    main()
