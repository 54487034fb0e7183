"""The folder .venv: made once, and again when what it should hold changes.

Standard library only, because this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

from tools.shell import ROOT, Failed, call

VENV = ROOT / ".venv"
STAMP = VENV / "installed-from.txt"
ROOM = ROOT / "build" / "wheel-room"
READING = "book,data,hf"
"""What a reader of the chapters needs."""
TESTING = "book,test"
"""What the tests compare with besides; holds all that reading needs."""


def fingerprint(extras: str) -> str:
    """Changes with everything that decides what is installed."""
    text = f"{sys.version} {sys.platform} {VENV} {extras}".encode()
    for name in ("pyproject.toml", "constraints.txt"):
        # Line ends differ between systems, and mean nothing here.
        text += (ROOT / name).read_bytes().replace(b"\r\n", b"\n")
    return hashlib.sha256(text).hexdigest()


def already_inside() -> bool:
    """Whether this Python has this very folder installed, as conda's has."""
    if sys.prefix == str(VENV):
        return False
    sources = [json.loads(found.read_text("direct_url.json") or "{}")
               for found in importlib.metadata.distributions(name="minillama")]
    return any(source.get("url") == ROOT.as_uri()
               and source.get("dir_info", {}).get("editable", False)
               for source in sources)


def ready(extras: str) -> bool:
    """Whether there is nothing to install."""
    return already_inside() or (
        STAMP.is_file() and STAMP.read_text(encoding="utf-8") in (
            fingerprint(extras), fingerprint(TESTING)))


def _program(folder: Path, name: str) -> Path:
    """The path of a program in a virtual environment."""
    if os.name == "nt":
        return folder / "Scripts" / f"{name}.exe"
    return folder / "bin" / name


def tool(name: str) -> Path:
    """A program of the environment, such as `jupyter-book`."""
    return _program(Path(sys.prefix) if already_inside() else VENV, name)


def python() -> Path:
    """The Python of the environment."""
    return Path(sys.executable) if already_inside() else tool("python")


def steps(step: Callable[..., object], extras: str) -> list:
    """What a plan says about installing: one line, or none."""
    if ready(extras):
        return []
    minutes, size = ((3, "500 MB") if extras == READING else (4, "1 GB"))
    more = ("; on Linux 3 GB more where pip picks torch for NVIDIA cards"
            if sys.platform == "linux" else "")
    return [step("make the folder .venv and install minillama and its tools",
                 f"{minutes} minutes on a fast line; downloads about {size}"
                 f"{more}", lambda: make(extras))]


def make(extras: str = TESTING) -> None:
    """Create .venv and install, unless that has been done."""
    if ready(extras):
        return
    if not (3, 11) <= sys.version_info[:2]:
        raise Failed(f"Python {sys.version.split()[0]} is too old; use 3.11, "
                     "3.12 or 3.13")
    if not ready(READING):  # else only the rest is missing
        try:
            venv.create(VENV, with_pip=True, clear=VENV.exists())
        except Exception as error:
            raise Failed(
                f"could not make {VENV.name} ({error}); on Debian and Ubuntu "
                "`sudo apt install python3-venv` helps") from error
        # The pip that Python ships misreads the extras of newer packages.
        pip("install", "--upgrade", "pip")
    pip("install", "-c", "constraints.txt", "-e", f".[{extras}]")
    STAMP.write_text(fingerprint(extras), encoding="utf-8")


def pip(*arguments: str) -> None:
    """Run the environment's pip, silent unless it fails."""
    call(python(), "-m", "pip", "--disable-pip-version-check", *arguments,
         quiet=True)


def wheel_room() -> Path:
    """A second environment that holds the built wheel, as Colab would.

    torch is not downloaded twice: packages come from the first environment,
    but only those that the wheel asks for, and the few that run a notebook.
    Anything else, this folder's source included, cannot be imported.

    Returns:
        The room's Python.
    """
    shutil.rmtree(ROOM, ignore_errors=True)
    venv.create(ROOM, with_pip=False)
    inside = _program(ROOM, "python")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        shutil.copytree(ROOT / "minillama", source / "minillama",
                        ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        pip("wheel", "--no-deps", "--wheel-dir", folder, str(source))
        call(python(), "-m", "tools.wheel_room", ROOM,
             next(Path(folder).glob("*.whl")))
    return inside
