"""What notebooks need to show the package's source, and to install it.

A chapter never holds a pasted copy of the package: `show(RMSNorm)` prints
what is really installed, so the page cannot fall behind the code.

The first code cell of every chapter is `setup_cell(chapter)`, and this is the
one place where it is written; `python run.py notebooks` puts it in.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

SETUP_CELL = """\
try:
    import minillama
except ImportError:  # on Colab: install this edition, once
    %pip install -q {packages}
"""
ADDRESS = "git+https://github.com/OWNER/minillama@v0.1.0"
"""This edition; never a branch, never a bare name of an index."""
EXTRAS = {"01_web_data": "data", "02_curated_data": "data",
          "03_mixture": "data", "11_generation": "hf"}
"""What a chapter needs besides the package's own dependencies."""
ALSO = {"13_scaling": "ipyparallel"}
"""Other packages that a chapter installs on Colab."""


def setup_cell(chapter: str) -> str:
    """The first code cell of a chapter, such as `07_rope`.

    Colab has torch, numpy and matplotlib; nothing reinstalls them.
    """
    packages = (f'"minillama[{EXTRAS[chapter]}] @ {ADDRESS}"'
                if chapter in EXTRAS else ADDRESS)
    if chapter in ALSO:
        packages += f" {ALSO[chapter]}"
    return SETUP_CELL.format(packages=packages)


def show(*objects: Any, docs: str = "first") -> None:
    """Print the source of functions, classes or modules as plain text.

    Args:
        *objects: what to print, in this order, with a blank line between.
        docs: `first` keeps the first line of each docstring, `all` keeps
            them whole, `none` drops them.

    Raises:
        ValueError: if `docs` is another word, or an object has no source.
    """
    if docs not in ("first", "all", "none"):
        raise ValueError(f"docs={docs!r} must be 'first', 'all' or 'none'")
    print("\n\n".join(_source(item, docs) for item in objects))


def _source(item: Any, docs: str) -> str:
    """The source of one object, dedented, its docstrings shortened."""
    try:
        # Under a decorator the original function is the one to read.
        text = inspect.getsource(inspect.unwrap(item))
    except (OSError, TypeError) as error:
        raise ValueError(
            f"{item!r} has no Python source to show; hand over a function, a "
            "class or a module") from error
    text = textwrap.dedent(text).strip("\n")
    return text if docs == "all" else _shorten(text, keep=docs == "first")


def _shorten(text: str, keep: bool) -> str:
    """Cut each docstring to its first line, or away."""
    lines = text.split("\n")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef,
                  ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(text))
             if isinstance(node, documented) and ast.get_docstring(node)]
    # From the bottom up, so that the line numbers above stay true.
    for node in sorted(found, key=lambda n: n.body[0].lineno, reverse=True):
        doc = node.body[0]
        indent = " " * doc.col_offset
        first = ast.get_docstring(node).split("\n")[0]
        if keep:
            short = [f'{indent}"""{first}"""']
        else:
            # A body needs a statement, and one blank line is enough.
            short = [f"{indent}..."] if len(node.body) == 1 else []
        end = doc.end_lineno
        if not short and end < len(lines) and not lines[end].strip():
            end += 1
        lines[doc.lineno - 1:end] = short
    return "\n".join(lines).strip("\n")
