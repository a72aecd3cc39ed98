"""The tutorial's code runs as it stands, and prints what stands below it."""

import contextlib
import io
import pathlib
import re
import sys
import types

TUTORIAL = pathlib.Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_blocks_run_in_order_and_print_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # runs write below it
    text = TUTORIAL.read_text(encoding="utf-8")
    module = types.ModuleType("tutorial")
    monkeypatch.setitem(sys.modules, "tutorial", module)  # checkpoints look classes up in their modules
    names = vars(module)
    printed, num_compared = "", 0
    for match in BLOCK.finditer(text):
        language, block = match.groups()
        assert language in {"python", "text"}, f"The tutorial has a block of {language!r}, which nothing checks."
        if language == "text":
            assert printed == block
            printed, num_compared = "", num_compared + 1
            continue
        assert not printed, f"The page does not show that a block prints {printed!r}."
        first_line = text[: match.start(2)].count("\n")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * first_line + block, str(TUTORIAL), "exec"), names)
        printed = output.getvalue()
    assert not printed and num_compared >= 6
