"""How Sphinx builds the documentation: the pages beside this file, and a page of reference for every public module.

A page of reference shows what a module's `__all__` names, or else what it defines. Nothing here names a module.
"""

from __future__ import annotations

import importlib
import pathlib
import pkgutil
import re
from types import ModuleType
from typing import Any

import acme_lite
from acme_lite import agents

project = "acme_lite"
author = copyright = "The acme_lite authors"
version = release = acme_lite.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "acme_lite"
html_show_sphinx = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # `Attributes:` as a list, so that fields with docstrings of their own are not there twice
napoleon_custom_sections = [("Reference", "notes_style")]

autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = True

default_role = "ours"

REFERENCE = pathlib.Path(__file__).parent / "reference"


def public_modules() -> list[str]:
    """Returns the names of the package's modules that users import, but for parts of packages."""
    names = [f"acme_lite.{info.name}" for info in pkgutil.iter_modules(acme_lite.__path__) if info.name[0] != "_"]
    names += [f"acme_lite.agents.{name}" for name in agents.NAMES]
    for name in list(names):
        module = importlib.import_module(name)
        names += [
            f"{name}.{member}"
            for member in getattr(module, "__all__", ())
            if isinstance(getattr(module, member), ModuleType)
        ]
    return sorted(names)


def write_reference() -> None:
    """Writes a page for every public module; pages of modules that are gone are removed."""
    REFERENCE.mkdir(exist_ok=True)
    names = public_modules()
    for page in REFERENCE.glob("*.rst"):
        if page.stem not in names:
            page.unlink()
    for name in names:
        text = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n"
        page = REFERENCE / f"{name}.rst"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


write_reference()
