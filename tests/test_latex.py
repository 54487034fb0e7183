r"""minillama/data/latex.py: definitions are written out as TeX would.

Checked against a table of cases worked out from TeX's rules (what a comment
eats, how arguments are found, how long a definition lives); against an
independent expander of a dozen lines for random nests of macros; and against
text made to loop, explode or confuse.
"""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.data import latex
from minillama.data.archives import Refused


def expand(text: str, files: dict[str, str] | None = None,
           kept: frozenset[str] = frozenset()) -> str:
    """A text with its macros written out."""
    expander = latex.Expander(lambda name: (files or {}).get(name, ""), kept,
                              20 * len(text) + 10_000)
    return latex.join(expander.expand(text))


def uncommented(text: str) -> str:
    """A text without its comments."""
    return "".join(latex.tokens(text))


@pytest.mark.parametrize("text, wanted", [
    ("a % note\nb", "a b"),
    ("a\n% note\nb", "a\nb"),
    ("word%\n  goes on", "wordgoes on"),  # a bare % joins
    ("50\\% of\nit", "50\\% of\nit"),
    ("line\\\\% note\nnext", "line\\\\next"),  # \\ and then a comment
    ("a \\\\\\% b", "a \\\\\\% b"),  # \\ and then a per cent sign
    ("end % note", "end "),
    ("a % note\n\nb", "a \n\nb"),  # the paragraph still ends
    ("a\n% note\n\nb", "a\n\nb"),
    ("a %1\n%2\n  %3\nb", "a b"),
    ("\\url{x.org/a%20b} % c\nd", "\\url{x.org/a%20b} d"),
    ("\\href{x%20}{y}%\nz", "\\href{x%20}{y}z"),
    ("\\verb|a % b| % c\nd", "\\verb|a % b| d"),
    ("\\verb*+%+%\nd", "\\verb*+%+d"),
    ("\\lstinline!%!", "\\lstinline!%!"),
    ("\\begin{verbatim}\n% kept\n\\end{verbatim}% gone\n",
     "\\begin{verbatim}\n% kept\n\\end{verbatim}"),
    ("\\begin{verbatim}%x\\end{verbatim} % y\nz",
     "\\begin{verbatim}%x\\end{verbatim} z"),
    ("\\begin{lstlisting}[language=C]\na % b\n\\end{lstlisting}",
     "\\begin{lstlisting}[language=C]\na % b\n\\end{lstlisting}"),
    ("a\\begin{comment}\nhidden\n\\end{comment}b", "ab"),
    ("\\begin{verbatim} never closed % c\n", "\\begin{verbatim} never closed "
     ),
    ("\\verbatiminput{x} % c\n", "\\verbatiminput{x} "),
])
def test_comments_go_and_nothing_else(text, wanted):
    assert uncommented(text) == wanted


@given(st.text("ab \n\\{}#$&~^_@1[]|", max_size=60))
def test_without_a_comment_tokens_are_the_text(text):
    assert uncommented(text) == text


CASES = {
    "plain": (r"\newcommand{\R}{\mathbb{R}}$\R^n$", r"$\mathbb{R}^n$"),
    "no braces": (r"\newcommand\R{R}\R", "R"),
    "starred": (r"\newcommand*{\R}{R}\R", "R"),
    "arguments": (r"\newcommand{\p}[2]{\langle #1,#2\rangle}\p{x}{y}",
                  r"\langle x,y\rangle"),
    "arguments without braces": (r"\newcommand{\f}[2]{(#1|#2)}\f xy\f12z",
                                 "(x|y)(1|2)z"),
    "a control word as argument": (r"\newcommand{\f}[1]{(#1)}\f\alpha x",
                                   r"(\alpha)x"),
    "blanks before arguments": (r"\newcommand{\f}[2]{(#1|#2)}\f  {a} {b}",
                                "(a|b)"),
    "used twice": (r"\newcommand{\sq}[1]{#1#1}\sq{ab}", "abab"),
    "braces inside": (r"\newcommand{\f}[1]{<#1>}\f{a{b}c}", "<a{b}c>"),
    "nested": (r"\newcommand{\a}{A\b}\newcommand{\b}{B}\a", "AB"),
    "nested arguments": (r"\newcommand{\f}[1]{<#1>}\f{\f{x}}", "<<x>>"),
    "a macro as argument": (
        r"\newcommand{\ap}[2]{#1{#2}}\newcommand{\b}[1]{[#1]}\ap{\b}{x}",
        "[x]"),
    "optional given": (r"\newcommand{\f}[2][d]{(#1,#2)}\f[e]{x}", "(e,x)"),
    "optional left out": (r"\newcommand{\f}[2][d]{(#1,#2)}\f{x}", "(d,x)"),
    "optional empty": (r"\newcommand{\f}[2][d]{(#1,#2)}\f[]{x}", "(,x)"),
    "optional in braces": (r"\newcommand{\f}[1][d]{(#1)}\f[{]}]", "({]})"),
    "default with braces": (r"\newcommand{\f}[1][{a]b}]{(#1)}\f", "({a]b})"),
    "again": (r"\newcommand{\a}{1}\a\renewcommand{\a}{2}\a", "12"),
    "provided": (r"\newcommand{\a}{1}\providecommand{\a}{2}\a", "1"),
    "provided anew": (r"\providecommand{\a}{2}\a", "2"),
    "def": (r"\def\a{A}\a", "A"),
    "def with arguments": (r"\def\f#1#2{(#1|#2)}\f{a}b", "(a|b)"),
    "def with marks": (r"\def\f(#1,#2){<#1;#2>}\f(a b,{c,d})e",
                       "<a b;{c,d}>e"),
    "def up to a word": (r"\def\f#1\end{<#1>}\f a{\end}b\end c",
                         r"<a{\end}b>c"),
    "long and global": (r"\long\global\def\a{A}\a", "A"),
    "gdef": (r"\gdef\a{A}\a", "A"),
    "let a macro": (r"\newcommand{\a}{1}\let\b\a\renewcommand{\a}{2}\b\a",
                    "12"),
    "let and wrap": (r"\let\old\vec\renewcommand{\vec}[1]{<\old{#1}>}\vec{x}",
                     r"<\vec{x}>"),
    "let a definer": (r"\let\nc\newcommand \nc\a{1}\a", "1"),
    "let with a sign": (r"\let\b=\beta$\b$", r"$\beta$"),
    "operator": (r"\DeclareMathOperator{\argmax}{arg\,max}\argmax_x",
                 r"\operatorname{arg\,max}_x"),
    "operator with limits": (r"\DeclareMathOperator*{\A}{A}\A",
                             r"\operatorname*{A}"),
    "a name is whole": (r"\newcommand{\a}{1}\ab \a b", r"\ab 1b"),
    "a blank is needed": (r"\newcommand{\a}{\alpha}$\a x$", r"$\alpha x$"),
    "no blank is needed": (r"\newcommand{\a}{\alpha}$\a_x$", r"$\alpha_x$"),
    "a blank from an argument": (r"\newcommand{\f}[1]{\bf#1}\f{x}",
                                 r"\bf x"),
    "until the group ends": (r"\def\a{1}{\def\a{2}\a}\a", "{2}1"),
    "until the environment ends": (
        r"\begin{x}\newcommand{\a}{1}\a\end{x}\a",
        r"\begin{x}1\end{x}\a"),
    "one brace too many": (r"\def\a{1}}\a", "}1"),
    "defines a macro": (r"\def\mk#1{\def\q##1{#1:##1}}\mk{a}\q{b}", "a:b"),
    "environment": (
        r"\newenvironment{e}[1]{<#1>}{</>}\begin{e}{x}y\end{e}",
        "<x>y</>"),
    "stands for an environment": (
        r"\def\be{\begin{equation}}\def\ee{\end{equation}}\be x\ee",
        r"\begin{equation}x\end{equation}"),
    "not in verbatim": (
        r"\def\a{A}\verb|\a|\begin{verbatim}\a\end{verbatim}\a",
        r"\verb|\a|\begin{verbatim}\a\end{verbatim}A"),
    "not in comments": ("\\def\\a{A}% \\def\\a{B}\n\\a", "A"),
    "per cent in a body": (r"\newcommand{\a}[1]{#1\%}\a{50}", r"50\%"),
    "with an at": (r"\makeatletter\def\a@b{1}\a@b", r"\makeatletter1"),
    "conditions stay": (r"\ifx\x\y a\else b\fi", r"\ifx\x\y a\else b\fi"),
}


@pytest.mark.parametrize("case", CASES)
def test_definitions_are_written_out(case):
    text, wanted = CASES[case]
    assert expand(text) == wanted


def expand_by_substitution(bodies: list[str], text: str) -> str:
    """Another way: later macros into earlier ones, until none is left."""
    one = re.compile(r"\\m([a-z])\{([^{}]*)\}")
    while found := one.search(text):
        body = bodies[ord(found[1]) - ord("a")]
        text = (text[:found.start()] + body.replace("#1", found[2])
                + text[found.end():])
    return text


@given(st.data())
def test_random_nests_agree_with_substitution(data):
    """Macro n may use the macros after it: no circles, any depth."""
    count = data.draw(st.integers(1, 5))
    bodies = []
    for n in range(count):
        parts = [st.sampled_from(["x", "(#1)", "#1", " ", "\\%", "."])]
        if n + 1 < count:
            parts.append(st.integers(n + 1, count - 1).map(
                lambda m: f"\\m{chr(97 + m)}{{#1}}"))
        bodies.append("".join(data.draw(
            st.lists(st.one_of(parts), max_size=4))))
    definitions = "".join(
        f"\\newcommand{{\\m{chr(97 + n)}}}[1]{{{body}}}"
        for n, body in enumerate(bodies))
    text = "".join(data.draw(st.lists(st.sampled_from(
        ["y ", "\\ma{b}", "\\ma{\\ma{c}}", "-"]), max_size=4)))
    wanted = expand_by_substitution(bodies, text)
    assert expand(definitions + text) == wanted


def test_a_zero_byte_is_nothing():
    assert expand("\\def\\a{A}\0x\\a\0") == "xA"


def test_input_is_followed_and_only_among_the_files():
    files = {"a": r"\def\x{1}in a: \input{b} ", "b": r"\x"}
    assert expand(r"\input{a}\include a \x", files) == "in a: 1 in a: 1  1"
    assert expand(r"\input{/etc/passwd}|\input ../up |", files) == "| |"


LOOPS = {
    "itself": r"\def\x{a\x}\x",
    "twice itself": r"\def\x{\x\x}\x",
    "each other": r"\def\x{\y}\def\y{\x}\x",
    "through an argument": r"\newcommand{\x}[1]{\x{#1#1}}\x{a}",
}


@pytest.mark.parametrize("case", LOOPS)
def test_a_macro_that_leads_to_itself_is_left_and_counted(case):
    expander = latex.Expander(lambda name: "", frozenset(), 10_000)
    out = latex.join(expander.expand(LOOPS[case] + " end"))
    assert expander.recursive == 1 and out.endswith("end")
    assert "def" not in out and "newcommand" not in out


BOMBS = {
    "doubling": "".join(
        rf"\def\m{chr(97 + n)}{{\m{chr(98 + n)}\m{chr(98 + n)}}}"
        for n in range(25)) + r"\def\mz{boom}\ma",
    "omega": r"\def\x#1{#1#1}\x\x",
    "nested arguments": r"\def\x#1{#1#1}" + r"\x{" * 40 + "a" + "}" * 40,
    "input of itself": r"\input{self}",
}


@pytest.mark.parametrize("case", BOMBS)
def test_what_explodes_is_refused_at_once(case):
    start = time.process_time()
    with pytest.raises(Refused, match="without end"):
        expand(BOMBS[case], {"self": "x" * 50 + r"\input{self}"})
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", [
    r"\def\x#1]{}" + r"\x " * 1000, r"\newcommand{\x}[1][", r"\def\x",
    r"\newcommand", r"\def\x#1{#1}\x{", r"\let", r"\newenvironment{a}"])
def test_an_argument_without_end_is_refused(text):
    with pytest.raises(Refused, match="argument without end"):
        expand(text)


PIECES = st.sampled_from([
    "\\newcommand", "\\def", "\\let", "\\a", "\\b", "{", "}", "[", "]", "#1",
    "##1", "1", "x", " ", "\n", "%", "\\%", "\\begin{e}", "\\end{e}", "=",
    "\\newenvironment", "\\input", "\\begin{verbatim}", "\\end{verbatim}",
    "\\verb|", "\\", "é", "\\DeclareMathOperator", "*", "\\url{"])


@given(st.lists(PIECES, max_size=30).map("".join))
def test_any_text_ends_and_no_definition_is_left(text):
    try:
        out = expand(text)
    except Refused:
        return
    found = {token.rstrip() for token in latex.tokens(out)}
    assert not found & {"\\newcommand", "\\def", "\\let", "\\input",
                        "\\newenvironment", "\\DeclareMathOperator"}


HOSTILE = [
    "{", "\\begin{verbatim}", "\\verb|", "%", "\\", "\\def\\a{b}",
    "\\def\\a{b}{", "\\def\\a{\\b}\\a", "\\url{", "\\begin", "\\begin{",
    "\\newcommand\\a[1]{}\\a{", "\\input{x}", "#", "\n\n%"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_linear_time(piece):
    """Eight times the length would take 64 times the time, were it not."""
    def seconds(count: int) -> float:
        start = time.process_time()
        try:
            expand(piece * count)
        except Refused:
            pass
        return time.process_time() - start

    seconds(10)
    assert seconds(2_400) < 20 * max(seconds(300), 0.02)
