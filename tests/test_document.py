"""minillama/data/document.py: the books balance, whatever happens.

Checked by arithmetic: any sequence of keeping and dropping gives seen = kept
+ dropped, in one ledger or in several added up; a document that gets other
text keeps everything else.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minillama.data.document import Document, Ledger

PAGE = Document("c4", "a", "text", {"url": "x"})


@given(st.lists(st.lists(st.sampled_from(["keep", "too short", "language"]))))
def test_the_books_balance(parts):
    total, ledgers = Ledger(), []
    for part in parts:
        ledger = Ledger()
        for verdict in part:
            if verdict == "keep":
                assert ledger.keep(PAGE) is PAGE
            else:
                ledger.drop(verdict)
                ledger.cut("few words", 2)
        ledgers.append(ledger)
    for ledger in ledgers:
        total += ledger
    flat = [verdict for part in parts for verdict in part]
    assert total.seen == len(flat)
    assert total.kept == flat.count("keep")
    for reason in ("too short", "language"):
        assert total.dropped[reason] == flat.count(reason)
    assert total.lines.total() == 2 * total.dropped.total()


def test_other_text_keeps_the_rest():
    changed = PAGE.with_text("new", lines=3)
    assert changed == Document("c4", "a", "new", {"url": "x", "lines": 3})
    assert PAGE.text == "text" and PAGE.metadata == {"url": "x"}
