from __future__ import annotations

import signal

# Shells start background jobs with SIGINT ignored, and their children inherit it: tests that press Ctrl-C would wait.
signal.signal(signal.SIGINT, signal.default_int_handler)
