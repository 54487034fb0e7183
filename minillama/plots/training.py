"""Pictures of training.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_loss_curve(records: list[dict[str, Any]], path: Path) -> None:
    """Training and validation loss over the steps, as a PNG file.

    Args:
        records: lines of metrics.jsonl.
        path: the file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for key, label in (("loss", "training"), ("val_loss", "validation")):
        points = [(r["step"], r[key]) for r in records
                  if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points), label=label, linewidth=1.2)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats per token)")
    axes.legend()
    figure.savefig(path, dpi=120)
