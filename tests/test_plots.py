"""Pictures: small PNG files, readable letters, a slider without a kernel.

Checked against the PNG format itself, the HTML as a parser sees it, and the
letters that matplotlib really drew.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import pkgutil
from html.parser import HTMLParser

import matplotlib as mpl
import pytest

from minillama import plots

mpl.use("agg")


@pytest.fixture
def shown(monkeypatch):
    """What was handed to IPython's display, in order."""
    import IPython.display

    items: list = []
    monkeypatch.setattr(IPython.display, "display",
                        lambda *args, **kwargs: items.append((args, kwargs)))
    return items


def line(height: float = 3.2):
    """A figure with a labelled line."""
    picture, axes = plots.figure(height=height)
    axes.plot([1, 3, 2])
    axes.set(xlabel="step", ylabel="loss", title="a curve")
    return picture


def size(png: bytes) -> tuple[int, int]:
    """Width and height, from the header of a PNG file."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return (int.from_bytes(png[16:20], "big"),
            int.from_bytes(png[20:24], "big"))


def test_a_shown_figure_is_a_small_png_with_its_text(shown):
    plots.show(line(), alt="A curve that rises, then falls.")
    ((data,), options), = shown
    png = base64.b64decode(data["image/png"])
    assert size(png) == (650, 416)
    assert len(png) < 15_000
    assert data["text/plain"] == "A curve that rises, then falls."
    assert options["metadata"]["image/png"]["alt"] == data["text/plain"]


def test_a_shown_figure_is_closed(shown):
    import matplotlib.pyplot as plt

    plt.close("all")
    plots.show(line(), alt="a curve")
    assert plt.get_fignums() == []


def test_every_letter_has_ten_points_or_more():
    from matplotlib.text import Text

    picture = line()
    picture.canvas.draw()  # only now do the ticks have their numbers
    letters = [item for item in picture.findobj(Text) if item.get_text()]
    assert len(letters) > 5
    assert min(item.get_fontsize() for item in letters) >= 10


def test_a_picture_without_words_is_refused(shown):
    with pytest.raises(ValueError, match="alt=''"):
        plots.show(line(), alt=" ")
    with pytest.raises(ValueError, match="alt=''"):
        plots.slider([("a", line()), ("b", line())], "k", alt="")
    with pytest.raises(ValueError, match="frames=1 must be at least 2"):
        plots.slider([("a", line())], "k", alt="a curve")
    assert shown == []


class Page(HTMLParser):
    """Collects the tags of a piece of HTML with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_slider_is_whole_html_that_shows_one_frame(shown):
    frames = [(f"k < {k}", line()) for k in range(3)]
    plots.slider(frames, 'the "knob"', alt="A curve.")
    (html,), _ = shown[0]
    page = Page(html.data)
    assert page.open == []
    figures, images = page.all("figure"), page.all("img")
    assert ["hidden" in figure for figure in figures] == [False, True, True]
    assert [image["alt"] for image in images] == [
        "A curve. k < 0", "A curve. k < 1", "A curve. k < 2"]
    knob, = page.all("input")
    assert (knob["type"], knob["min"], knob["max"], knob["value"]) == (
        "range", "0", "2", "0")
    assert all("max-width:100%" in image["style"] for image in images)
    for image in images:
        head, data = image["src"].split(",")
        assert head == "data:image/png;base64"
        size(base64.b64decode(data))
    # Nothing is fetched, and no id can clash with another slider's.
    assert "http" not in html.data and "id=" not in html.data
    assert not page.all("script")


def test_pictures_of_chapters_are_documented_and_lazy():
    for module in pkgutil.iter_modules(plots.__path__):
        name = f"minillama.plots.{module.name}"
        loaded = importlib.import_module(name)
        assert "matplotlib" not in vars(loaded), name
        for function in vars(loaded).values():
            if (inspect.isfunction(function) and function.__module__ == name
                    and not function.__name__.startswith("_")):
                assert function.__doc__, f"{name}.{function.__name__}"
