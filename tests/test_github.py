"""minillama/data/github.py: whose code, of which quality, without headers.

Checked against licences and files made here on both sides of each rule, in
all three forms (a folder, an installed package, rows of an export), which
have to agree; against the packages that are installed where the tests run,
whose licences their own metadata declares; and against real licence files,
where they are at hand.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.data import github
from minillama.data.document import Ledger
from tests.broken import peak, survives
from tests.real import real_data

MIT = ("MIT License\n\nCopyright (c) 2020 Nobody\n\nPermission is hereby "
       "granted, free of charge, to any\nperson obtaining a copy ...\n")
BSD = ("Copyright (c) 2020, Nobody\n\nRedistribution and use in source and "
       "binary forms,\nwith or without modification ...\n")
APACHE = "    Apache License\n    Version 2.0, January 2004\n    terms ...\n"
GPL = ("GNU GENERAL PUBLIC LICENSE\nVersion 3\n\nPermission is hereby "
       "granted, free of charge ...\n")


@pytest.mark.parametrize("text, licence", [
    (MIT, "mit"), (BSD, "bsd"), (APACHE, "apache-2.0"), (GPL, None),
    ("All rights reserved.", None), ("", None),
    (BSD + "\nParts are under the GNU Lesser General Public License.", None),
])
def test_licence_files_are_told_apart(text, licence):
    assert github.licence_text(text) == licence


@pytest.mark.parametrize("licence, right", [
    ("mit", True), ("MIT License", True), ("The MIT License (MIT)", True),
    ("bsd-3-clause", True), ("BSD-2-Clause", True), ("3-Clause BSD", True),
    ("Apache-2.0", True), ("Apache Software License", True),
    ("MIT OR GPL-3.0", True), ("GPL-3.0 or Apache-2.0", True),
    ("MIT AND Apache-2.0", True), ("(MIT AND BSD-3-Clause)", True),
    ("MIT AND MPL-2.0", False), ("BSD-3-Clause AND Zlib", False),
    ("gpl-3.0", False), ("LGPL-2.1", False), ("isc", False),
    ("Mitsubishi licence", False), ("not MIT", False), ("", False),
    (None, False),
])
def test_three_licences_are_allowed(licence, right):
    assert github.allowed(licence) == right


CODE = "def add(a, b):\n    return a + b\n"


def repository(folder: Path, terms: str | None = MIT,
               **files: str | bytes) -> Path:
    """A folder with a licence and files; __ in a name is a dot."""
    folder.mkdir(parents=True)
    if terms:
        (folder / "LICENSE").write_text(terms, encoding="utf-8")
    for name, text in files.items():
        path = folder / name.replace("__", ".").replace("SLASH", "/")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def read(path: Path) -> tuple[dict[str, str], Ledger]:
    """Texts by id, and the books."""
    ledger = Ledger()
    return {document.id: document.text
            for document in github.read(path, ledger)}, ledger


def test_a_repository_gives_its_code(tmp_path):
    path = repository(
        tmp_path / "tool", main__py=CODE, srcSLASHx__C="int x;\n",
        Makefile="all:\n\techo all\n", logo__png=b"\x89PNG",
        data__csv="1,2\n", __gitSLASHconfig__py=CODE)
    found, ledger = read(path)
    assert found == {"tool/main.py": CODE, "tool/src/x.C": "int x;\n",
                     "tool/Makefile": "all:\n\techo all\n"}
    assert ledger.dropped == {"file type": 3}  # with LICENSE itself


@pytest.mark.parametrize("files, kept", [
    ({"pyproject__toml": '[project]\nlicense = "MIT"\n'}, True),
    ({"pyproject__toml": '[project]\nlicense = { text = "BSD" }\n'}, True),
    ({"pyproject__toml": 'license = {file = "LICENSE"}\n'}, False),
    ({"package__json": '{\n  "name": "x",\n  "license": "Apache-2.0"\n}'},
     True),
    ({"Cargo__toml": 'license = "MIT OR Apache-2.0"\n'}, True),
    ({"package__json": '{\n  "license": "GPL-3.0"\n}', "COPYING": MIT},
     False),
    ({"COPYING__txt": MIT}, True), ({"licence": BSD}, True),
    ({"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}, True),
    ({"LICENSE": GPL, "LICENSE__other": MIT}, False),
    ({"subSLASHLICENSE": MIT}, False), ({}, False),
])
def test_a_repository_declares_its_licence(tmp_path, files, kept):
    path = repository(tmp_path / "tool", None, main__py=CODE, **files)
    found, ledger = read(path)
    assert ("tool/main.py" in found) == kept
    assert bool(ledger.dropped["licence"]) != kept


# A file on each side of every rule: (name, content, reason or None).
EDGES = [
    ("a.py", "x" * 1000 + "\n" + "x\n" * 20, None),
    ("a.py", "x" * 1001 + "\n" + "x\n" * 20,
     "a line over 1,000 characters"),
    ("a.py", "\n".join(["x" * 99] * 9 + ["x" * 91]), None),
    ("a.py", "\n".join(["x" * 100] * 10),
     "lines over 100 characters on average"),
    ("a.py", "xy......", None),
    ("a.py", "xy.......", "under 25 % letters and digits"),
    ("a.py", "é1......", None),
    ("a.py", " \n\n", "empty"), ("a.py", "", "empty"),
    ("a.crt", "text\n", "file type"), ("LICENSE", "text\n", "file type"),
    ("a.PY", "text\n", None), ("b/Makefile", "all: x\n", None),
    ("a.py", b"caf\xe9\n", "not UTF-8"),
    ("a.py", b"x\n" * 500_000, None),
    ("a.py", b"x\n" * 500_001, "too large"),
    ("a.py", None, "link"),
]


@pytest.mark.parametrize("name, data, reason", EDGES)
def test_each_rule_has_its_edge(name, data, reason):
    data = data.encode() if isinstance(data, str) else data
    found = github.clean(name, "mit", data)
    assert found == reason if reason else isinstance(found, tuple)


HEADERS = [
    ("/* Copyright 2020 Nobody.\n * All rights. */\n\nint x;\n", "int x;\n"),
    ("// Copyright 2020\n// SPDX-License-Identifier: MIT\n\nx = 1;\n",
     "x = 1;\n"),
    ("#!/bin/sh\n# Copyright (c) 2020\n#\n# Licensed under MIT\n\necho a\n",
     "#!/bin/sh\necho a\n"),
    ("# -*- coding: utf-8 -*-\n# Copyright 2020\nx = 1\n",
     "# -*- coding: utf-8 -*-\nx = 1\n"),
    ("-- (c) 2020 Nobody\nSELECT 1;\n", "SELECT 1;\n"),
    ("<!-- Copyright 2020 -->\n<p>x</p>\n", "<p>x</p>\n"),
    ("; License: BSD\nmov ax, 1\n", "mov ax, 1\n"),
    ("\n\n/* License */\nint x;\n", "int x;\n"),
    # What a header says besides stays, and so does all that is no header.
    ("# Adds two numbers.\nx = 1\n", None),
    ("/* Adds two numbers. */\nint x;\n", None),
    ("#include <license.h>\nint x;\n", None),
    ("x = 1\n# Copyright 2020\n", None),
    ("#!/bin/sh\necho a\n", None),
]


@pytest.mark.parametrize("text, wanted", HEADERS)
def test_licence_headers_go_and_other_comments_stay(text, wanted):
    found, lines = github.clean("a.c", "mit", text.encode())
    assert found == (wanted or text)
    if wanted:
        body = wanted.removeprefix("#!/bin/sh\n").removeprefix(
            "# -*- coding: utf-8 -*-\n")
        gone = text[:-len(body)].removeprefix("#!/bin/sh\n").removeprefix(
            "# -*- coding: utf-8 -*-\n").strip()
        assert lines in (gone.count("\n") + 1, gone.count("\n") + 2)
    else:
        assert lines == 0


def test_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret.py"
    secret.write_text("password = 1\n", encoding="utf-8")
    path = repository(tmp_path / "tool", MIT, main__py=CODE)
    (path / "link.py").symlink_to(secret)
    (path / "LICENSE.md").symlink_to(secret)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.py").write_text(CODE, encoding="utf-8")
    (path / "folder").symlink_to(tmp_path / "other")
    found, ledger = read(path)
    assert list(found) == ["tool/main.py"]
    assert ledger.dropped["link"] == 2


def export(path: Path, rows: list) -> Path:
    """A file of JSON lines."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    pack = gzip.compress if path.suffix == ".gz" else bytes
    path.write_bytes(pack(text.encode()))
    return path


def test_folder_and_export_agree(tmp_path):
    folder = repository(tmp_path / "tool", MIT, main__py=CODE,
                        bad__py="." * 50, aSLASHb__js="let x = 1;\n")
    rows = [{"repo_name": "tool", "path": file.relative_to(
        folder).as_posix(), "content": file.read_text("utf-8"),
        "license": "mit"} for file in folder.rglob("*") if file.is_file()]
    exported = export(tmp_path / "rows.jsonl.gz", rows)
    (from_folder, books), (from_rows, rows_books) = read(folder), read(
        exported)
    assert from_folder == from_rows and len(from_rows) == 2
    assert books == rows_books
    assert github.inputs(tmp_path) == [exported, folder]
    assert github.inputs(exported) == [exported]


def test_broken_rows_cost_themselves_alone(tmp_path):
    good = {"repo_name": "a/b", "path": "x.py", "content": CODE,
            "license": "mit"}
    rows = [{**good, "content": None}, {"path": "y.py"}, [], None, 3,
            {**good, "license": "gpl-3.0"}, good]
    path = export(tmp_path / "rows.jsonl", rows)
    with open(path, "ab") as file:
        file.write(b'{"cut": \n' + b'"' + b"x" * 9_000_000 + b"\n"
                   + b"[" * 5000 + b"\n" + b"\xff\n")
    found, ledger = read(path)
    assert list(found) == ["a/b/x.py"]
    assert ledger.dropped == {"broken row": 8, "licence": 1,
                              "row too long": 1}
    assert peak(lambda: read(path)) < 40


@pytest.mark.parametrize("text", [
    " " * 500_000 + "x", "#" + "coding=" * 100_000, "\n" * 500_000 + "x"])
def test_hostile_files_take_linear_time(tmp_path, text):
    (tmp_path / "package.json").write_text(text, encoding="utf-8")
    start = time.process_time()
    assert github.licence_of(tmp_path) is None
    assert isinstance(github.clean("a.py", "mit", text.encode()), str)
    assert time.process_time() - start < 5


def test_broken_exports_cost_themselves_alone(tmp_path):
    rows = [{"repo_name": "a/b", "path": f"x{n}.py", "content": CODE,
             "license": "mit"} for n in range(20)]
    data = export(tmp_path / "rows.jsonl", rows).read_bytes()
    ledger = survives(github.read, tmp_path / "rows.jsonl", data)
    assert ledger.kept > 300 and ledger.dropped["broken row"] > 10
    (tmp_path / "rows.jsonl").unlink()
    ledger = survives(github.read, tmp_path / "rows.jsonl.gz",
                      gzip.compress(data, mtime=0))
    assert ledger.dropped["broken archive"] > 20


def test_installed_packages_by_their_metadata(tmp_path):
    """As in site-packages: a .dist-info folder beside the files."""
    about = tmp_path / "tool-1.0.dist-info"
    about.mkdir()
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "secret.py").write_text(CODE, encoding="utf-8")
    (about / "RECORD").write_text(
        "tool/__init__.py,,\ntool/gone.py,,\n../secret.py,,\n"
        "tool-1.0.dist-info/METADATA,,\n", encoding="utf-8")
    path, = github.inputs(tmp_path)
    for lines, kept in (
            ("License-Expression: MIT", 1), ("License: BSD", 1),
            ("License: GPL", 0), ("", 0),
            ("License-Expression: GPL-3.0\nLicense: MIT", 0),
            ("Classifier: License :: OSI Approved :: MIT License", 1),
            ("Classifier: License :: OSI Approved :: MIT License\n"
             "Classifier: License :: OSI Approved :: GNU General Public "
             "License (GPL)", 0)):
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: tool\n{lines}\n\nMIT\n",
            encoding="utf-8")
        found, _ = read(path)
        assert list(found) == ["tool/tool/__init__.py"] * kept, lines


@pytest.mark.parametrize("name, kept", [
    ("pytest", True), ("hypothesis", False), ("nbval", True),
    ("sentencepiece", True), ("certifi", False)])
def test_the_packages_installed_here(name, kept):
    """MIT, MPL, BSD, Apache and MPL again, as they say themselves."""
    try:
        about = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    folder = Path(str(about.locate_file(""))).resolve()
    path = next(path for path in github.inputs(folder)
                if path.name.lower().startswith(f"{name}-"))
    found, ledger = read(path)
    assert ledger.seen > 5
    assert (len(found) > 0) == kept
    for id, text in found.items():
        place = folder / id.split("/", 1)[1]
        assert text[-50:] == place.read_text("utf-8").replace(
            "\r\n", "\n")[-50:]


@pytest.mark.parametrize("name, licence", [
    ("pytorch", "bsd"), ("rails_mit", "mit"), ("react_mit", "mit")])
def test_real_licence_files(name, licence):
    path = real_data(f"sources/github/licenses/{name}_license.txt")
    assert github.licence_text(path.read_text("utf-8")) == licence


@given(st.text())
def test_letters_and_digits_are_those_of_python(text):
    assert github.alphanumeric(text) == sum(map(str.isalnum, text))
