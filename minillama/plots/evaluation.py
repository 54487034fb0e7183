"""Pictures of evaluation: four rulers, scores in training, the paper's lines.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minillama.evals.measures import NORMALISATIONS
from minillama.evals.protocol import Answer, Item
from minillama.plots import COLOURS, figure, show, slider

RULERS = {"none": "sum of nats", "character": "nats per character",
          "token": "nats per token",
          "unconditional": "gain over \"Answer:\""}
"""What each normalisation compares."""


def rulers(item: Item, answer: Answer) -> None:
    """One question under four normalisations, under a slider.

    Args:
        item: the question.
        answer: its scores, those of the baseline too.
    """
    frames = []
    for name, label in RULERS.items():
        values = NORMALISATIONS[name](item, answer)
        picture, axes = figure(height=2.6)
        best = values.index(max(values))
        bars = axes.barh(range(len(values)), values, color=[
            COLOURS[0] if n == best else "#cccccc"
            for n in range(len(values))])
        axes.bar_label(bars, [f"{v:.2f}" for v in values], padding=3)
        axes.set_yticks(range(len(values)), [
            f"{'right' if n == item.gold else 'wrong'}, "
            f"{len(choice)} letters"
            for n, choice in enumerate(item.choices)])
        axes.invert_yaxis()
        axes.margins(x=0.25)
        axes.set(xlabel=label)
        axes.axvline(0, color="black", lw=0.8)
        frames.append((name, picture))
    slider(frames, "normalisation", "Four bars, one a choice. The longest "
           "to the right is taken; which one that is changes with the "
           "normalisation.")


def spread(scores: dict[str, dict[str, tuple[float, float, float]]]) -> None:
    """Accuracy of one model under each normalisation, with its interval.

    Args:
        scores: task to normalisation to score, lower and upper end.
    """
    picture, axes = figure(height=3.4)
    names = list(RULERS)
    for n, (task, found) in enumerate(scores.items()):
        for m, name in enumerate(names):
            value, low, high = (100 * x for x in found[name])
            where = m + 0.38 * n - 0.19
            axes.bar(where, value, 0.36, color=COLOURS[n],
                     label=task if m == 0 else None)
            axes.plot([where, where], [low, high], color="black", lw=1.2)
    axes.axhline(25, color="black", ls="--", lw=1, label="chance")
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="right, in %", ylim=(0, 118))
    axes.legend(loc="upper center", ncols=3, frameon=False)
    show(picture, alt="Accuracy of the same model on two tasks under four "
         "normalisations, with intervals. On the lines it falls from over "
         "90 % to chance under the unconditional one; on the endings "
         "that one is the best.")


def evolution(points: Sequence[dict[str, Any]], tokens: int) -> None:
    """Held-out loss and scores of a small model over its training.

    Args:
        points: records with step, val_loss and `eval/NAME`.
        tokens: of one step.
    """
    picture, (top, low) = figure(2, height=4.6, sharex=True)
    seen = [p["step"] * tokens / 1e6 for p in points]
    top.plot(seen, [p["val_loss"] for p in points], marker="o", ms=4,
             color=COLOURS[0])
    top.set(ylabel="held-out loss,\nnats per token")
    for n, name in enumerate(sorted(p for p in points[0] if "/" in p)):
        low.plot(seen, [100 * p[name] for p in points], marker="o", ms=4,
                 color=COLOURS[n + 1], label=name.removeprefix("eval/"))
    low.axhline(25, color="black", ls="--", lw=1)
    low.set(xlabel="millions of tokens read", ylabel="right, in %")
    low.legend(frameon=False)
    show(picture, alt="Above, the held-out loss falls over the training. "
         "Below, the scores of two tasks: the lines start high, fall, and "
         "rise again; the endings creep from chance to a little above.")


def one_line(points: dict[str, Sequence[tuple[float, float]]],
             task: str) -> None:
    """Score against training loss, one colour a size of the paper.

    Args:
        points: size to pairs of loss and score.
        task: its name.
    """
    picture, axes = figure(height=3.4)
    for n, (size, pairs) in enumerate(points.items()):
        axes.plot(*zip(*pairs), marker="o", ms=4, color=COLOURS[n],
                  label=size)
    axes.invert_xaxis()
    axes.set(xlabel="training loss, falling to the right",
             ylabel=f"{task}, %")
    axes.legend(frameon=False, title="LLaMA")
    show(picture, alt=f"{task} against training loss for four model sizes: "
         "the four curves follow nearly one line, rising as the loss falls.")
