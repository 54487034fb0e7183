"""minillama/data/wikipedia.py: articles as text, nothing of their markup.

Checked against mwxml's reading of the same dumps, for which pages there are;
against cases of wiki markup with the text that a reader sees; by the share
of markup that is left in real dumps, where they are at hand, and in a dump
made here; and against dumps cut and corrupted at random.
"""

from __future__ import annotations

import bz2
import io
import re
import time
from xml.sax.saxutils import escape

import pytest

from minillama.data import archives, wikipedia
from minillama.data.document import Ledger
from tests.broken import peak, survives
from tests.real import real_data

HEADER = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" \
version="0.10" xml:lang="{language}">
  <siteinfo>
    <dbname>{language}wiki</dbname>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="6" case="first-letter">{file}</namespace>
      <namespace key="14" case="first-letter">{category}</namespace>
    </namespaces>
  </siteinfo>
"""


def page(id: int, text: str, *, title: str = "", ns: int = 0,
         redirect: str = "") -> str:
    """A page as it stands in a dump."""
    return (f"  <page>\n    <title>{title or f'Page {id}'}</title>\n"
            f"    <ns>{ns}</ns>\n    <id>{id}</id>\n"
            + (f'    <redirect title="{redirect}" />\n' if redirect else "")
            + "    <revision>\n      <id>9</id>\n      <text xml:space="
            f'"preserve">{escape(text)}</text>\n    </revision>\n'
            "  </page>\n")


def dump(*pages: str, language: str = "en", file: str = "File",
         category: str = "Category") -> bytes:
    """A whole dump."""
    return (HEADER.format(language=language, file=file, category=category)
            + "".join(pages) + "</mediawiki>\n").encode()


def read(path) -> tuple[list, Ledger]:
    """The articles of a dump, and the books."""
    ledger = Ledger()
    return list(wikipedia.read(path, ledger)), ledger


@pytest.mark.parametrize("markup, text", [
    ("'''Bold''' and ''slanted'' and '''''both'''''",
     "Bold and slanted and both"),
    ("a [[link]] and [[Target|another]] and [[link]]s",
     "a link and another and links"),
    ("[http://x.org a site] and [http://x.org] and http://y.org",
     "a site and  and"),
    ("x<ref>note [[a]]</ref> y<ref name=\"b\" /> z<ref name=c>d</ref>",
     "x y z"),
    ("a<!-- hidden -->b<!-- never\nclosed", "ab"),
    ("{{Infobox|a={{b}}|c=[[d]]}}Text {{cite|e}} more", "Text  more"),
    ("{| class=x\n|-\n| a || b\n{| \n| c\n|}\n|}\nafter", "after"),
    ("[[File:a.jpg|thumb|A [[cat]] here]]Text", "Text"),
    ("[[Image:a.jpg]]Text[[Category:Cats]]", "Text"),
    ("Text\n[[fr:Chat]]\n[[zh-min-nan:Niau]]", "Text"),
    ("See [[:Category:Cats|cats]] and [[Star Trek: Picard]]",
     "See cats and Star Trek: Picard"),
    ("== History ==\nIt was.\n=== Early ===\nOld.",
     "History \nIt was.\n Early \nOld."),
    ("* one\n* two\n# three\n; four : five", " one\n two\n three\n four  five"
     ),
    ("a &amp; b&nbsp;c &lt;d&gt; &#233;", "a & b\u00a0c <d> é"),
    ("H<sub>2</sub>O, <b>bold</b><br />next <small>small</small>",
     "H2O, boldnext small"),
    ("<gallery>\na.jpg|A\n</gallery>x<math>E=mc^2</math>y"
     "<syntaxhighlight lang=c>int x;</syntaxhighlight>z", "xyz"),
    ("__NOTOC__Text\n\n\n\nmore", "Text\n\nmore"),
    ("| a row that lost its table\nText\n|}", "Text"),
    ("stray ]] and }} and '' signs [[", "stray  and  and  signs "),
    ("it's 'quoted' and don't", "it's 'quoted' and don't"),
    ("{{{1|default}}}x", "x"),
])
def test_markup_becomes_what_a_reader_sees(markup, text):
    found = wikipedia.plain(markup)
    assert [line.strip() for line in found.split("\n")] == [
        line.strip() for line in text.strip().split("\n")]


def test_names_of_files_and_categories_in_other_languages(tmp_path):
    path = tmp_path / "bgwiki.xml.bz2"
    text = "[[Файл:a.jpg|мини|x]]Котка[[Категория:Котки]]"
    path.write_bytes(bz2.compress(dump(
        page(7, text, title="Котка"), language="bg", file="Файл",
        category="Категория")))
    (article,), _ = read(path)
    assert article.id == "bg/7" and article.source == "wikipedia"
    assert article.text == "Котка\n\nКотка"


PAGES = [page(1, "One is ''a'' number."), page(2, "#REDIRECT [[One]]",
                                               redirect="One"),
         page(3, "#redirect [[One]]"), page(4, "talk", ns=1),
         page(5, "{{stub}}"), page(6, "Six &amp; more.")]


def test_which_pages_are_articles(tmp_path):
    path = tmp_path / "enwiki.xml"
    path.write_bytes(dump(*PAGES))
    articles, ledger = read(path)
    assert [(a.id, a.text) for a in articles] == [
        ("en/1", "Page 1\n\nOne is a number."),
        ("en/6", "Page 6\n\nSix & more.")]
    assert ledger.dropped == {"redirect": 2, "no article": 1, "empty": 1}


def test_twenty_languages(tmp_path):
    assert len(set(wikipedia.LANGUAGES)) == 20
    assert list(wikipedia.LANGUAGES) == sorted(wikipedia.LANGUAGES)
    for language in ("en", "uk", "ja", "simple"):
        path = tmp_path / "x.xml"
        path.write_bytes(dump(*PAGES, language=language))
        assert bool(read(path)[0]) == (language in wikipedia.LANGUAGES)
    assert read(path)[1].dropped["other language"] == 3


def test_a_broken_page_costs_itself_alone(tmp_path):
    path = tmp_path / "enwiki.xml"
    bad = [page(7, "x").replace("</text>", "</txt>"),
           page(8, "x").replace(">x<", ">&bomb;<"),
           page(9, "\x00x"),
           page(10, "x").replace("</page>", "</pag>")]
    data = dump(PAGES[0], *bad, PAGES[5]).replace(
        b"<siteinfo>", b'<!DOCTYPE x [<!ENTITY b "bb"><!ENTITY bomb "&b;&b;">'
        b"]>\n<siteinfo>")
    path.write_bytes(data)
    articles, ledger = read(path)
    assert [a.id for a in articles] == ["en/1", "en/6"]
    assert ledger.dropped == {"broken XML": 3, "cut off": 1}
    path.write_bytes(dump(page(1, "&#" + "1" * 5000 + ";x"), PAGES[0]
                          .replace("\n", "") + "\n", "x" * 5_000_000 + "\n",
                          PAGES[5]))
    articles, ledger = read(path)
    assert [a.id for a in articles] == ["en/1", "en/6"]
    assert ledger.dropped == {"broken XML": 1, "too long": 1}
    path.write_bytes(b'<mediawiki xml:lang="\xff">\n' + PAGES[0].encode())
    assert read(path)[1].dropped == {"other language": 1}
    path.write_bytes(dump(page(1, "caf\xe9")).replace(b"\xc3\xa9", b"\xe9"))
    assert read(path)[1].dropped == {"broken XML": 1}


def test_a_page_too_long_costs_itself_alone_and_little_memory(tmp_path):
    path = tmp_path / "enwiki.xml.bz2"
    with bz2.open(path, "wb", compresslevel=1) as file:
        file.write(HEADER.format(language="en", file="File",
                                 category="Category").encode())
        file.write(b"  <page>\n" + b"x" * 20_000_000 + b"\n  </page>\n")
        file.write(b"  <page>\n" + b"yyyyyyyyy\n" * 500_000 + b"  </page>\n")
        file.write(PAGES[0].encode() + b"</mediawiki>\n")
    found: list = []
    assert peak(lambda: found.extend(read(path))) < 30
    articles, ledger = found
    assert len(articles) == 1 and ledger.dropped == {"too long": 2}


def test_many_revisions_and_headers_cost_no_square_of_time(tmp_path):
    path = tmp_path / "enwiki.xml"
    many = "<revision><text>old</text></revision>" * 50_000
    path.write_bytes(dump(page(1, "new").replace("<revision>", many
                                                 + "<revision>", 1))
                     + b"<mediawiki " * 100_000)
    start = time.process_time()
    (article,), _ = read(path)
    assert article.text == "Page 1\n\nnew"
    assert time.process_time() - start < 5


def test_a_dump_cut_in_the_middle_keeps_what_came_before(tmp_path):
    path = tmp_path / "enwiki.xml"
    path.write_bytes(dump(*PAGES)[:-40])
    assert read(path)[1].dropped["cut off"] == 1
    path = tmp_path / "enwiki.xml.bz2"
    whole = bz2.compress(dump(PAGES[0])) + bz2.compress(dump(*PAGES * 9))
    path.write_bytes(whole[:-50])
    articles, ledger = read(path)
    assert len(articles) >= 1 and ledger.dropped["cut off"] == 1


def test_broken_dumps_cost_themselves_alone(tmp_path):
    pages = [page(n, f"Text ''{n}'' [[a]] {{{{b}}}} {{|\n|c\n|}}")
             for n in range(20)]
    ledger = survives(wikipedia.read, tmp_path / "a.xml", dump(*pages))
    assert ledger.kept > 300 and ledger.dropped["broken XML"] > 5


@pytest.mark.parametrize("piece", [
    "{{", "[[", "{|\n", "<b>", "<ref>", "<ref name=x>", "<!--", "''", "'''",
    "<gallery>", "[http://", "{{{", "<math>", "\n|-\n|", "</div>", "__A__",
    "&", "\n* ", "<nowiki>", " ", "\n", "\n ", "[//", "[mailto:", "{{a|",
    "{{{a|", "[[a|", "}}{{a|"])
def test_hostile_markup_takes_seconds_not_hours(piece):
    """A megabyte of each; the parser alone would take an hour for some."""
    start = time.process_time()
    try:
        wikipedia.plain("Text " + piece * (1_000_000 // len(piece)) + "x")
    except archives.Refused as reason:
        assert str(reason) == "too much markup"
    assert time.process_time() - start < 20


def test_more_markup_than_an_article_has_is_refused():
    most = 300
    assert wikipedia.plain("Text " + "{|\n|a\n|}\n" * most) == "Text"
    with pytest.raises(archives.Refused, match="too much markup"):
        wikipedia.plain("Text " + "{|\n|a\n|}\n" * (most + 1))


LEFT = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|<!--|-->|'{2,}"
                  r"|</?(?:ref|b|i|small|div|span|table|gallery)\b[^<>]*>")


@pytest.mark.oracle
@pytest.mark.parametrize("name, least", [
    ("enwiki-latest-pages-articles1.xml-p10-p30302-shortened.bz2", 2_800_000),
    ("bgwiki-latest-pages-articles-shortened.xml.bz2", 7_000),
    ("enwiki-table-markup.xml.bz2", 100_000)])
@pytest.mark.slow
def test_real_dumps_against_mwxml(name, least):
    """The same articles; at most 0.1 % of the characters are markup."""
    import mwxml

    path = real_data(f"sources/wikipedia/{name}")
    articles, ledger = read(path)
    whole = bz2.decompress(path.read_bytes()).decode(
        "utf-16" if name.startswith("bg") else "utf-8")
    if "<siteinfo>" not in whole:  # mwxml insists on one
        whole = whole.replace("<page>", "<siteinfo />\n<page>", 1)
    pages = list((p.id, p.redirect, p.namespace)
                 for p in mwxml.Dump.from_file(io.StringIO(whole)))
    wanted = {f"{path.name[:2]}/{id}" for id, redirect, space in pages
              if redirect is None and space == 0}
    assert {article.id for article in articles} == wanted
    assert ledger.seen == len(pages)
    size = sum(len(article.text) for article in articles)
    left = sum(len(found[0]) for article in articles
               for found in LEFT.finditer(article.text))
    assert size > least and left <= size / 1000
