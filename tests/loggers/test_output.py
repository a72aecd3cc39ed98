"""What happens to a run whose standard output is read no more."""

import subprocess
import sys

import pytest

from acme_lite import loggers

SAYS = """
loggers.say("first")
wait()
for _ in range(3):
    loggers.say("nobody reads this")
print("nor this", flush=True)
"""
PROGRESS = """
with loggers.Progress(10, "run") as progress:
    wait()
    progress.advance(10)
"""
CONSOLE = """
import rich.console
console = rich.console.Console()
console.print("first")
wait()
for _ in range(3):
    with loggers.tolerate_loss():
        console.print("nobody reads this")
"""


@pytest.mark.parametrize("body", [SAYS, PROGRESS, CONSOLE], ids=["say", "progress", "console"])
def test_a_run_goes_on_where_its_pipe_is_broken(body):
    code = f"import sys\nfrom acme_lite import loggers\nwait = sys.stdin.readline\n{body}\nsys.stderr.write('done')"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline().startswith(("first", "run"))
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == "done"
    assert process.returncode == 0


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SystemExit(3)])
def test_other_errors_are_not_hidden(error):
    with pytest.raises(type(error)), loggers.tolerate_loss():
        raise error
