"""Count lines of code, and hold them against the promises of the house.

A line of code is neither blank, nor comment, nor docstring: documentation is
free, and cramming earns nothing.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

from tools.shell import ROOT

CORE = ("config", "tokenizer", "norm", "swiglu", "rope", "attention", "model",
        "optim", "batches", "checkpoint", "train", "generate")
CORE_LIMIT, PACKAGE_LIMIT, FILE_LIMIT, FUNCTION_LIMIT = 1200, 11_000, 300, 50
"""The package's was 6,000 while it held the core alone; with seven sources,
twenty benchmarks and their copies on the hub, three file formats and 2,048
GPUs it is 11,000."""

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT,
            tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}


def code_lines(text: str) -> set[int]:
    """The numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(text)


def docstring_lines(text: str) -> set[int]:
    """Lines of docstrings, and of the sentences under dataclass fields."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for part in body if isinstance(body, list) else []:
            if (isinstance(part, ast.Expr)
                    and isinstance(part.value, ast.Constant)
                    and isinstance(part.value.value, str)):
                lines.update(range(part.lineno, part.end_lineno + 1))
    return lines


def function_lengths(text: str) -> dict[str, int]:
    """Lines of code of every function, by name and line."""
    code = code_lines(text)
    return {
        f"{node.name} (line {node.lineno})":
            len(code & set(range(node.lineno, node.end_lineno + 1)))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def package() -> dict[Path, int]:
    """Lines of code of every file of the package that a reader studies.

    Left out are the exercises and the pictures, one file a chapter each: they
    grow with the book, and nobody reads them to learn how LLaMA is built.
    """
    folder = ROOT / "minillama"
    return {
        path.relative_to(ROOT): len(code_lines(
            path.read_text(encoding="utf-8")))
        for path in sorted(folder.rglob("*.py"))
        if path.relative_to(folder).parts[0] not in ("checks", "plots")}


def core(lines: dict[Path, int]) -> int:
    """Lines of code of the core."""
    return sum(count for path, count in lines.items()
               if path.parent == Path("minillama") and path.stem in CORE)


def problems() -> list[str]:
    """Every broken promise, in words."""
    lines = package()
    found = []
    if core(lines) >= CORE_LIMIT:
        found.append(f"the core has {core(lines)} lines of code; the promise "
                     f"is fewer than {CORE_LIMIT}")
    if sum(lines.values()) >= PACKAGE_LIMIT:
        found.append(f"the package has {sum(lines.values())} lines of code; "
                     f"the promise is fewer than {PACKAGE_LIMIT}")
    for path, count in lines.items():
        if count >= FILE_LIMIT:
            found.append(f"{path} has {count} lines of code; split it below "
                         f"{FILE_LIMIT}")
    for path in lines:
        text = (ROOT / path).read_text(encoding="utf-8")
        found += [f"{path}: {name} has {count} lines of code; the promise is "
                  f"fewer than {FUNCTION_LIMIT}"
                  for name, count in function_lengths(text).items()
                  if count >= FUNCTION_LIMIT]
    return found


def main() -> int:
    """Print the sizes and the broken promises; return the exit code."""
    lines = package()
    for path, count in lines.items():
        print(f"{count:6}  {path.as_posix()}")
    print(f"{core(lines):6}  the core, promised below {CORE_LIMIT}")
    print(f"{sum(lines.values()):6}  the package, promised below "
          f"{PACKAGE_LIMIT}")
    found = problems()
    for problem in found:
        print(f"broken: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
