"""Files written in one step: whole or not at all.

Checked against what a reader of the file may see: the old bytes or the new
ones, whatever fails in between; and against hashlib on the same bytes.
"""

from __future__ import annotations

import hashlib
import os

import pytest

from minillama import files


def test_new_bytes_replace_the_old_ones(tmp_path):
    path = tmp_path / "deep" / "file"
    files.replace_bytes(path, b"old")
    files.replace_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


def test_a_failure_before_the_rename_leaves_the_old_bytes(
        tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.replace_bytes(path, b"old")

    def fail(*_):
        raise OSError("the plug was pulled")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="plug"):
        files.replace_bytes(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 999])
def test_fingerprint_is_size_and_sha256(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert files.fingerprint(path) == {
        "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_flush_reaches_the_disk_once_for_a_file_and_for_a_folder(
        tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    flushed = []
    monkeypatch.setattr(
        files.os, "fsync",
        lambda handle: flushed.append(os.fstat(handle).st_ino))
    files.flush(path)
    files.flush(tmp_path)
    assert flushed == [path.stat().st_ino, tmp_path.stat().st_ino]
