"""Pictures of many processes: who holds what, who sends what, what fits.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minillama.plots import COLOURS, figure, show, slider

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from minillama.layout import Layout
    from minillama.planner.dry_run import Traffic
    from minillama.planner.layouts import Plan

AXIS_COLOURS = {"tensor": COLOURS[1], "shards": COLOURS[0],
                "copies": COLOURS[2]}


def holders(layout: Layout) -> None:
    """Which part of one matrix each GPU holds, one small square a GPU.

    Args:
        layout: of at most 16 GPUs.
    """
    across = layout.tensor_parallel * layout.dp_shard
    picture, axes = figure(layout.dp_replicate, across, squeeze=False,
                           height=1.5 * layout.dp_replicate + 0.6)
    for rank in range(layout.world_size):
        copy, rest = divmod(rank, across)
        shard, tensor = divmod(rest, layout.tensor_parallel)
        spot = axes[copy][rest]
        _part(spot, shard, layout.dp_shard, tensor, layout.tensor_parallel)
        spot.set_title(f"GPU {rank}")
    for copy, row in enumerate(axes):
        row[0].set_ylabel(f"copy {copy}")
    show(picture, alt=f"{layout.world_size} squares, one a GPU, in "
         f"{layout.dp_replicate} rows. In each one part of a matrix is "
         "coloured; in a row no two are the same, and the rows are alike.")


def _part(axes: Axes, shard: int, shards: int, tensor: int,
          tensors: int) -> None:
    """A square in which this GPU's part is full."""
    from matplotlib.patches import Rectangle

    for s in range(shards):
        for t in range(tensors):
            mine = (s, t) == (shard, tensor)
            axes.add_patch(Rectangle(
                (t / tensors, 1 - (s + 1) / shards), 1 / tensors, 1 / shards,
                fc=COLOURS[(s * tensors + t) % 6] if mine else "0.93",
                ec="0.6"))
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal")
    axes.grid(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)


def messages(
    runs: Sequence[tuple[str, Layout, Sequence[Traffic]]]
) -> None:
    """Who sent what to whom in one step, a frame a layout, under a slider.

    Args:
        runs: a name, the layout, and the recorded messages of one GPU; the
            others send the same along their own groups.
    """
    slider([(name, _circle(layout, traffic))
            for name, layout, traffic in runs], label="layout",
           alt="Numbered GPUs on a circle. Lines join those that exchange "
           "messages, thicker for more bytes, coloured by what for.")


def _circle(layout: Layout, traffic: Sequence[Traffic]) -> Any:
    """One layout: GPUs on a circle, a ring of lines a group."""
    import math

    picture, axes = figure(height=3.6)
    n = layout.world_size
    spots = [(math.sin(2 * math.pi * (i + 0.5) / n),
              math.cos(2 * math.pi * (i + 0.5) / n)) for i in range(n)]
    received: dict[str, float] = {}
    for entry in traffic:
        if entry.axis in AXIS_COLOURS:
            received[entry.axis] = received.get(
                entry.axis, 0) + entry.received
    for axis, size in received.items():
        for group in groups(layout, axis):
            _ring(axes, [spots[i] for i in group], AXIS_COLOURS[axis],
                  1 + 7 * size / max(received.values()))
    for rank, (x, y) in enumerate(spots):
        axes.text(x, y, str(rank), ha="center", va="center", fontsize=13,
                  bbox=dict(boxstyle="circle", fc="white", ec="black"))
    for axis, size in received.items():
        axes.plot([], [], lw=4, color=AXIS_COLOURS[axis],
                  label=f"{axis}: {size / 1e6:.2f} MB")
    axes.set(xlim=(-2.1, 2.1), ylim=(-1.5, 1.9), aspect="equal")
    axes.axis("off")
    axes.legend(loc="upper center", ncols=2, title="received by each GPU")
    return picture


def groups(layout: Layout, axis: str) -> list[list[int]]:
    """The ranks that talk to one another along an axis of the mesh."""
    step = {"tensor": 1, "shards": layout.tensor_parallel,
            "copies": layout.tensor_parallel * layout.dp_shard}[axis]
    size = {"tensor": layout.tensor_parallel, "shards": layout.dp_shard,
            "copies": layout.dp_replicate}[axis]
    firsts = [rank for rank in range(layout.world_size)
              if rank // step % size == 0]
    return [[first + step * i for i in range(size)] for first in firsts]


def _ring(axes: Axes, spots: Sequence[tuple[float, float]], colour: str,
          width: float) -> None:
    """Lines from each spot to the next, and from the last to the first."""
    for (x, y), (u, v) in zip(spots, [*spots[1:], spots[0]]):
        axes.plot([x, u], [y, v], color=colour, lw=width, alpha=0.7, zorder=0)


def sequence(peaks: Mapping[int, tuple[float, float]]) -> None:
    """What sequence parallelism saves, by tensor-parallel size.

    Args:
        peaks: GiB of activations by size: without it, with it.
    """
    picture, axes = figure(height=3.2)
    places = range(len(peaks))
    for shift, label, index, colour in (
            (-0.2, "stream whole on every GPU", 0, COLOURS[1]),
            (0.2, "stream dealt out", 1, COLOURS[0])):
        axes.bar([p + shift for p in places],
                 [pair[index] for pair in peaks.values()], 0.38,
                 label=label, color=colour)
    axes.set_xticks(places, list(peaks))
    axes.set(xlabel="GPUs that share a sequence",
             ylabel="GiB beyond weights and moments")
    axes.legend()
    show(picture, alt="Pairs of bars that fall from left to right. With the "
         "stream dealt out they keep falling; without it they level off.")


def layouts(plans: Sequence[Plan], room: float) -> None:
    """Every layout of a search: time of a step against memory.

    Args:
        plans: what `planner.layouts.search` found.
        room: GiB that a GPU has for us.
    """
    picture, axes = figure(height=3.8)
    sizes = sorted({p.layout.tensor_parallel for p in plans})
    for size, colour in zip(sizes, COLOURS):
        chosen = [p for p in plans if p.layout.tensor_parallel == size]
        axes.scatter([p.excess_gib + room for p in chosen],
                     [p.seconds for p in chosen], s=14, color=colour,
                     label=f"tensor {size}")
    axes.axvline(room, color="black", lw=1, ls="--")
    best = plans[0]
    axes.annotate(
        "fastest that fits", (best.excess_gib + room, best.seconds),
        xytext=(0.04, 0.05), textcoords="axes fraction",
        arrowprops=dict(arrowstyle="->"))
    axes.set(xscale="log", yscale="log", ylabel="seconds a step (estimated)",
             xlabel="GiB a GPU; the dashed line is what there is")
    axes.set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    axes.minorticks_off()
    axes.legend(loc="lower left", ncols=3, bbox_to_anchor=(0, 1))
    show(picture, alt="A cloud of points, one a layout. Left of a dashed "
         "line they fit; the lowest of those is marked.")


def overlap(lanes: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """What ran when, one lane a kind of work, from a real profile.

    Args:
        lanes: (start, end) in milliseconds, by the name of the lane.
    """
    picture, axes = figure(height=2.4)
    for row, (name, spans) in enumerate(lanes.items()):
        axes.broken_barh([(a, b - a) for a, b in spans], (row - 0.35, 0.7),
                         color=COLOURS[row])
    axes.set_yticks(range(len(lanes)), list(lanes))
    axes.set(xlabel="milliseconds since the backward pass began",
             ylim=(-0.6, len(lanes) - 0.4))
    axes.invert_yaxis()
    show(picture, alt="Two lanes of bars over time: computing above, "
         "all-reduces below, which begin before the upper bars end.")


def lanes(
    events: Sequence[tuple[str, float, float]]
) -> dict[str, list[tuple[float, float]]]:
    """A profile's events in two lanes, from the first one on.

    Args:
        events: name, start and end in milliseconds.
    """
    begun = min(start for name, start, _ in events
                if "all_reduce" not in name)
    found: dict[str, list[tuple[float, float]]] = {
        "backward": [], "all-reduce": []}
    for name, start, end in events:
        lane = "all-reduce" if "all_reduce" in name else "backward"
        found[lane].append((start - begun, end - begun))
    return found
