r"""minillama/data/arxiv.py: from what authors sent in to the paper's text.

Checked against e-prints made here in the forms that arXiv hands out (a tar
archive or one file, gzipped or not), with every part that has to go; against
a real e-print and a real book of LaTeX where they are at hand, by counting
what must not be left; and against archives cut and corrupted at random.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile

import pytest

from minillama.data import arxiv, latex
from minillama.data.document import Ledger
from tests.broken import survives
from tests.real import real_data

PAPER = r"""% private note
\documentclass{article}
\newcommand{\ours}{Our Method}
\renewcommand{\section}{\bigskip}% a redefined heading still is one
\title{T}\author{A}
\begin{document}
\maketitle
\begin{abstract}We present \ours.\end{abstract}
\section{Introduction}
\ours{} is 50\% faster. % is it?
\input{body}
\bibliographystyle{plain}
\bibliography{refs}
\appendix
\section{Proofs}
\end{document}
"""
BODY = "\\section{More}\nSee \\ours.\n"
WANTED = ("\\section{Introduction}\nOur Method{} is 50\\% faster. "
          "\\section{More}\nSee Our Method.\n\n\\bibliographystyle{plain}\n")


def tar(files: dict[str, bytes]) -> bytes:
    """A tar archive."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return whole.getvalue()


def read(path) -> tuple[list, Ledger]:
    """The papers of a path, and the books."""
    ledger = Ledger()
    return list(arxiv.read(path, ledger)), ledger


FILES = {"main.tex": PAPER.encode(), "body.tex": BODY.encode(),
         "figure.pdf": b"%PDF binary", "refs.bbl": b"\\bibitem{x}"}
LONE = PAPER.replace("\\input{body}\n", BODY)
FORMS = {
    "2301.00001.tar.gz": gzip.compress(tar(FILES)),
    "2301.00001.tar": tar(FILES),
    "2301.00001.gz": gzip.compress(LONE.encode()),
    "2301.00001.tex": LONE.encode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_an_eprint_gives_the_same_paper(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FORMS[name])
    (paper,), ledger = read(path)
    assert (paper.source, paper.id) == ("arxiv", "2301.00001")
    assert paper.text.split() == WANTED.split()
    assert (ledger.kept, ledger.seen) == (1, 1)


def test_a_folder_of_latex_is_a_paper(tmp_path):
    for name, data in FILES.items():
        (tmp_path / "2301.00001").mkdir(exist_ok=True)
        (tmp_path / "2301.00001" / name).write_bytes(data)
    path, = arxiv.inputs(tmp_path)
    assert arxiv.inputs(path) == [path] == [tmp_path / "2301.00001"]
    (paper,), _ = read(path)
    assert paper.id == "2301.00001"
    assert paper.text.split() == WANTED.split()


def test_inputs_are_eprints_and_folders_sorted(tmp_path):
    for name in ("b.gz", "0704/c.tar.gz", "0704/a.tgz", "paper/x/m.tex",
                 "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    assert [path.relative_to(tmp_path).as_posix() for path in
            arxiv.inputs(tmp_path)] == ["0704/a.tgz", "0704/c.tar.gz",
                                        "b.gz", "paper"]


def clean(text: str, **others: str) -> str:
    """The text of a paper whose main file is given."""
    files = {"main.tex": text, **{f"{k}.tex": v for k, v in others.items()}}
    return arxiv.clean({n: t.encode() for n, t in files.items()})[0]


HEAD = "\\documentclass{article}\\begin{document}x\n"


@pytest.mark.parametrize("end", [
    "\\bibliography{refs}", "\\begin{thebibliography}{9}", "\\appendix",
    "\\begin{appendices}", "\\printbibliography", "\\begin{references}",
    "\\section*{References}", "\\section{Appendix A}", "\\end{document}"])
def test_what_comes_last_goes(end):
    text = HEAD + "\\section{A}a\n" + end + "\nz\n\\section{Z}"
    assert clean(text) == "\\section{A}a\n"


@pytest.mark.parametrize("heading", [
    "\\part{P}", "\\chapter{P}", "\\section*{P}", "\\subsection[p]{P}",
    "\\paragraph{P}"])
def test_the_first_heading_of_any_level_begins_the_text(heading):
    text = ("\\documentclass{article}\\def\\s{\\section}"
            "\\setcounter{section}{0}\\titleformat{\\section}{}"
            "\\begin{document}\\sectionmark{x} abstract\n")
    assert clean(text + heading + " p") == heading + " p\n"


def test_a_heading_hidden_in_a_macro_is_found():
    text = ("\\documentclass{article}\\newcommand{\\sect}[1]{\\section{#1.}}"
            "\\begin{document}abstract \\sect{One} text")
    assert clean(text) == "\\section{One.} text\n"


def test_the_root_has_a_class_and_is_the_longest_with_its_files():
    files = {
        "body.tex": "\\section{B}" + "long " * 500,
        "supplement.tex": HEAD + "\\section{S}" + "some " * 50,
        "zz.tex": HEAD + "\\input{body}",
        "macros.tex": "% \\documentclass{article}\n" + "x" * 9000}
    text, _ = arxiv.clean({n: t.encode() for n, t in files.items()})
    assert text.startswith("\\section{B}long")


def test_names_in_input_stay_inside(tmp_path, monkeypatch):
    (tmp_path / "secret.tex").write_text("SECRET", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "secret"), "../secret", "secret", "./secret",
                 "|cat secret.tex"):
        assert "SECRET" not in clean(HEAD + "\\section{A}\\input{" + name
                                     + "}")


def test_files_beside_a_root_in_a_folder_are_found():
    files = {"src/main.tex": HEAD + "\\section{A}\\input{parts/one}"
             "\\include{./two}", "src/parts/one.tex": "1", "two.tex": "2"}
    text, _ = arxiv.clean({n: t.encode() for n, t in files.items()})
    assert text == "\\section{A}12\n"


def test_latin_1_is_read_where_it_is_declared(tmp_path):
    text = HEAD + "\\section{Caf\xe9}"
    declared = "\\usepackage[latin1]{inputenc}\n" + text
    assert "Caf\xe9" in arxiv.clean({"": declared.encode("latin-1")})[0]
    path = tmp_path / "a.tex"
    path.write_bytes(text.encode("latin-1"))
    assert read(path)[1].dropped == {"not UTF-8": 1}


REASONS = {
    "no LaTeX source": b"%PDF-1.5 ...",
    "no document class": b"\\section{A} text",
    "no section": HEAD.encode() + b"only a letter",
    "macros write without end": HEAD.encode()
    + b"\\def\\x#1{#1#1}\\x\\x\\section{A}",
    "macro argument without end": HEAD.encode() + b"\\def\\x{",
    "too much LaTeX": HEAD.encode() + b"x" * 4_000_001,
}


@pytest.mark.parametrize("reason", REASONS)
def test_every_paper_that_goes_has_its_reason(tmp_path, reason):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(REASONS[reason], mtime=0))
    papers, ledger = read(path)
    assert papers == [] and ledger.dropped == {reason: 1}


@pytest.mark.parametrize("name, data", [
    ("a.gz", gzip.compress(PAPER.encode())[:-20]),
    ("a.gz", b"\x1f\x8b\x08 nonsense"),
    ("a.tar.gz", gzip.compress(tar(FILES)[:700]))])
def test_a_broken_archive_is_counted(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    papers, ledger = read(path)
    assert papers == [] and ledger.dropped.total() == 1


def test_a_folder_of_too_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(arxiv, "_LIMIT", 100)
    (tmp_path / "a.tex").write_text(HEAD + "\\section{A}" + "x" * 100,
                                    encoding="utf-8")
    monkeypatch.setattr(type(tmp_path), "read_bytes", None)
    papers, ledger = read(tmp_path)
    assert papers == [] and ledger.dropped == {"too much LaTeX": 1}


def test_recursive_macros_are_counted_and_left(tmp_path):
    path = tmp_path / "a.tex"
    path.write_text(HEAD + "\\def\\x{\\x}\\section{A}\\x\\x", encoding="utf-8")
    (paper,), ledger = read(path)
    assert paper.text == "\\section{A}\\x\\x\n"
    assert ledger.lines == {"recursive macro left": 2}


@pytest.mark.parametrize("name", ["2301.00001.tar.gz", "2301.00001.tar"])
def test_broken_eprints_cost_themselves_alone(tmp_path, name):
    ledger = survives(arxiv.read, tmp_path / name, FORMS[name])
    assert ledger.seen == 60 and ledger.dropped.total() > 10


def left_over(text: str, defined: set[str]) -> list[str]:
    """Comments outside verbatim, definitions, and uses of what was defined."""
    tokens = [token.rstrip() for token in latex.tokens(text)]
    without = "".join(latex.tokens(text))
    comments = ["%"] * (len(text) - len(without))
    return comments + [token for token in tokens if token in defined | {
        "\\newcommand", "\\renewcommand", "\\def", "\\DeclareMathOperator",
        "\\bibliography", "\\bibitem", "\\begin{thebibliography}"}]


def test_a_real_eprint(tmp_path):
    path = real_data("sources/arxiv/1911.02782.gz")
    (paper,), ledger = read(path)
    assert ledger.seen == 1
    with tarfile.open(path) as archive:
        source = archive.extractfile("main.tex").read().decode()
    defined = {"\\" + name for name in re.findall(
        r"\\(?:re)?newcommand\{?\\(\w+)", source)}
    assert len(defined) > 3 and left_over(paper.text, defined) == []
    assert paper.text.startswith("\\section{Introduction}")
    assert len(paper.text) > 40_000


@pytest.mark.slow
def test_a_real_book_in_many_files():
    """Its cleverest macros test what follows, and are left, counted."""
    path = real_data("sources/arxiv/hott_book")
    (paper,), ledger = read(path)
    source = "".join((path / name).read_text("utf-8")
                     for name in ("macros.tex", "main.tex"))
    source = re.sub(r"(?<!\\)%.*", "", source)
    defined = {"\\" + name for name in re.findall(
        r"\\(?:(?:re)?newcommand|def)\*?\{?\\([A-Za-z@]+)", source)}
    assert len(defined) > 200
    left = left_over(paper.text, defined)
    assert len(set(left)) < 25 and len(left) < 400
    assert ledger.lines["recursive macro left"] > 100
    assert "Table of Contents" not in paper.text[:50]
