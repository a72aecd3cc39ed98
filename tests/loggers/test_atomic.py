"""Files that are replaced at once: what is there before, after, and after an error."""

import os

import pytest

from acme_lite.loggers import atomic


def test_the_contents_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    path, calls = tmp_path / "file.txt", []

    def note(name):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments: calls.append((name, path.exists())) or call(*arguments))

    note("fsync")
    note("replace")
    with atomic.replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path and temporary.suffix == ".txt"
    assert calls == [("fsync", False), ("replace", False)]
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("in the middle")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
