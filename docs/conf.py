"""How Sphinx builds the documentation: the pages beside this file, and a page of reference for every public module.

A page of reference shows what a module's `__all__` names, or else what it defines. Nothing here names a module.
"""

from __future__ import annotations

import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
from types import ModuleType
from typing import Any, NamedTuple, get_origin

from docutils import nodes
from docutils.parsers.rst import roles
from sphinx.domains.python import PyXRefRole
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

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
autodoc_inherit_docstrings = False

default_role = "ours"
nitpick_ignore_regex = [
    # What other packages document: their pages cannot be asked without the net.
    ("py:.*", r"(jax|jaxlib|jaxtyping|numpy|np|dm_env|dm_specs|optax|rich|gymnasium|launchpad)\..*"),
    ("py:.*", r"(abc|collections|concurrent|enum|os|pathlib|threading|types)\..*"),
    # Names without a module stand for those, too, and what lies deeper than a package exports is not public.
    ("py:class", r"'?[A-Z]\w*'?|acme_lite\.\w+\.\w+\.\w+|(return_models|running_statistics)\.\w+"),
]

REFERENCE = pathlib.Path(__file__).parent / "reference"


def public_modules() -> list[str]:
    """Returns the names of the package's modules that users import, but for parts of packages."""
    names = [f"acme_lite.{info.name}" for info in pkgutil.iter_modules(acme_lite.__path__) if info.name[0] != "_"]
    names += [f"acme_lite.agents.{info.name}" for info in pkgutil.iter_modules(agents.__path__)]
    for name in list(names):
        module = importlib.import_module(name)
        members = {member: getattr(module, member) for member in getattr(module, "__all__", ())}
        vars(module).update(members)  # what is imported when it is asked for
        names += [f"{name}.{member}" for member, value in members.items() if isinstance(value, ModuleType)]
    return sorted(names)


def data_of(name: str) -> dict[str, list[str]]:
    """Returns the constants and aliases that a package exports from its modules, and the docstrings below them."""
    package = importlib.import_module(name)
    analyzers = [ModuleAnalyzer.for_module(module) for module in sorted(sys.modules) if module.startswith(f"{name}.")]
    docs = {attribute: lines for one in analyzers for (_, attribute), lines in one.find_attr_docs().items()}
    members = {member: getattr(package, member) for member in getattr(package, "__all__", ())}
    return {
        member: docs.get(member, [])
        for member, value in members.items()
        if get_origin(value) or not (inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value))
    }


def write_reference() -> None:
    """Writes a page for every public module; pages of modules that are gone are removed."""
    REFERENCE.mkdir(exist_ok=True)
    names = public_modules()
    for page in REFERENCE.glob("*.rst"):
        if page.stem not in names:
            page.unlink()
    for name in names:
        text = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n"
        for member, lines in data_of(name).items():
            text += f"\n.. py:data:: {member}\n\n" + "".join(f"   {line}\n" for line in lines)
        page = REFERENCE / f"{name}.rst"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


write_reference()


def ours(name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()) -> Any:
    """The role of `text` in single backticks: a link where it is the name of something documented, code otherwise."""
    if re.fullmatch(r"[A-Za-z_][\w.]*", text):
        return PyXRefRole()("py:obj", rawtext, text, lineno, inliner, options or {}, content)
    return [nodes.literal(rawtext, text)], []


def rewrite_docstring(app: Any, what: str, name: str, object_: Any, options: Any, lines: list[str]) -> None:
    """Makes what is indented behind a colon and an empty line a literal block: equations, diagrams, commands."""
    for index in range(len(lines) - 2):
        line, empty, block = lines[index : index + 3]
        indent = len(line) - len(line.lstrip())
        if line.endswith(":") and not line.endswith("::") and not empty.strip() and block[: indent + 1].isspace():
            lines[index] = f"{line}:"


_field_docs: dict[str, list[str]] = {}


def hide_field(app: Any, what: str, name: str, object_: Any, options: Any, lines: list[str]) -> None:
    """Hides a field's docstring from napoleon, which takes what stands before a colon for a type."""
    if what in {"attribute", "data"}:
        _field_docs[name] = list(lines)
        lines.clear()


def show_field(app: Any, what: str, name: str, object_: Any, options: Any, lines: list[str]) -> None:
    """Puts back what `hide_field` has hidden."""
    lines[:] = _field_docs.pop(name, lines)


def skip_member(app: Any, what: str, name: str, object_: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out the fields of named tuples, which their class describes under `Attributes:`."""
    return True if isinstance(object_, type(_Field.field)) else None


class _Field(NamedTuple):
    field: int


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Resolves a name as it stands in the code, `tables.Table`, to where users find it, `acme_lite.replay.Table`."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    objects = env.get_domain("py").objects
    found = [name for name in objects if name.endswith(f".{target}")] or [
        name for name in objects if name.rpartition(".")[2] == target.rpartition(".")[2] and "." in target
    ]
    if len(found) == 1:
        entry = objects[found[0]]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0])
    return content if node["reftype"] == "obj" else None


def check_names(app: Any, env: Any) -> None:
    """Warns of every public name that the reference does not show: a class or function without a docstring."""
    objects = env.get_domain("py").objects
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", ()):
            if f"{module_name}.{name}" not in objects:
                logging.getLogger(__name__).warning("%s.%s is public and has no docstring.", module_name, name)


def setup(app: Any) -> None:
    """Tells Sphinx of the functions above."""
    roles.register_local_role("ours", ours)
    for function, priority in ((rewrite_docstring, 300), (hide_field, 400), (show_field, 600)):  # napoleon: 500
        app.connect("autodoc-process-docstring", function, priority=priority)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", resolve)
    app.connect("env-check-consistency", check_names)
