"""Pictures of normalisation: sphere and circle, depth, the mean by size.

Chapter: notebooks/05_rmsnorm.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from minillama.plots import COLOURS, figure, show, slider

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sphere_and_circle(points: Tensor) -> None:
    """Three-dimensional points after RMSNorm and after LayerNorm.

    Args:
        points: (N, 3).
    """
    picture, axes = figure(
        1, 2, height=2.8, subplot_kw={"projection": "3d"})
    hue = torch.atan2(points[:, 1] - points[:, 2], points[:, 0])
    for panel, title, normed in (
            (axes[0], "RMSNorm: a sphere",
             F.rms_norm(points, (3,), eps=1e-12)),
            (axes[1], "LayerNorm: a circle",
             F.layer_norm(points, (3,), eps=1e-12))):
        panel.scatter(*normed.T, c=hue, cmap="twilight", s=7, alpha=0.9)
        panel.plot([-1.4, 1.4], [-1.4, 1.4], [-1.4, 1.4], color="0.2",
                   linewidth=1.4)
        panel.text(1.4, 0.75, 1.75, "mean", fontsize=10)
        panel.set(title=title, xlim=(-1.7, 1.7), ylim=(-1.7, 1.7),
                  zlim=(-1.7, 1.7), xticks=[], yticks=[], zticks=[],
                  xlabel="x", ylabel="y")
        panel.text(0, 1.9, 0.2, "z", fontsize=11)
        panel.set_box_aspect((1, 1, 1), zoom=1.15)
        panel.xaxis.labelpad = panel.yaxis.labelpad = -14
        panel.view_init(elev=12, azim=-20)
    show(picture, "Two three-dimensional scatter plots of the same points. "
         "After RMSNorm they cover a sphere; after LayerNorm they lie on one "
         "circle, at right angles to the direction in which x = y = z.")


def alike(sizes: Sequence[int] = (2, 3, 8, 32, 256, 4096)) -> None:
    """A slider: LayerNorm against RMSNorm, number by number, as D grows.

    Args:
        sizes: the widths D on the slider.
    """
    draw = torch.Generator().manual_seed(5)
    frames = []
    for size in sizes:
        x = torch.randn(max(1, 2048 // size), size, generator=draw)
        frames.append((f"D = {size}: one of {size} directions is dropped, "
                       f"{1 / size:.2%} of the whole", _alike_frame(x)))
    slider(frames, "width D of the vector",
           "RMSNorm's output to the right, LayerNorm's output upwards. With "
           "growing width the dots draw together on the diagonal.")


def _alike_frame(x: Tensor) -> Figure:
    """One dot per component: RMSNorm's output, LayerNorm's output."""
    picture, axes = figure(height=3.8)
    size = (x.shape[-1],)
    axes.plot([-3.4, 3.4], [-3.4, 3.4], color="0.6", linewidth=1)
    axes.scatter(F.rms_norm(x, size).flatten()[:2048],
                 F.layer_norm(x, size, eps=1e-12).flatten()[:2048],
                 s=6, alpha=0.5, color=COLOURS[0])
    axes.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal",
             xlabel="a number after RMSNorm",
             ylabel="the same after LayerNorm")
    return picture


def growth(sizes: Mapping[str, Sequence[float]]) -> None:
    """The size of the residual stream after each layer.

    Args:
        sizes: name of a stack -> root mean square after 0, 1, 2, ... layers.
    """
    picture, axes = figure(height=3.4)
    # Dashes, so that two curves that coincide are both seen.
    for (name, values), dash in zip(sizes.items(), ("-", "-", "--")):
        axes.plot(range(len(values)), values, dash, label=name,
                  linewidth=2)
    deepest = max(len(values) for values in sizes.values()) - 1
    axes.axhline(65504, color="0.4", linewidth=1, linestyle=":")
    axes.text(0.5, 65504 * 1.15, "largest number of fp16", fontsize=10,
              color="0.3")
    axes.set(yscale="log", xlabel="layers passed",
             ylabel="root mean square", xlim=(0, deepest))
    axes.legend(loc="center left")
    ends = "; ".join(f"{name} {values[-1]:.3g}"
                     for name, values in sizes.items())
    show(picture, f"The size of the stream over {deepest} layers, on a "
         f"logarithmic scale. At the end: {ends}.")


def epsilon(values: Sequence[float] = (1e-6, 1e-5)) -> None:
    """How large the output is, for small and large inputs.

    Args:
        values: the epsilons to compare.
    """
    picture, axes = figure(height=3.2)
    size = torch.logspace(-5, 1, 200)
    for eps in values:
        axes.plot(size, size / (size.square() + eps).sqrt(),
                  label=f"eps = {eps:.0e}")
    axes.axvline(0.02, color="0.4", linewidth=1, linestyle=":")
    axes.text(0.023, 0.05, "fresh embeddings", fontsize=10, color="0.3")
    axes.set(xscale="log", xlabel="root mean square of the input",
             ylabel="root mean square of the output")
    axes.legend(loc="upper left")
    half = ", ".join(f"{math.sqrt(eps):.2g}" for eps in values)
    show(picture, "Curves from 0 for tiny inputs to 1 for large ones. They "
         f"pass 0.71 where the input is as large as {half}.")
