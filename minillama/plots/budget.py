"""Pictures of budgets: the valley of equal bills, curves, two bills that meet.

Chapter: notebooks/18_budget.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minillama.planner.budget import (
    Law, cheapest, crossover, serving_flops, training_flops)
from minillama.plots import COLOURS, figure, show, slider

Model = tuple[float, float]
"""Parameters, and training tokens."""


def valley(law: Law, made: dict[str, Model]) -> None:
    """Size against tokens: lines of one bill, the best of each, real models.

    Args:
        law: whose losses colour the ground.
        made: name to (parameters, tokens).
    """
    picture, axes = figure(height=4.2)
    n, d = np.logspace(9, 12, 120), np.logspace(10, 13, 120)
    axes.contourf(n, d, law.loss(n[None], d[:, None]), levels=14,
                  cmap="Blues_r", alpha=0.7)
    ridge = []
    for flops in (1e21, 1e22, 1e23, 1e24, 1e25):
        axes.plot(n, flops / 6 / n, ":", color="0.25", lw=1)
        ridge.append(law.optimum(flops))
    axes.plot(*zip(*ridge), "o-", color=COLOURS[1], ms=5,
              label="best of each bill")
    for name, (size, tokens) in made.items():
        axes.plot(size, tokens, "s", color="black", ms=5)
        # Two of them nearly coincide: one label above, one below.
        below = name == "Chinchilla"
        axes.annotate(name, (size, tokens), fontsize=10, ha="center",
                      xytext=(26 if below else -12, -15 if below else 7),
                      textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlim=(1e9, 1e12), ylim=(1e10, 1e13),
             xlabel="parameters", ylabel="training tokens")
    axes.grid(False)
    axes.legend(loc="lower left")
    show(picture, alt="Parameters across, training tokens up, both in powers "
         "of ten; dotted lines fall from left to right, each one bill. A "
         "line of their best points climbs steadily. " + ", ".join(made)
         + " are marked; the smallest LLaMA lies far above that line, the "
         "largest on it, GPT-3 far below.")


def fitted(curves: dict[str, dict[int, float]], sizes: dict[str, int],
           law: Law) -> None:
    """Points of loss curves, and a law through them.

    Args:
        curves: name to loss at so many billions of tokens.
        sizes: parameters by name.
        law: drawn as lines.
    """
    picture, axes = figure(height=3.4)
    for (name, curve), colour in zip(curves.items(), COLOURS):
        axes.plot(list(curve), list(curve.values()), "o", ms=4, color=colour,
                  label=name)
        x = np.linspace(min(curve), max(curve), 60)
        axes.plot(x, law.loss(sizes[name], x * 1e9), color=colour, lw=1)
    axes.set(xlabel="tokens (billions)", ylabel="training loss (nats)")
    axes.legend(ncols=2)
    show(picture, alt="Four rows of points that fall from left to right, the "
         "larger model always lower, each with a line of the fitted law that "
         "keeps within a few hundredths of it.")


def verdicts(best: dict[str, dict[str, float]], chosen: dict[str, float]
             ) -> None:
    """Best size by law, for the bills of real models.

    Args:
        best: law to (model to best parameters).
        chosen: model to the parameters it really has.
    """
    picture, axes = figure(height=3.4)
    places = np.arange(len(chosen))
    width = 0.8 / (len(best) + 1)
    rows = {**best, "LLaMA's choice": chosen}
    for number, ((law, values), colour) in enumerate(zip(
            rows.items(), (*COLOURS[:len(best)], "black"))):
        axes.bar(places + (number - len(best) / 2) * width,
                 [values[name] / 1e9 for name in chosen], width,
                 label=law, color=colour)
    axes.set_xticks(places, [f"bill of {name}" for name in chosen])
    axes.tick_params("x", labelsize=10)
    axes.set(yscale="log", ylabel="best size (billions)", ylim=(5, 100))
    axes.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.legend(loc="upper left", ncols=2, bbox_to_anchor=(-0.1, 1.3))
    axes.grid(False, axis="x")
    show(picture, alt="For the bill of each LLaMA, bars with the best size by "
         + ", ".join(best) + ", and the size that was chosen: " + "; ".join(
             f"{name}: " + ", ".join(f"{rows[law][name] / 1e9:.0f}B"
                                     for law in rows) for name in chosen)
         + ".")


def bills(small: Model, large: Model, names: tuple[str, str]) -> None:
    """Total operations of two equally good models over served tokens."""
    meet = float(crossover(small, large))
    picture, axes = figure(height=3.4)
    served = np.linspace(0, 3 * meet, 100)
    for model, name, colour in zip((small, large), names, COLOURS):
        total = training_flops(*model) + serving_flops(model[0], served)
        axes.plot(served / 1e12, total / 1e22, label=name, color=colour)
    bill = training_flops(*small) + serving_flops(small[0], meet)
    axes.plot(meet / 1e12, bill / 1e22, "o", color="black")
    axes.annotate(f"{meet / 1e12:.2f} trillion", (meet / 1e12, bill / 1e22),
                  xytext=(8, -14), textcoords="offset points")
    axes.set(xlabel="served tokens (trillions)", ylim=(0, None),
             ylabel="training + serving ($10^{22}$ op.)")
    axes.legend()
    show(picture, alt=f"Two rising lines: {names[1]} begins lower and rises "
         f"faster than {names[0]}; they cross at {meet / 1e12:.2f} trillion "
         "served tokens.")


def by_size(law: Law, loss: float, served: Sequence[float],
            marks: dict[str, float]) -> None:
    """A slider of served tokens: what each size costs for the same loss.

    Args:
        law: of loss.
        loss: that every size has to reach.
        served: tokens, one frame each.
        marks: name to parameters of sizes worth a mark.
    """
    n = np.logspace(9.4, 11.3, 400)
    trained = training_flops(n, law.tokens_for(loss, n))
    frames = []
    for tokens in served:
        picture, axes = figure(height=3.4)
        use = serving_flops(n, tokens)
        total = trained + use
        best, _ = cheapest(law, loss, tokens)
        axes.plot(n, total, color="black", label="together")
        axes.plot(n, trained, "--", color=COLOURS[0], label="training")
        axes.plot(n, use, "--", color=COLOURS[1], label="serving")
        axes.axvline(best, color=COLOURS[2], lw=1.2)
        axes.text(best * 1.05, 1.35e22, f"{best / 1e9:.1f}B", color=COLOURS[2])
        for name, size in marks.items():
            height = np.interp(size, n, np.nan_to_num(total, posinf=1e26))
            axes.plot(size, height, "s", color="black", ms=5)
            axes.annotate(name, (size, height * 1.15), ha="center",
                          va="bottom", rotation=90, fontsize=10)
        axes.set(xscale="log", yscale="log", ylim=(1e22, 1e24),
                 xlabel="parameters", ylabel="operations for the same loss")
        axes.legend(loc="lower right")
        frames.append((f"{tokens / 1e12:g} trillion tokens served", picture))
    slider(frames, label="served tokens",
           alt="Operations over size for one loss: training falls and then "
           "rises, serving rises with size, and the cheapest size moves to "
           "the left as more is served.")
