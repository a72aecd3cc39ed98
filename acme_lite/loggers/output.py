"""Words on standard output, which may be gone before the run is."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

_GONE = (errno.EPIPE, errno.EIO)


def say(text: str) -> None:
    """Prints a line at once; where nobody reads it any more, it is lost."""
    with tolerate_loss():
        print(text, flush=True)


@contextlib.contextmanager
def tolerate_loss() -> Iterator[None]:
    """Lets a run go on where whoever reads its standard output is gone.

    That is the end of a pipe (`| head`, or Ctrl-C, which ends `| tee` as well) or a terminal that was closed. The rest
    of the block is left out, and all that is printed from then on goes nowhere.
    """
    try:
        yield
    except (OSError, SystemExit) as error:
        # rich's consoles exit where a pipe is broken.
        cause = error.__context__ if isinstance(error, SystemExit) else error
        if not (isinstance(cause, OSError) and cause.errno in _GONE):
            raise
        with contextlib.suppress(OSError):  # another console, or one of a notebook
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
