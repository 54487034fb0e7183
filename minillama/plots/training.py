"""Pictures of training: without grids, which double the bytes of a PNG.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minillama.plots import COLOURS, figure, show


def save_loss_curve(records: list[dict[str, Any]], path: Path) -> None:
    """Training and validation loss over the steps, as a PNG file.

    Args:
        records: lines of metrics.jsonl.
        path: the file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.subplots()
    for key, label in (("loss", "training"), ("val_loss", "validation")):
        points = [(r["step"], r[key]) for r in records
                  if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points), label=label, linewidth=1.2)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats per token)")
    axes.legend()
    picture.savefig(path, dpi=120)


def draw_step() -> None:
    """The six parts of one training step, and what each of them changes."""
    picture, axes = figure(height=4.0)
    parts = (
        ("1  learning rate", "from the step's number", 0),
        ("2  forward, loss, backward", "for each micro-batch: adds to g", 1),
        ("3  clip", "shrinks g to length 1 at most", 1),
        ("4  finite?", "if not: stop, nothing is changed", 3),
        ("5  update", "moves m, v and the weights", 2),
        ("6  forget", "sets g back to zero", 1))
    for place, (name, what, colour) in enumerate(parts):
        y = -place
        axes.add_patch(_box(0.0, y, COLOURS[colour]))
        axes.text(0.3, y + 0.12, name, weight="bold", va="center")
        axes.text(0.3, y - 0.2, what, va="center", fontsize=10)
        if place:
            axes.annotate(
                "", (2.4, y + 0.40), (2.4, y + 0.60),
                arrowprops={"arrowstyle": "-|>", "color": "black"})
    axes.annotate(
        "", (4.85, 0.0), (4.85, -5.0),
        arrowprops={"arrowstyle": "-|>", "color": "0.4", "linestyle": "--",
                    "connectionstyle": "bar,fraction=0.08"})
    axes.text(5.4, -2.5, "next batch", rotation=90, va="center",
              color="0.3")
    axes.set(xlim=(-0.1, 5.7), ylim=(-5.6, 0.6))
    axes.axis("off")
    show(picture, alt=(
        "A column of six boxes, one below the other: learning rate; "
        "forward, loss, backward; clip; finite?; update; forget. An arrow "
        "leads from the last back to the first with the next batch."))


def _box(x: float, y: float, colour: str) -> Any:
    """A rounded box of the step's picture."""
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (x + 0.1, y - 0.36), 4.6, 0.72, facecolor=colour, alpha=0.25,
        boxstyle="round,pad=0.02,rounding_size=0.12", edgecolor=colour)


def draw_schedule(lines: dict[str, tuple[list[int], list[float]]]) -> None:
    """Learning rate over the steps.

    Args:
        lines: steps and learning rates by name.
    """
    picture, axes = figure(height=2.8)
    for number, (name, (steps, rates)) in enumerate(lines.items()):
        axes.plot([step / 1000 for step in steps], rates, label=name,
                  linestyle=("-", "--", ":")[number % 3])
    axes.set(xlabel="thousand steps", ylabel="learning rate")
    axes.grid(visible=False)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.legend()
    show(picture, alt=(
        "Learning rate over the steps: a steep straight climb at the left "
        "edge, then half a cosine down to a tenth of the peak."))


def draw_order(orders: dict[str, list[int]]) -> None:
    """Which window of the text is read when.

    Args:
        orders: for each name the window read at each sample number.
    """
    picture, axes = figure(1, len(orders), height=2.8, sharey=True)
    for axis, (name, order) in zip(axes, orders.items()):
        axis.plot(range(len(order)), order, ".", markersize=3)
        axis.set(title=name, xlabel="sample number")
        axis.grid(visible=False)
    axes[0].set(ylabel="window of the text")
    show(picture, alt=(
        "Two clouds of points without pattern: in each epoch every window "
        "is read once, and the second epoch has another order."))


def draw_failures(
    curves: dict[str, list[float]],
    start: float,
    new_text: dict[str, list[float]],
) -> None:
    """Small loss curves, one panel for each way to fail.

    Args:
        curves: training loss step by step, by name.
        start: ln V, drawn as a dotted line.
        new_text: for some of the names, loss on unseen text now and then.
    """
    picture, grid = figure(3, 2, height=5.4, sharex=True, sharey=True)
    for axis, (name, losses) in zip(grid.flat, curves.items()):
        axis.axhline(start, color="0.5", linestyle=":", linewidth=1)
        axis.plot(range(1, len(losses) + 1), losses)
        axis.set_title(name)
        axis.grid(visible=False)
        if name in new_text:
            every = len(losses) // len(new_text[name])
            steps = range(every, len(losses) + 1, every)
            line, = axis.plot(steps, new_text[name], "--")
            axis.text(0.98, 0.72, "new text", color=line.get_color(),
                      transform=axis.transAxes, ha="right")
    grid.flat[0].set_ylim(0, 1.7 * start)
    for axis in grid[-1]:
        axis.set_xlabel("step")
    for axis in grid[:, 0]:
        axis.set_ylabel("loss")
    show(picture, alt=(
        "Six panels of loss over steps: " + ", ".join(curves)
        + ". A dotted line marks ln V. Only the first falls fast and "
        "smoothly; what the others do is said below the picture."))


def draw_norms(norms: dict[str, dict[str, list[float]]]) -> None:
    """Sizes by layer, on a logarithmic scale.

    Args:
        norms: for each panel, the values of each line, layer by layer.
    """
    picture, axes = figure(len(norms), 1, height=2.4 * len(norms),
                           sharex=True)
    for axis, (title, lines) in zip(axes, norms.items()):
        for marker, (name, values) in zip("osD", lines.items()):
            axis.semilogy(range(len(values)), values, marker + "-",
                          markersize=4, label=name)
        axis.set(ylabel=title)
        axis.grid(visible=False)
    axes[-1].legend()
    axes[-1].set(xlabel="layer")
    show(picture, alt=(
        "Two panels over the layers, on a logarithmic scale: "
        + "; ".join(norms) + ", with a line each for "
        + " and ".join(next(iter(norms.values()))) + "."))


def rate_frames(
    runs: dict[float, list[float]], start: float
) -> list[tuple[str, Any]]:
    """A frame for each learning rate, all with the same axes.

    Args:
        runs: loss by step for each peak learning rate.
        start: ln V, drawn as a dotted line.
    """
    frames = []
    for rate in runs:
        picture, axes = figure(height=3.0)
        axes.plot(range(1, len(runs[rate]) + 1), runs[rate])
        axes.axhline(start, color="0.5", linestyle=":", linewidth=1)
        axes.set(xlabel="step", ylabel="loss", ylim=(2.5, 8))
        axes.grid(visible=False)
        frames.append((f"peak learning rate {rate:g}", picture))
    return frames


def draw_differences(pairs: dict[str, dict[str, float]]) -> None:
    """What each replacement does to the held-out text, with its interval.

    Args:
        pairs: `mean`, `low` and `high` in bits per byte by name.
    """
    picture, axes = figure(height=0.57 * len(pairs) + 1.1)
    axes.axvline(0, color="0.4", linewidth=1)
    for place, (name, d) in enumerate(pairs.items()):
        sure = d["low"] > 0 or d["high"] < 0
        axes.plot([d["low"], d["high"]], [-place, -place], linewidth=3,
                  color=COLOURS[0] if sure else "0.6",
                  solid_capstyle="butt")
        axes.plot(d["mean"], -place, "o", markersize=6,
                  color=COLOURS[0] if sure else "0.6")
        axes.text(0.0, -place + 0.24, name, ha="left", fontsize=10,
                  transform=axes.get_yaxis_transform())
    axes.set(yticks=[], ylim=(0.6 - len(pairs), 0.7),
             xlabel="bits per byte more than LLaMA's choice")
    axes.grid(visible=False)
    show(picture, alt=(
        "A row for each replacement: the mean difference in held-out bits "
        "per byte as a dot on its 95 per cent interval; grey where the "
        "interval contains zero."))


def draw_runs(results: dict[str, Any], panels: list[tuple[str, str]]) -> None:
    """Loss curves of pairs of arms: mean over the seeds, and their range.

    Args:
        results: what `ablations.results` returns.
        panels: two arms each.
    """
    import numpy as np

    rows = -(-len(panels) // 2)
    picture, grid = figure(rows, 2, height=2.4 * rows, sharey=True)
    for axis, arms in zip(grid.flat, panels):
        for arm in arms:
            runs = [r for r in results["runs"] if r["arm"] == arm]
            curves = np.array([r["curve"] for r in runs])
            steps = np.linspace(0, results["settings"][arm]["steps"],
                                curves.shape[1] + 1)[1:]
            line, = axis.plot(steps, curves.mean(axis=0), label=arm)
            axis.fill_between(steps, curves.min(axis=0), curves.max(axis=0),
                              color=line.get_color(), alpha=0.25,
                              linewidth=0)
        axis.legend(frameon=False, handlelength=1, loc="upper right")
        axis.grid(visible=False)
    for axis in grid[-1]:
        axis.set_xlabel("step")
    for axis in grid[:, 0]:
        axis.set_ylabel("loss")
    show(picture, alt=(
        "Loss over steps in small panels, two arms each: "
        + "; ".join(" and ".join(arms) for arms in panels)
        + ". Lines are means over five seeds, bands their range."))


def draw_costs(results: dict[str, Any], arms: list[str]) -> None:
    """Training loss over training operations, for models of any size.

    Args:
        results: what `ablations.results` returns.
        arms: which to draw.
    """
    import numpy as np

    picture, axes = figure(height=2.6)
    for arm in arms:
        runs = [r for r in results["runs"] if r["arm"] == arm]
        curves = np.array([r["curve"] for r in runs])
        spent = np.linspace(0, runs[0]["training_flops"] / 1e12,
                            curves.shape[1] + 1)[1:]
        answer = runs[0]["inference_flops_per_token"] / 1e6
        line, = axes.plot(
            spent, curves.mean(axis=0),
            label=f"{arm} ({answer:.2f} MFLOP a token)")
        axes.fill_between(spent, curves.min(axis=0), curves.max(axis=0),
                          color=line.get_color(), alpha=0.25, linewidth=0)
    axes.set(xlabel="training operations (TFLOP)", ylabel="training loss")
    axes.grid(visible=False)
    axes.legend()
    show(picture, alt=(
        "Training loss over training operations for "
        + " and ".join(arms) + "; both end at the same number of "
        "operations."))


def draw_paper_losses(losses: dict[str, dict[int, float]]) -> None:
    """The curves of Figure 1 of the paper, from points read off it.

    Args:
        losses: by model, training loss at so many billion tokens.
    """
    picture, axes = figure(height=3.0)
    for (name, points), marker in zip(losses.items(), "osD^"):
        axes.plot(list(points), list(points.values()), marker + "-",
                  markersize=4, label=name)
    axes.set(xlabel="billion tokens", ylabel="training loss")
    axes.grid(visible=False)
    axes.legend(ncols=4, loc="upper center", columnspacing=1,
                handletextpad=0.4, bbox_to_anchor=(0.5, 1.2))
    show(picture, alt=(
        "Training loss over billions of tokens for 7B, 13B, 33B and 65B: "
        "four falling curves, the larger model always lower, none flat at "
        "its end."))
