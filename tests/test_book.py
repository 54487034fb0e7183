"""The book: complete, one address, and built pages that work offline.

Checked against the built HTML itself: every link and picture is followed to a
file and an anchor, every style and script has to be a file of the book, and a
headless browser 390 pixels wide, where one is found, measures what sticks out
and whether the formulas were set. The tests marked `html` need a built book
and run last; without one they say so.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from minillama.show import ADDRESS, setup_cell
from tools import publish, tree
from tools.shell import ROOT, Failed

HTML = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))


def listed() -> list[str]:
    """The pages of the table of contents, in order."""
    return [TOC["root"], *(chapter["file"] for part in TOC["parts"]
                           for chapter in part["chapters"])]


def test_every_page_and_chapter_is_listed_once():
    pages = {path.with_suffix("").as_posix() for path in tree.files()
             if (path.parts[0] == "book" and path.suffix == ".md")
             or (path.parts[0] == "notebooks" and path.suffix == ".ipynb")}
    assert sorted(listed()) == sorted(pages)
    chapters = [page for page in listed() if page.startswith("notebooks/")]
    assert chapters == sorted(chapters)


def test_stored_outputs_are_shown_and_mathematics_needs_no_network():
    assert CONFIG["execute"] == {"execute_notebooks": "off"}
    assert "sphinx-mathjax-offline" in CONFIG["sphinx"]["extra_extensions"]
    assert {".venv", "_build", "**.ipynb_checkpoints"} <= set(
        CONFIG["exclude_patterns"])


def test_one_address_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    url = project["project"]["urls"]["Repository"]
    version = project["project"]["version"]
    assert CONFIG["repository"]["url"] == url
    assert ADDRESS == f"git+{url}@v{version}"
    assert setup_cell("07_rope").rstrip().endswith(ADDRESS)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["repository-code"] == url
    address = publish.address()
    # Any link to a repository of this name is a link to this one.
    found = re.compile(rf"github(?:\.com|usercontent\.com)?/([\w.-]+/"
                       rf"{re.escape(address.split('/')[1])})\b")
    for path in tree.files():
        if path.suffix in publish.KINDS and path.parts[0] != "tests":
            text = (ROOT / path).read_text("utf-8")
            for other in found.findall(text):
                assert other == address, path


def test_publish_as_moves_every_address(tmp_path):
    copy = tree.copy_tree(tmp_path / "copy")
    changed = publish.publish_as("ada-b/llama.book", copy)
    assert {Path(name) for name in (
        "pyproject.toml", "_config.yml", "CITATION.cff", "minillama/show.py",
    )} <= set(changed)
    old = publish.address()
    for path in tree.files():
        if path.suffix in publish.KINDS and path.parts[0] != "tests":
            assert f"github.com/{old}" not in (copy / path).read_text("utf-8")
    assert publish.address(copy) == "ada-b/llama.book"
    again = publish.publish_as(old, copy)
    assert set(again) == set(changed)
    for path in changed:
        assert (copy / path).read_bytes() == (ROOT / path).read_bytes()


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "https://x", "../x"])
def test_publish_as_refuses_what_is_no_address(name, tmp_path):
    with pytest.raises(Failed, match="write OWNER or OWNER/REPO"):
        publish.publish_as(name, ROOT)


def test_publish_as_takes_an_owner_alone(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = (tmp_path / "pyproject.toml").read_text("utf-8")
    old = publish.address()
    assert f"github.com/ada/{old.split('/')[1]}" in publish.rewritten(
        text, old, f"ada/{old.split('/')[1]}")


# ---------------------------------------------------------------- built pages


class Page(HTMLParser):
    """What a built page points to, its anchors, and its readable text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.images: list[dict] = []
        self.text = ""
        self._silent = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[key] for key in ("id", "name")
                         if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "img":
            self.images.append(values)
        loads = {"img": "src", "script": "src", "link": "href",
                 "iframe": "src"}
        if values.get(loads.get(tag, "")) and values.get("rel") != "canonical":
            self.loaded.append(values[loads[tag]])
        if tag in ("pre", "code", "script", "style"):
            self._silent += 1

    def handle_endtag(self, tag):
        if tag in ("pre", "code", "script", "style"):
            self._silent -= 1

    def handle_data(self, data):
        if not self._silent:
            self.text += data


@cache
def page(path: Path) -> Page:
    """A built page, parsed once."""
    return Page(path)


def built() -> list[Path]:
    """The built pages of the table of contents."""
    found = [HTML / f"{name}.html" for name in listed()]
    if not HTML.is_dir():
        pytest.skip("there is no built book; run `python run.py book`")
    return found


@pytest.mark.html
def test_every_page_was_built():
    assert [path for path in built() if not path.is_file()] == []
    assert (HTML / "index.html").is_file()


@pytest.mark.html
def test_links_lead_somewhere():
    broken = []
    for path in built():
        for link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (
                path.parent / unquote(parts.path)).resolve()
            anchor = unquote(parts.fragment)
            if not target.is_file():
                broken.append(f"{path.stem} -> {link}")
            elif (anchor and target.suffix == ".html"
                  and anchor not in page(target).anchors):
                broken.append(f"{path.stem} -> {link}: no such anchor")
    assert broken == []


@pytest.mark.html
def test_all_that_a_page_loads_is_part_of_the_book():
    wrong = []
    for path in built():
        for loaded in page(path).loaded:
            parts = urlsplit(loaded)
            if parts.scheme == "data":
                continue
            there = (path.parent / unquote(parts.path)).resolve()
            if parts.netloc or not there.is_file():
                wrong.append(f"{path.stem}: {loaded}")
    assert wrong == []


@pytest.mark.html
def test_every_picture_has_alternative_text():
    wrong = []
    for path in built():
        for image in page(path).images:
            words = image.get("alt") or ""
            if "logo" not in image.get("class", "") and (
                    not words or words.endswith(".png")):
                wrong.append(f"{path.stem}: {str(image)[:120]}")
    assert wrong == []


@pytest.mark.html
def test_no_directive_or_role_was_left_untranslated():
    pattern = re.compile(r"\{[a-z:]+\}`|```|^:::|\{code-cell\}|\{note\}",
                         re.M)
    left = [f"{path.stem}: {hit.group(0)}" for path in built()
            for hit in pattern.finditer(page(path).text)]
    assert left == []


def browser() -> str | None:
    """A headless browser of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


MEASURE = """<!doctype html><meta charset="utf-8"><body><script>
const pages = PAGES, found = {};
const frame = document.createElement("iframe");
frame.style = "width:390px;height:1500px;border:0";
document.body.append(frame);

// What sticks out and cannot be scrolled sideways.
function outside(page) {
  const list = [];
  for (const item of page.querySelectorAll("article *")) {
    const box = item.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= 391) continue;
    let above = item, free = true;
    while ((above = above.parentElement) && free) {
      const style = frame.contentWindow.getComputedStyle(above);
      if (style.overflowX != "visible" && above != page.body) free = false;
    }
    if (free) list.push(item.tagName + "." + item.className + " " +
      Math.round(box.right) + ": " + item.textContent.trim().slice(0, 50));
  }
  return list.slice(0, 5);
}
async function look(address) {
  await new Promise(done => { frame.onload = done; frame.src = address; });
  const view = frame.contentWindow, page = frame.contentDocument;
  if (view.MathJax?.startup?.promise) await view.MathJax.startup.promise;
  found[address] = {
    wide: page.documentElement.scrollWidth, outside: outside(page),
    formulas: page.querySelectorAll(".math").length,
    set: page.querySelectorAll("mjx-container").length };
}
(async () => {
  for (const address of pages) await look(address);
  const text = document.createElement("textarea");
  text.textContent = "RESULT" + JSON.stringify(found) + "RESULT";
  document.body.append(text);
})();
</script></body>"""


@pytest.fixture(scope="module")
def measured() -> dict[str, dict]:
    """What the browser found on every page at 390 pixels."""
    program = browser()
    if program is None:
        pytest.skip("no chromium or chrome was found on this machine")
    names = [path.relative_to(HTML).as_posix() for path in built()]
    measure = HTML / "_measure.html"
    measure.write_text(MEASURE.replace("PAGES", json.dumps(names)),
                       encoding="utf-8")
    try:
        done = subprocess.run(
            [program, "--headless", "--no-sandbox", "--disable-gpu",
             "--allow-file-access-from-files", "--window-size=800,1600",
             "--virtual-time-budget=300000", "--dump-dom",
             measure.as_uri()],
            capture_output=True, timeout=300, check=False)
    finally:
        measure.unlink()
    text = done.stdout.decode("utf-8")
    assert text.count("RESULT") >= 4, "the browser did not finish"
    import html

    return json.loads(html.unescape(text.split("RESULT")[-2]))


@pytest.mark.html
def test_nothing_sticks_out_of_a_phone(measured):
    wide = {name: result["outside"] or result["wide"]
            for name, result in measured.items()
            if result["outside"] or result["wide"] > 390}
    assert wide == {}


@pytest.mark.html
def test_formulas_are_set_without_a_network(measured):
    assert sum(result["formulas"] for result in measured.values()) > 0
    for name, result in measured.items():
        assert result["set"] >= result["formulas"], name
