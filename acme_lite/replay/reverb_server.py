"""Reverb itself: how it is imported, its tables, its port, and who reaches it."""

from __future__ import annotations

import functools
import os
import pathlib
import socket
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from acme_lite import _runtime
from acme_lite.replay import rate_limiters, tables
from acme_lite.replay.reverb_layout import Layout

SLACK_ITEMS = 1e-4
"""How much wider a server's window is than the declared one: see `limits`."""


@functools.cache
def import_reverb() -> ModuleType:
    """Imports Reverb.

    Its C++ half writes some lines to stderr when a server starts or ends, and has no setting for that.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    _runtime.load_python_library()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return _runtime.import_extra("reverb", "distributed", "A Reverb replay")


def make_tables(declarations: Sequence[tables.Table], layout: Layout) -> list[Any]:
    """Returns Reverb's tables for declarations, with signatures."""
    reverb = import_reverb()
    specs = _runtime.import_extra("tensorflow", "distributed", "A Reverb replay")
    made = []
    for table in declarations:
        # The names tell apart dtypes and shapes that take equal numbers of bytes.
        name = layout.fingerprint(table.items)
        signature = tuple(specs.TensorSpec(shape, specs.uint8, name) for shape in layout.columns(table.items))
        made.append(
            reverb.Table(
                name=table.name,
                sampler=_selector(drawn_by(table.sampler)),
                remover=reverb.selectors.Fifo(),
                max_size=table.max_size,
                rate_limiter=reverb.rate_limiters.RateLimiter(*limits(table.limiter)),
                max_times_sampled=table.max_times_sampled,
                signature=signature,
            )
        )
    return made


def drawn_by(sampler: tables.Sampler) -> tables.Sampler:
    """Returns the sampler that a server has: its own `Prioritized` never draws what has priority 0, at any exponent."""
    return tables.Uniform() if sampler == tables.Prioritized(0.0) else sampler


def _selector(sampler: tables.Sampler) -> Any:
    selectors = import_reverb().selectors
    if isinstance(sampler, tables.Prioritized):
        return selectors.Prioritized(sampler.exponent)
    return {tables.Uniform: selectors.Uniform, tables.Fifo: selectors.Fifo, tables.Lifo: selectors.Lifo}[
        type(sampler)
    ]()


def limits(limiter: rate_limiters.Limiter) -> tuple[float, int, float, float]:
    """Returns the numbers of Reverb's limiter: samples per insert, least size, and the bounds of its difference."""
    if isinstance(limiter, rate_limiters.MinSize):
        return 1.0, limiter.min_size, -sys.float_info.max, sys.float_info.max
    if isinstance(limiter, rate_limiters.Queue):
        return 1.0, 1, 0.0, float(limiter.size)
    if isinstance(limiter, rate_limiters.SampleToInsertRatio):
        # Reverb's difference is not taken from the middle of the window, so its rounding errors are others: without
        # some slack it would never give what stands exactly at the window's edge.
        middle, buffer = limiter.min_size * limiter.samples_per_insert, limiter.error_buffer + SLACK_ITEMS
        return float(limiter.samples_per_insert), limiter.min_size, middle - buffer, middle + buffer
    raise TypeError(
        f"A Reverb server has no limiter like {limiter!r}; allowed are MinSize, SampleToInsertRatio, Queue."
    )


def free_port(port: int | None) -> int:
    """Returns a port that nobody listens on.

    Reverb itself binds a port that is taken without an error, and the two servers then share the traffic.

    Args:
        port: the port to use; any unless given.

    Raises:
        OSError: this port is taken.
    """
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port or 0))
        except OSError as error:
            raise OSError(error.errno, f"A Reverb server cannot listen on port {port}: {error.strerror}.") from error
        return probe.getsockname()[1]


def confine_to_loopback(port: int) -> None:
    """Makes the listening sockets of a port of this process refuse whoever is not on this machine.

    Reverb listens on every interface and asks nobody who they are; it has no setting for that.

    Raises:
        RuntimeError: no such socket was found, or the kernel did not let us (Linux 5.7 or newer does).
    """
    confined = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(name))
        except OSError:
            continue  # closed meanwhile
        try:
            listener = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue  # no socket
        with listener:
            if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.getsockname()[1] != port:
                continue
            if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                try:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
                except OSError as error:
                    raise RuntimeError(
                        f"The Reverb server's port {port} could not be confined to loopback: {error}. With "
                        "loopback_only=False it would be open to whoever reaches this machine."
                    ) from error
                confined += 1
    if not confined:
        raise RuntimeError(f"Found no listening socket of the Reverb server's port {port}.")


def make_server(
    declarations: Sequence[tables.Table],
    layout: Layout,
    port: int,
    folder: pathlib.Path,
    checkpoint: pathlib.Path | None,
) -> tuple[Any, list[Any]]:
    """Returns a running server and its tables.

    Args:
        declarations: its tables.
        layout: their layout.
        port: a free port.
        folder: where it keeps checkpoints; empty, or it would load what it finds there.
        checkpoint: what it loads; nothing if None.
    """
    reverb = import_reverb()
    made = make_tables(declarations, layout)
    checkpointer = reverb.checkpointers.DefaultCheckpointer(
        str(folder), "", None if checkpoint is None else str(checkpoint)
    )
    return reverb.Server(made, port=port, checkpointer=checkpointer), made
