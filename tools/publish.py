"""Put the public address of the repository everywhere.

The address stands in one place, `[project.urls] Repository` in
pyproject.toml. `python run.py publish-as ada/minillama` rewrites it there and
in everything that follows from it; a test holds them equal.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from tools.shell import ROOT, Failed
from tools.tree import files

# Files that may hold the address. Sources of the package do too: the setup
# cell of every chapter stands in minillama/show.py.
KINDS = {".cff", ".ipynb", ".md", ".py", ".toml", ".yml"}
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"


def address(root: Path = ROOT) -> str:
    """OWNER/REPO, as pyproject.toml has it."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    url = tomllib.loads(text)["project"]["urls"]["Repository"]
    return url.removeprefix("https://github.com/")


def rewritten(text: str, old: str, new: str) -> str:
    """The text with the old address replaced wherever it is one.

    Args:
        text: of a file.
        old: OWNER/REPO.
        new: OWNER/REPO.
    """
    (owner, repo), (new_owner, new_repo) = old.split("/"), new.split("/")
    hosts = r"(github\.com/|\.com/github/|githubusercontent\.com/)"
    text = re.sub(rf"{hosts}{re.escape(old)}\b",
                  lambda found: found[1] + new, text)
    return text.replace(f"{owner}.github.io/{repo}",
                        f"{new_owner}.github.io/{new_repo}")


def publish_as(new: str, root: Path = ROOT) -> list[Path]:
    """Rewrite the address in every file below root; return those changed.

    Raises:
        Failed: if `new` is no GitHub name.
    """
    old = address(root)
    if re.fullmatch(NAME, new):
        new = f"{new}/{old.partition('/')[2]}"
    if not re.fullmatch(f"{NAME}/{NAME}", new):
        raise Failed(f"{new!r} is no address; write OWNER or OWNER/REPO, as "
                     "it will stand after the host's name")
    changed = []
    for path in files():
        if path.suffix not in KINDS:
            continue
        before = (root / path).read_bytes()
        after = rewritten(before.decode("utf-8"), old, new).encode("utf-8")
        if after != before:
            (root / path).write_bytes(after)
            changed.append(path)
    return changed


if __name__ == "__main__":
    try:
        for written in publish_as(sys.argv[1]):
            print(f"rewrote {written.as_posix()}")
    except Failed as failure:
        sys.exit(f"publish-as: {failure}")
