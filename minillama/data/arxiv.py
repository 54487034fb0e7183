r"""arXiv: LaTeX as it was sent in, without what only a printer needs.

As in the paper: everything before the first section goes, and the
bibliography with all that follows; comments go; and what the authors defined
themselves is written out in place. The result stays LaTeX.

An e-print is a tar archive or one file, compressed or not; a folder that
holds `.tex` files is one paper too. Files that are named by `\input` are
looked up among the paper's own files and nowhere else.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from minillama.data import archives, latex
from minillama.data.archives import Refused
from minillama.data.document import Document, Ledger

_SUFFIXES = (".tex", ".ltx", ".latex")
# Bytes; the longest books on arXiv have two million.
_LIMIT = 4_000_000
_PACKED = (".tar", ".tgz", ".gz")
_HEADINGS = {
    "\\" + level for level in (
        "part", "chapter", "section", "subsection", "subsubsection",
        "paragraph", "subparagraph")}
_ENDS = {
    "\\appendix", "\\begin{appendix}", "\\begin{appendices}",
    "\\bibliography", "\\printbibliography", "\\thebibliography",
    "\\begin{thebibliography}", "\\begin{references}",
    "\\begin{REFERENCES}", "\\end{document}"}
# Redefined headings and ends would hide where a paper begins and ends.
KEPT = frozenset(_HEADINGS | _ENDS | {"\\begin{document}", "\\begin", "\\end"})
_ROOT = re.compile(r"^[^%\n]*\\document(?:class|style)\b", re.MULTILINE)
_NAMED = re.compile(r"\\(?:input|include)\s*\{?\s*([^\s{}\\%]+)")
_LATIN_1 = re.compile(rb"\[(latin1|ansinew|cp1252)\]\s*\{inputenc\}")
_LAST_HEADING = re.compile(r"\s*\*?\s*\{\s*(references|bibliography|appendi)",
                           re.IGNORECASE)


def inputs(path: Path) -> list[Path]:
    """The e-prints below a folder, sorted, and its folders with LaTeX.

    Chapter: notebooks/02_curated_data.ipynb
    """
    packed = archives.files(path, *_PACKED)
    if path.is_file() or any(path.glob("*.tex")):
        return [path]
    return sorted(packed + [
        folder for folder in path.iterdir()
        if folder.is_dir() and any(folder.rglob("*.tex"))])


def read(path: Path, ledger: Ledger) -> Iterator[Document]:
    """One e-print or folder as one paper.

    Args:
        path: one of `inputs`.
        ledger: counts the paper, and what was refused or cut off in it.

    Chapter: notebooks/02_curated_data.ipynb
    """
    try:
        if path.is_dir():
            found = [file for file in archives.files(path, *_SUFFIXES)
                     if not file.is_symlink()]
            if sum(file.stat().st_size for file in found) > _LIMIT:
                raise Refused("too much LaTeX")
            files = {file.relative_to(path).as_posix(): file.read_bytes()
                     for file in found}
        else:
            with open(path, "rb") as file:
                files = archives.members(file, ledger, _SUFFIXES)
        text, recursive = clean(files)
    except Refused as reason:
        ledger.drop(str(reason))
    except archives.BROKEN:
        ledger.drop("broken archive")
    else:
        if recursive:
            ledger.cut("recursive macro left", recursive)
        name = re.sub(r"(\.(tar|gz|tgz|tex))+$", "", path.name)
        yield ledger.keep(Document("arxiv", name, text))


def clean(files: dict[str, bytes]) -> tuple[str, int]:
    """The text of a paper from its files, and how many uses of recursive
    macros are left.

    Args:
        files: by their name in the archive.

    Raises:
        Refused: with the reason why this is no usable paper.

    Chapter: notebooks/02_curated_data.ipynb
    """
    if any(data.startswith(b"%PDF") for data in files.values()):
        raise Refused("no LaTeX source")
    size = sum(map(len, files.values()))
    if size > _LIMIT:
        raise Refused("too much LaTeX")
    texts = _decode(files)
    root = _root(texts)

    def look_up(name: str) -> str:
        places = [posixpath.normpath(posixpath.join(folder, name + suffix))
                  for folder in (posixpath.dirname(root), "")
                  for suffix in ("", ".tex")]
        return next((texts[p] for p in places if p in texts), "")

    expander = latex.Expander(look_up, KEPT, 20 * size + 20_000)
    tokens = _body(expander.expand(texts[root]))
    return latex.join(tokens).strip() + "\n", expander.recursive


def _decode(files: dict[str, bytes]) -> dict[str, str]:
    """UTF-8, or the Latin-1 that old papers declare.

    Raises:
        Refused: if it is neither.
    """
    old = any(_LATIN_1.search(data) for data in files.values())
    try:
        texts = {name: data.decode("cp1252" if old else "utf-8-sig")
                 for name, data in files.items()}
    except UnicodeDecodeError as error:
        raise Refused("not UTF-8") from error
    return {name: text.replace("\r\n", "\n").replace("\r", "\n")
            for name, text in texts.items()}


def _root(texts: dict[str, str]) -> str:
    """The file that LaTeX starts with: it declares a class, and is the
    longest of those with the files that it names.

    Raises:
        Refused: if no file declares a document class.
    """
    def size(name: str) -> int:
        named = {posixpath.basename(other).removesuffix(".tex")
                 for other in _NAMED.findall(texts[name])}
        return len(texts[name]) + sum(
            len(text) for other, text in texts.items()
            if posixpath.basename(other).removesuffix(".tex") in named)

    roots = [name for name, text in texts.items() if _ROOT.search(text)]
    if not roots:
        raise Refused("no document class")
    return min(roots, key=lambda name: (-size(name), name))


def _body(tokens: list[str]) -> list[str]:
    """From the first section to the bibliography or appendix.

    Raises:
        Refused: if there is no section.
    """
    names = [token.rstrip() for token in tokens]
    start = (names.index("\\begin{document}")
             if "\\begin{document}" in names else 0)
    headings = [at for at in range(start, len(names))
                if names[at] in _HEADINGS]
    if not headings:
        raise Refused("no section")
    ends = [at for at in range(headings[0], len(names)) if names[at] in _ENDS]
    ends += [at for at in headings
             if _LAST_HEADING.match("".join(tokens[at + 1:at + 5]))]
    return tokens[headings[0]:min(ends, default=len(tokens))]
