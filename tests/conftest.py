from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile

import pytest

# Shells start background jobs with SIGINT ignored, and their children inherit it: tests that press Ctrl-C would wait.
signal.signal(signal.SIGINT, signal.default_int_handler)

# XLA compiles in two fifths of the time without its optimisations, which the few steps of most tests do not win back,
# and without splitting a program among threads, which the other worker of the tests keeps busy.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1")

# Checks compile the same functions many times, which is most of what tests cost: what one has compiled, the others of
# this session read back, those of other processes, too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="acme_lite_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Without bytecode every process compiles all that it imports, which takes longer than most tests. Where it must not be
# written beside the sources, it is written elsewhere, for the processes of this session.
if sys.dont_write_bytecode and "PYTHONPYCACHEPREFIX" not in os.environ:
    os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="acme_lite_bytecode_")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.pycache_prefix, sys.dont_write_bytecode = os.environ["PYTHONPYCACHEPREFIX"], False
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)


@pytest.fixture
def no_curves(monkeypatch):
    """Lets runs in this process draw no learning curve, which takes half a second each."""
    monkeypatch.setattr("acme_lite.loggers.plot_learning_curve", lambda *args, **kwargs: None)
