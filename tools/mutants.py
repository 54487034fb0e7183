"""Break the code once for every test file, and see that file fail.

`tests/mutants/test_NAME.patch` is a small diff against the package. In a copy
of this folder each is applied, `tests/test_NAME.py` is run and has to fail,
and the patch is taken back. A test that cannot fail is found this way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.shell import ROOT
from tools.tree import copy_tree


def survives(patch: Path, copy: Path) -> str | None:
    """Why this mutant was not caught, or None if it was.

    Args:
        patch: the diff; its name is that of the test file.
        copy: a copy of the repository to break.
    """
    test = copy / "tests" / f"{patch.stem}.py"
    if not test.is_file():
        return f"there is no tests/{test.name}"
    if _apply(patch, copy):
        return "the patch does not apply any more"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
         str(test)],
        cwd=copy, capture_output=True, check=False,
        # Programs that a test starts must see the broken copy too.
        env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"})
    assert not _apply(patch, copy, "--reverse"), "a patch that applied"
    if ran.returncode == 1:
        return None
    if ran.returncode == 0:
        return "every test passed"
    # Neither a pass nor a failed test: the mutant broke the file's imports.
    output = ran.stdout.decode("utf-8", "replace")
    return f"pytest ended with {ran.returncode}:\n{output[-1500:]}"


def _apply(patch: Path, copy: Path, *flags: str) -> int:
    """git's exit code."""
    return subprocess.run(
        ["git", "apply", *flags, str(patch)], cwd=copy, capture_output=True,
        check=False).returncode


def main(names: list[str]) -> int:
    """Try the named mutants, or all; return the exit code."""
    folder = ROOT / "tests" / "mutants"
    wanted = [f"test_{n.removeprefix('test_').removesuffix('.patch')}"
              for n in names]
    patches = ([folder / f"{name}.patch" for name in wanted]
               or sorted(folder.glob("*.patch")))
    alive = 0
    with tempfile.TemporaryDirectory() as temporary:
        copy = copy_tree(Path(temporary) / "copy")
        # Some tests ask git which files there are.
        subprocess.run(["git", "init", "--quiet", str(copy)], check=True)
        for patch in patches:
            reason = (survives(patch, copy) if patch.is_file()
                      else "there is no such patch")
            print(f"{patch.stem}: {reason or 'caught'}", flush=True)
            alive += reason is not None
    print(f"{len(patches) - alive} of {len(patches)} mutants were caught.")
    return min(alive, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
