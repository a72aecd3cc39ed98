"""The examples in docstrings run and give what they say."""

import doctest
import importlib
import pathlib

import pytest

import acme_lite

ROOT = pathlib.Path(acme_lite.__file__).parent
# Looked for in the text: what has no example need not be imported.
MODULES = sorted(
    ".".join(("acme_lite", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
