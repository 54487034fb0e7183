"""What is kept, what ran, how fast: tables and pictures of efficiency.

Chapter: notebooks/12_efficiency.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import torch
from torch import Tensor

from minillama import profiling, recompute
from minillama.attention import Backend, attend
from minillama.config import ModelConfig, RecomputeName
from minillama.model import Transformer
from minillama.plots import COLOURS, figure, show, slider
from minillama.swiglu import ffn_hidden_dim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODES = get_args(RecomputeName)


def parts(
    config: ModelConfig, mode: str, *, dtype: torch.dtype = torch.bfloat16
) -> dict[str, int]:
    """Bytes a token that one layer keeps, by what they are.

    RoPE's small tables, which all sequences share, are left out.
    """
    d, kv = config.dim, config.kv_heads * config.head_dim
    f = config.ffn_dim or ffn_hidden_dim(d, config.multiple_of)
    size = dtype.itemsize
    wide = max(4, size)
    attention = size * d + wide * config.n_heads
    linear = {"q, k, v": size * (d + 2 * kv), "attention": attention,
              "wo": size * d, "gate, up": 2 * size * f, "w_down": size * d}
    left_out = {"linear": ("attention",), "by_hand": ("w_down",),
                "selective": (), "full": tuple(linear)}
    if mode != "none":
        return {name: n_bytes for name, n_bytes in linear.items()
                if name not in left_out[mode]}
    read = d * wide * (1 if wide == size else 2)
    return {"norms": 4 * size * d + read + 2 * wide,
            "q, k, v": size * (d + 2 * kv), "attention": attention,
            "gate, up": 2 * size * f, "SiLU, product": 2 * size * f}


def stack(name: str) -> None:
    """Bars of what one layer keeps of one token, a bar for each mode.

    Args:
        name: of a preset.
    """
    config = ModelConfig.preset(name)
    picture, axes = figure(height=4.2)
    kinds = ("norms", "q, k, v", "attention", "wo", "gate, up",
             "SiLU, product", "w_down")
    colours = dict(zip(kinds, (*COLOURS, "0.45")))
    totals = {}
    for row, mode in enumerate(MODES):
        left = 0.0
        for kind, n_bytes in parts(config, mode).items():
            axes.barh(row, n_bytes / 1e3, left=left, color=colours[kind],
                      height=0.65)
            left += n_bytes / 1e3
        totals[mode] = left
        axes.text(left + 2, row, f"{left:.0f}", va="center")
    axes.set_yticks(range(len(MODES)), MODES)
    axes.set(xlabel="kilobytes a token and layer", ylabel="mode",
             xlim=(0, 1.12 * totals["none"]), ylim=(len(MODES) - 0.5, -0.5))
    axes.grid(False, axis="y")
    picture.legend(
        handles=[_patch(colours[kind], kind) for kind in kinds], ncols=3,
        loc="outside lower center", handlelength=1.0, columnspacing=1.0)
    show(picture, alt=f"What one layer of {name} keeps of one token, in "
         "kilobytes: " + ", ".join(
             f"{mode} {total:.0f}" for mode, total in totals.items()) + ".")


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def mountains(courses: dict[str, tuple[list[int], int]]) -> None:
    """Live bytes over one forward and backward pass, a mode at each stop.

    Args:
        courses: what `passage` measured, by mode.
    """
    top = max(max(live) for live, _ in courses.values())
    frames = []
    for mode in courses:
        picture, axes = figure(height=3.2)
        for other, (live, turn) in courses.items():
            mine = other == mode
            axes.plot(_stretched(len(live), turn), [x / 1e6 for x in live],
                      color=COLOURS[1] if mine else "0.8",
                      lw=1.8 if mine else 1.0, zorder=3 if mine else 1)
        axes.axvline(0, color="black", lw=1, ls=":")
        axes.set(xlabel="forward, layer by layer   |   backward",
                 ylabel="live megabytes", ylim=(0, 1.05e-6 * top),
                 xticks=[])
        peak = max(courses[mode][0]) / 1e6
        frames.append((f"{mode}: peak {peak:.1f} MB", picture))
    slider(frames, label="mode", alt="Live memory climbs through the forward "
           "pass and falls through the backward pass; five such mountains, "
           "one of them coloured.")


def passage(
    config: ModelConfig, mode: str, batch: int = 1
) -> tuple[list[int], int]:
    """Live bytes over one pass through all layers, forward and backward.

    Returns:
        Bytes after each make and free, and how many of these are forward's.
    """
    torch.manual_seed(0)
    model = Transformer(config)
    x = torch.randn(batch, config.max_seq_len, config.dim,
                    requires_grad=True, device="cpu")
    tables = model.rope_tables(0, config.max_seq_len, x)
    recompute.apply(model, mode)

    def forward() -> Tensor:
        h = x
        for layer in model.layers:
            h = layer(h, tables)
        return h

    forward().sum().backward()  # from here on the gradients have their place
    turn = len(profiling.course(forward)) - 1
    return profiling.course(lambda: forward().sum().backward()), turn


def _stretched(length: int, turn: int) -> list[float]:
    """-1 to 0 in the forward pass, 0 to 1 in the backward pass."""
    return [(i - turn) / (turn if i < turn else length - 1 - turn)
            for i in range(length)]


def growth(lengths: Sequence[int], head_dim: int = 16) -> dict[str, list[int]]:
    """Peak bytes of one head, forward and backward, by backend and length."""
    return {backend: [_peak(backend, length, head_dim) for length in lengths]
            for backend in ("eager", "tiled", "sdpa")}


def _peak(backend: Backend, length: int, head_dim: int) -> int:
    q, k, v = (torch.randn(1, 1, length, head_dim, requires_grad=True)
               for _ in range(3))
    return profiling.memory(
        lambda: attend(q, k, v, backend=backend).sum().backward()).peak


def lines(lengths: Sequence[int], peaks: dict[str, list[int]]) -> None:
    """What `growth` found, on logarithmic axes."""
    picture, axes = figure(height=3.4)
    for backend, marker in zip(peaks, "os^"):
        axes.loglog(lengths, [peak / 1e6 for peak in peaks[backend]],
                    f"{marker}-", label=backend)
    axes.set_xticks(lengths, [f"{t:,}" for t in lengths])
    axes.minorticks_off()
    axes.set(xlabel="sequence length T (tokens)", ylabel="peak megabytes")
    axes.legend()
    show(picture, alt="Peak memory of attention against the length, on "
         "logarithmic axes: the formula's line is twice as steep as those of "
         "the tiles and of the fused kernel.")


def roofline(work: dict[str, Work], peak: float, bandwidth: float) -> None:
    """Each kind of operation under the roof of the machine.

    Args:
        work: from `operations`.
        peak: operations a second of a large product.
        bandwidth: bytes a second of a large copy.
    """
    picture, axes = figure(height=4.0)
    ridge = peak / bandwidth
    right = max(20 * ridge, *(w.intensity * 2 for w in work.values()))
    xs = [0.05, ridge, right]
    axes.loglog(xs, [min(peak, x * bandwidth) / 1e9 for x in xs],
                color="black", label="the roof")
    axes.axvline(ridge, color="0.6", lw=1, ls=":")
    for (name, w), colour in zip(list(work.items())[:6], COLOURS):
        axes.loglog(w.intensity, w.flops / w.seconds / 1e9, "o", ms=8,
                    color=colour, label=name.replace(
                        "scaled_dot_product_flash_attention_for_cpu",
                        "attention"))
    axes.set(xlabel="operations a byte", ylabel="billion operations a second")
    axes.legend(loc="lower right")
    show(picture, alt="A sloping roof, memory's limit, that turns level at "
         "the ridge point, the limit of arithmetic. Element-wise operations "
         "lie far left, under the slope; matrix products right of the ridge.")


class Work(NamedTuple):
    """One kind of operation in a computation, all its calls together."""

    calls: int
    """How often it ran."""
    flops: int
    """Operations, from the shapes."""
    n_bytes: int
    """Bytes read and written, from the shapes: each operand once."""
    seconds: float
    """Measured, of the kernels alone."""

    @property
    def intensity(self) -> float:
        """Operations a byte; below the ridge point, memory is the limit."""
        return self.flops / self.n_bytes


def operations(
    run: Callable[[], Any], *, itemsize: int = 4
) -> dict[str, Work]:
    """What each kind of operation did, the slowest first.

    Args:
        run: the computation.
        itemsize: bytes a number.

    Chapter: notebooks/12_efficiency.ipynb
    """
    with profiling.profiled(record_shapes=True) as profiler:
        run()
    found: dict[str, Work] = {}
    for event in profiler.events():
        name = event.name.removeprefix("aten::").strip("_")
        flops, numbers = counted(name, event.input_shapes)
        if numbers:
            old = found.get(name, Work(0, 0, 0, 0.0))
            took = max(event.cpu_time_total, event.device_time_total) / 1e6
            found[name] = Work(
                old.calls + 1, old.flops + flops,
                old.n_bytes + numbers * itemsize, old.seconds + took)
    return dict(sorted(found.items(), key=lambda item: -item[1].seconds))


ELEMENTWISE = ("mul", "add", "sub", "div", "silu", "silu_backward", "pow",
               "rsqrt", "exp", "copy", "sum", "masked_fill", "softmax")
"""Operations counted as one a number; each operand is read once."""


def counted(name: str, shapes: list[list[int]]) -> tuple[int, int]:
    """(operations, numbers read and written) of one call, from its shapes.

    A product of an m x k with a k x n matrix: 2 m k n, and all three matrices
    once. Causal attention: two products of T x T with the heads, halved;
    backward five. Unknown operations: (0, 0).

    Chapter: notebooks/12_efficiency.ipynb
    """
    sizes = [math.prod(shape) for shape in shapes if shape]
    if name in ("mm", "bmm"):
        *batch, rows, inner = shapes[0]
        out = math.prod(batch) * rows * shapes[1][-1]
        return 2 * out * inner, sum(sizes) + out
    if (name.lstrip("_").startswith("scaled_dot_product_")
            and name != "scaled_dot_product_attention"):
        products = 5 if name.endswith("backward") else 2
        queries, keys = shapes[products > 2], shapes[1 + (products > 2)]
        # Written: one output, or three gradients; the log-sum-exp is small.
        return (products * math.prod(queries) * keys[-2],
                sum(sizes) + (3 if products > 2 else 1) * math.prod(queries))
    if name in ELEMENTWISE and sizes:
        out = max(sizes)
        return out, sum(sizes) + (out if name != "sum" else 0)
    return 0, 0


CASES = {
    "square": (4, 4, 64, 64), "odd": (4, 4, 37, 37),
    "shared heads": (4, 2, 64, 64), "shared, odd": (6, 2, 37, 37),
    "a cache": (4, 4, 5, 37), "shared, a cache": (4, 1, 5, 37),
    "one query": (4, 2, 1, 37)}
"""(H, G, T, S) of the rows of `deviations`."""


class Deviation(NamedTuple):
    """One backend on one case, beside the formula in float64."""

    backend: str
    dtype: str
    case: str
    """One of `CASES`."""
    output: float | None
    """Largest difference, over the largest number; None: it cannot run."""
    gradient: float | None
    """The same, the worst of the gradients of q, k and v."""
    note: str
    """The kernel that ran, or why none did."""


def deviations(device: str = "cpu") -> list[Deviation]:
    """Every backend on every case in 32 and 16 bits, against float64.

    Chapter: notebooks/12_efficiency.ipynb
    """
    return [
        _deviation(backend, dtype, case, device)
        for backend in ("eager", "tiled", "sdpa", "xformers")
        for dtype in (torch.float32, torch.bfloat16) for case in CASES]


def _deviation(
    backend: Backend, dtype: torch.dtype, case: str, device: str
) -> Deviation:
    heads, groups, queries, keys = CASES[case]
    draw, k_size = torch.Generator().manual_seed(0), 16
    narrow = [torch.randn(2, h, t, k_size, generator=draw).to(device, dtype)
              for h, t in ((heads, queries), (groups, keys), (groups, keys))]
    row = backend, str(dtype).removeprefix("torch."), case
    try:
        ran = profiling.kernels(lambda: attend(*narrow, backend=backend))
        got = _with_gradients(narrow, backend)
    except ValueError as reason:
        return Deviation(*row, None, None, str(reason))
    want = _with_gradients([x.cpu().double() for x in narrow], "eager")
    gaps = [((a.cpu().double() - b).abs().max() / b.abs().max()).item()
            for a, b in zip(got, want)]
    return Deviation(*row, gaps[0], max(gaps[1:]), " ".join(ran))


def _with_gradients(tensors: list[Tensor], backend: Backend) -> list[Tensor]:
    """The output, and the gradients of half the sum of its squares."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = attend(*leaves, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, out.detach())]
