from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

# Shells start background jobs with SIGINT ignored, and their children inherit it: tests that press Ctrl-C would wait.
signal.signal(signal.SIGINT, signal.default_int_handler)

# XLA compiles in two thirds of the time without its optimisations, which the few steps of most tests do not win back.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# Checks compile the same functions many times, which is most of what tests cost: what one has compiled, the others of
# this session read back, those of other processes, too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="acme_lite_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
