"""Sphinx configuration; the documented package is the installed one."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

project = "pyconv"
author = "The pyconv developers"
copyright = f"2026, {author}"
release = metadata.version("pyconv-ops")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "example_plugin"]
default_role = "autolink"
smartquotes = False  # they would curl the quotes of {"zeros", "reflect"}

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = f"pyconv {release}"
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}
html_sidebars = {"*": [], "api/**": ["sidebar-nav-bs"]}
html_show_sourcelink = False


def escape_shapes(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the star of ``x : array, shape (N, C, *S)`` from becoming emphasis."""
    for i, line in enumerate(lines):
        if match := re.match(r"\*?\w[\w, ]* : ", line):
            lines[i] = match[0] + line[match.end() :].replace("*", r"\*")


def setup(app: Any) -> None:
    """Run before numpydoc does."""
    app.connect("autodoc-process-docstring", escape_shapes, priority=100)
