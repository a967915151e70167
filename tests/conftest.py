"""Fixtures that several files of tests share."""

import re
import sys

import pytest

import pyconv


@pytest.fixture
def pip_install(tmp_path, monkeypatch):
    """Install a package for one test: what pip would leave, and its sources on the path."""
    before = set(sys.modules)

    def install(folder):
        text = (folder / "pyproject.toml").read_text()
        name = re.search(r'^name = "(.*)"$', text, re.M)[1]
        points = re.search(r'^\[project.entry-points."(.*)"\]\n((?:.+\n)+)', text, re.M)
        info = tmp_path / "site" / f"{name.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
        values = points[2].replace('"', "")
        (info / "entry_points.txt").write_text(f"[{points[1]}]\n{values}")
        monkeypatch.syspath_prepend(info.parent)
        monkeypatch.syspath_prepend(folder / "src")
        pyconv.refresh()

    yield install
    monkeypatch.undo()
    pyconv.refresh()
    for name in set(sys.modules) - before:
        if "/src/" in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
