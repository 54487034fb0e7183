"""Fill the wheel room: unpack the wheel, lend packages, close the door.

Run by `tools/environment.py` with the Python of the first environment:
`python -m tools.wheel_room ROOM WHEEL`.
"""

from __future__ import annotations

import json
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from minillama import show

# Besides what the wheel asks for: what Colab has, and what runs nbval.
VISITORS = ("matplotlib", "ipykernel", "ipywidgets", "nbval", "pytest",
            "pytest-xdist", "pip", "setuptools", "ipyparallel")

DOOR = '''"""Let in what the wheel asks for; made by tools/wheel_room.py."""

import sys
from importlib.machinery import PathFinder

CLOSED = frozenset({closed!r})


class Door(PathFinder):
    """Find everything but the packages that the wheel does not ask for."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """As if a closed package were not there at all."""
        if name.partition(".")[0] in CLOSED:
            return None
        return super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Door
sys.path.append({lender!r})
'''


def closure(names: list[str]) -> set[str]:
    """These distributions and all that they require, as `name` or `name[x]`.

    Extras are followed only where they are asked for.
    """
    seen: set[str] = set()
    while names:
        asked = Requirement(names.pop())
        name = canonicalize_name(asked.name)
        if (key := f"{name}{sorted(asked.extras)}") in seen:
            continue
        seen |= {key, name}
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another system, or optional
        for text in required:
            need = Requirement(text)
            if need.marker is None or any(
                    need.marker.evaluate({"extra": extra})
                    for extra in ("", *asked.extras)):
                need.marker = need.url = None
                names.append(str(need))
    return seen


def fill(room: Path, wheel: Path) -> None:
    """Make `room` hold the wheel and lend it what the wheel asks for."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = (room / "Lib" if sys.platform == "win32"
            else room / "lib" / version) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The extras that some chapter's first cell installs.
    extras = ",".join(sorted(set(show.EXTRAS.values())))
    open_to = closure([f"minillama[{extras}]", *VISITORS])
    packages = metadata.packages_distributions()
    closed = sorted(
        name for name, owners in packages.items()
        if not any(canonicalize_name(owner) in open_to for owner in owners))
    (site / "door.py").write_text(
        DOOR.format(closed=closed, lender=sysconfig.get_path("purelib")),
        encoding="utf-8")
    (site / "door.pth").write_text("import door\n", encoding="utf-8")
    (room / "closed.json").write_text(json.dumps(closed), encoding="utf-8")


if __name__ == "__main__":
    fill(Path(sys.argv[1]), Path(sys.argv[2]))
