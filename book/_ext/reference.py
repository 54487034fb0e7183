"""The directive `{reference}`: a module's public names, read from its source.

Signatures are shown as they stand in the file, shapes included, and the
docstrings are cut into their sections. Nothing is imported, so that the book
builds without a device or a download. A module or a name that no longer exists
is a warning, which the build turns into an error.

    ```{reference} minillama.norm
    ```

    ```{reference} minillama.train
    :only: fit, train_step
    ```
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SECTIONS = ("Args", "Returns", "Yields", "Raises", "Shapes")
ENTRY = re.compile(r"(\*{0,2}\w[\w., ]*|\(?\w+[^:]*\)?): (.*)", re.DOTALL)
Definition = ast.FunctionDef | ast.ClassDef


class Reference(SphinxDirective):
    """One module of the package."""

    required_arguments = 1
    option_spec = {"only": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """The module's docstring, then a section for each name."""
        self.module = self.arguments[0]
        path = Path(self.env.srcdir,
                    *self.module.split(".")).with_suffix(".py")
        if not path.is_file():
            path = path.with_suffix("") / "__init__.py"
        if not path.is_file():
            return [self.missing(self.module)]
        self.env.note_dependency(str(path))
        self.source = path.read_text(encoding="utf-8")
        tree = ast.parse(self.source)
        found = {node.name: node for node in tree.body
                 if isinstance(node, Definition)
                 and not node.name.startswith("_")
                 and ast.get_docstring(node)}
        names = [name.strip() for name
                 in self.options.get("only", ",".join(found)).split(",")
                 if name.strip()]  # a module may show its docstring alone
        result = self.docstring(ast.get_docstring(tree) or "")
        for name in names:
            result.append(self.entry(found[name]) if name in found
                          else self.missing(f"{self.module}.{name}"))
        return result

    def missing(self, name: str) -> nodes.Node:
        """Warn that a name is gone."""
        return self.state.document.reporter.warning(
            f"reference: there is no {name}", line=self.lineno)

    def entry(self, node: Definition) -> nodes.Node:
        """One class or function as a section with an address of its own."""
        section = nodes.section(
            ids=[f"{self.module}.{node.name}"], names=[node.name])
        section += nodes.title("", "", nodes.literal("", node.name))
        section += self.signature(node)
        section += self.docstring(ast.get_docstring(node) or "")
        if isinstance(node, ast.ClassDef):
            section += self.fields(node)
            for member in node.body:
                if (isinstance(member, ast.FunctionDef)
                        and not member.name.startswith("_")
                        and ast.get_docstring(member)):
                    inner = nodes.container(classes=["reference-member"])
                    inner += self.signature(member)
                    inner += self.docstring(ast.get_docstring(member) or "")
                    section += inner
        return section

    def signature(self, node: Definition) -> nodes.Node:
        """The lines from `def` to the colon, or a class as it is called."""
        if isinstance(node, ast.ClassDef):
            start = next((m for m in node.body
                          if isinstance(m, ast.FunctionDef)
                          and m.name == "__init__"), None)
            if start is None:
                text = f"class {node.name}"
            else:
                text = self.head(start).replace("def __init__", node.name)
                text = re.sub(r"\(\s*self,?\s*", "(", text, count=1)
                text = re.sub(r"\s*-> None$", "", text)
        else:
            text = self.head(node)
        block = nodes.literal_block(text, text)
        block["language"] = "python"
        return block

    def head(self, node: ast.FunctionDef) -> str:
        """A function's first lines as they stand in the source."""
        lines = self.source.splitlines()
        first, last = node.lineno - 1, node.body[0].lineno - 1
        text = textwrap.dedent("\n".join(lines[first:last])).rstrip()
        kinds = [f"@{ast.unparse(mark)}\n" for mark in node.decorator_list
                 if ast.unparse(mark) in ("classmethod", "property")]
        return "".join(kinds) + text.removesuffix(":")

    def fields(self, node: ast.ClassDef) -> list[nodes.Node]:
        """The annotated fields of a dataclass, each with its sentence."""
        listing = nodes.definition_list()
        for field, note in zip(node.body, node.body[1:]):
            if (isinstance(field, ast.AnnAssign)
                    and isinstance(note, ast.Expr)
                    and isinstance(note.value, ast.Constant)):
                text = " ".join(str(note.value.value).split())
                code = ast.get_source_segment(self.source, field)
                listing += self.definition(code or field.target.id, text)
        if not len(listing):
            return []
        return [nodes.rubric("Fields", "Fields"), listing]

    def definition(self, term: str, text: str) -> nodes.Node:
        """A term in code and its explanation."""
        item = nodes.definition_list_item()
        item += nodes.term("", "", nodes.literal("", term))
        item += nodes.definition("", self.paragraph(text))
        return item

    def docstring(self, text: str) -> list[nodes.Node]:
        """A docstring as paragraphs, lists and a link to its chapter."""
        result: list[nodes.Node] = []
        for block in re.split(r"\n\s*\n", text.strip()):
            head, _, rest = block.partition("\n")
            if head.rstrip(":") in SECTIONS and head.endswith(":"):
                result += self.section(head[:-1], textwrap.dedent(rest))
                continue
            match = re.search(r"^Chapter: (notebooks/\w+)\.ipynb$", block,
                              re.MULTILINE)
            if match:
                block = block.replace(match[0], "").strip()
            if re.search(r"<-|\S {2,}\S|^ {4}", block, re.MULTILINE):
                block = textwrap.dedent(block)
                result.append(nodes.literal_block(block, block,
                                                  language="text"))
            elif block:
                result.append(self.paragraph(block))
            if match:
                result.append(self.chapter(match[1]))
        return result

    def section(self, name: str, body: str) -> list[nodes.Node]:
        """`Args:` and the like: a small heading and a list or a text."""
        heading = nodes.rubric(name, name)
        entries = re.split(r"\n(?=\S)", body)
        matches = [ENTRY.fullmatch(entry) for entry in entries]
        if name in ("Returns", "Yields") or not all(matches):
            return [heading, self.paragraph(body)]
        listing = nodes.definition_list()
        for match in matches:
            assert match is not None
            listing += self.definition(match[1], " ".join(match[2].split()))
        return [heading, listing]

    def paragraph(self, text: str) -> nodes.Node:
        """Text in which `words in backticks` are code."""
        result = nodes.paragraph()
        parts = re.split(r"`+([^`]+)`+", " ".join(text.split()))
        for number, part in enumerate(parts):
            if part:
                result += (nodes.literal("", part) if number % 2
                           else nodes.Text(part))
        return result

    def chapter(self, name: str) -> nodes.Node:
        """A link to a chapter, or its bare name until that is written."""
        text = nodes.literal("", Path(name).name)
        if name in self.env.found_docs:
            text = addnodes.pending_xref(
                "", text, refdomain="std", reftype="doc",
                reftarget=f"/{name}", refexplicit=True,
                refdoc=self.env.docname, refwarn=True)
        return nodes.paragraph("", "", nodes.Text("Chapter: "), text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx about the directive."""
    app.add_directive("reference", Reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
