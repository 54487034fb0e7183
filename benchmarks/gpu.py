"""One GPU: training at the layer shapes of 7B and 1.1B, and generation.

    python -m benchmarks.gpu --preset 7B --layers 0
    python -m benchmarks.gpu --preset 1.1B --batch-size 4
    python -m benchmarks.gpu --preset mini --device cpu --steps 2 --warm-up 1

Training: tokens a second and model FLOPs utilisation (MFU), optimiser step
included, over `--steps` steps in a row after the warm-up, for each backend of
attention and each mode of recompute, beside Hugging Face's LLaMA and litgpt
where they are installed. All start from the same weights and batch and must
agree on the first loss. `--layers 0` takes as many layers as fit.

MFU is stated in three conventions: 6 N with N all parameters, 6 N without the
input embedding, and the latter with causal attention (`flops_per_token`).

Generation: seconds a token of one sequence, beside the time that reading the
weights once takes at the measured bandwidth of the memory, which no method
that reads them once a token can beat.

Weights and AdamW's moments are kept in `--weights` (fp32), products are in
bf16. The clocks are not touched; what they were is written down.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import harness
from minillama import profiling, recompute
from minillama.attention import attend
from minillama.config import ModelConfig
from minillama.devices import choose_device, choose_dtype, precision
from minillama.generate import next_tokens
from minillama.metrics import device_peak
from minillama.model import Transformer, count_parameters, flops_per_token
from minillama.weights.ladder import twin

BACKENDS = ("sdpa", "xformers", "eager", "tiled")
TOLERANCE = 0.02
"""How far apart first losses (nats a token) may be, in bf16."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of inputs and targets."""


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

    first = [step() for _ in range(max(1, warm_up))][0].item()
    wait(device)
    begun = time.perf_counter()
    for _ in range(steps):
        last = step()
    wait(device)
    seconds = time.perf_counter() - begun
    return {"first_loss": first, "last_loss": last.item(),
            "seconds": seconds, "steps": steps,
            "tokens_per_s": steps * inputs.numel() / seconds,
            "peak_bytes": (torch.cuda.max_memory_allocated()
                           if device.type == "cuda" else None)}


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


def generation(
    model: Transformer, new_tokens: int, device: torch.device
) -> dict[str, float]:
    """Seconds a token of one sequence, and the bandwidth's limit."""
    model = recompute.apply(model, "none").eval()
    with torch.inference_mode():
        def write() -> None:
            list(next_tokens(model, [[1, 2, 3]], max_new_tokens=new_tokens,
                             temperature=0.0))
        write()
        wait(device)
        begun = time.perf_counter()
        write()
        wait(device)
        seconds = (time.perf_counter() - begun) / new_tokens
    # Every weight is read once a token, but for the embedding: one row.
    n_bytes = sum(p.nbytes for p in model.parameters())
    n_bytes -= model.tok_embeddings.weight.nbytes
    limit = n_bytes / bandwidth(device)
    return {"seconds_per_token": seconds, "limit": limit,
            "share_of_bandwidth": limit / seconds}


def bandwidth(device: torch.device, n_bytes: int = 2**28) -> float:
    """Bytes a second that a large copy reads and writes."""
    block = torch.zeros(n_bytes // 4, device=device)
    out = torch.empty_like(block)
    best = float("inf")
    for _ in range(5):
        wait(device)
        begun = time.perf_counter()
        out.copy_(block)
        wait(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * block.nbytes / best


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


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every setting in turn, each on a model of its own."""
    device = choose_device(args.device)
    dtype = choose_dtype("bf16", device)
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
    peak, rows = device_peak(device), {}

    def fresh() -> Transformer:
        with device:
            model = Transformer(config)
        model.init_weights(torch.Generator(device).manual_seed(1))
        return model.to(stored)

    def run(name: str, make: Callable[[], tuple[nn.Module, Loss]]) -> None:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            model, loss_of = make()
            row = train(model, loss_of, batch, steps=args.steps,
                        warm_up=args.warm_up, dtype=dtype)
        except (ValueError, torch.OutOfMemoryError) as error:
            rows[name] = {"skipped": " ".join(str(error).split())[:200]}
            return
        rows[name] = row | utilisation(config, row["tokens_per_s"], peak)

    for backend in args.backends:
        for mode in args.modes:
            if mode == "by_hand" and backend != "sdpa":
                continue

            def make(backend=backend, mode=mode) -> tuple[nn.Module, Loss]:
                model = fresh()
                return model, ours(model, backend, mode)
            run(f"minillama, {backend}, {mode}", make)

    def theirs() -> tuple[nn.Module, Loss]:
        model = twin(fresh()).train()
        return model, hugging_face(model)

    run("Hugging Face, sdpa", theirs)
    if importlib.util.find_spec("litgpt"):
        def lit() -> tuple[nn.Module, Loss]:
            model = litgpt(config, device).to(stored)
            return model, lambda x, y: F.cross_entropy(
                model(x).flatten(0, 1).float(), y.flatten())
        run("litgpt", lit)
    agree(rows)
    writer = fresh().to(dtype)
    q = torch.randn(1, config.n_heads, 256, config.head_dim,
                    device=device, dtype=dtype)
    return {
        "settings": {
            "preset": args.preset, "layers": config.n_layers,
            "batch_size": args.batch_size, "seq_len": config.max_seq_len,
            "weights": args.weights, "products": str(dtype),
            "steps": args.steps},
        "peak_flops": peak, "clocks": clocks(), "versions": versions(),
        "kernel": profiling.kernels(lambda: attend(q, q, q, backend="sdpa")),
        "rows": rows,
        "generation": generation(writer, args.new_tokens, device)}


def agree(rows: dict[str, dict[str, Any]]) -> None:
    """Refuse a comparison of models that do not compute the same."""
    first = {name: row["first_loss"] for name, row in rows.items()
             if "first_loss" in row and name != "litgpt"}
    for name, loss in first.items():
        if abs(loss - next(iter(first.values()))) > TOLERANCE:
            raise RuntimeError(f"{name} begins with loss {loss}, the others "
                               f"with {first}: they do not compute the same")


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of the newest run, each beside Hugging Face's."""
    rows = runs[-1]["rows"]
    base = rows.get("Hugging Face, sdpa", {}).get("tokens_per_s")
    return {name: {
        "tokens_per_s": row["tokens_per_s"],
        "mfu": row["mfu_6n"], "mfu_no_embedding": row["mfu_6n_no_embedding"],
        "over_hugging_face": row["tokens_per_s"] / base if base else None,
        "peak_gb": row["peak_bytes"] and row["peak_bytes"] / 1e9}
        for name, row in rows.items() if "skipped" not in row}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="7B")
    parser.add_argument("--layers", type=int, default=None,
                        help="0: as many as fit; left out: the preset's")
    parser.add_argument("--length", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--weights", choices=("fp32", "bf16"),
                        default="fp32")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS[:2]),
                        choices=BACKENDS)
    parser.add_argument("--modes", nargs="+", default=["none", "selective",
                        "by_hand", "full"])
    parser.add_argument("--device", default="auto")
    return parser.parse_args(words)


def main() -> None:
    """Measure, print, store."""
    args = arguments()
    device = choose_device(args.device)
    run = measure(args)
    path, rows = harness.store("gpu", run, summarise, device)
    print(harness.table(rows), run["generation"], path, sep="\n\n")


if __name__ == "__main__":
    main()
