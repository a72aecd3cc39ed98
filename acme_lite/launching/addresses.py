"""The addresses of a program's nodes: ports of the loopback interface, held for as long as the program runs."""

from __future__ import annotations

import itertools
import socket
from typing import Any

from acme_lite import _runtime

_runtime.load_python_library()
lp = _runtime.import_extra("launchpad", "distributed", "A distributed program")

_HOST = "127.0.0.1"
_MOST_PORTS = 65_536


class FixedAddress(lp.AbstractAddressBuilder):  # type: ignore[misc, name-defined]  # Launchpad has no types here
    """An address that is known when the program starts."""

    def __init__(self, address: str):
        self._address = address

    def build(self) -> str:
        return self._address


def bind(program: Any, first_port: int | None) -> tuple[list[socket.socket], dict[str, list[str]]]:
    """Gives every address of a program's nodes a port.

    A node that restarts finds its port free: a socket here stays bound to it without listening, and lets nobody else
    bind it but a process of the same user that asks to share it, as servers of gRPC and Reverb do.

    Args:
        program: an `lp.Program`.
        first_port: ports are counted up from here, in the order of the nodes; free ones are chosen unless given.

    Returns:
        The sockets, to be closed when the program has ended, and the addresses of each node by its name.

    Raises:
        ValueError: there are no such ports.
        OSError: a port is taken; names it.
    """
    num_ports = sum(len(node.addresses) for nodes in program.groups.values() for node in nodes)
    last = _MOST_PORTS - max(num_ports, 1)
    if first_port is not None and (type(first_port) is not int or not 1 <= first_port <= last):
        raise ValueError(f"first_port must be a whole number in [1, {last}] for {num_ports} ports, got {first_port!r}")
    ports = itertools.repeat(0) if first_port is None else itertools.count(first_port)
    held: list[socket.socket] = []
    addresses: dict[str, list[str]] = {}
    for label, nodes in program.groups.items():
        for index, node in enumerate(nodes):
            name = f"{label}/{index}"
            for address in node.addresses:
                held.append(_hold(next(ports), name))
                text = f"{_HOST}:{held[-1].getsockname()[1]}"
                address.bind(FixedAddress(text))
                addresses.setdefault(name, []).append(text)
    return held, addresses


def _hold(port: int, name: str) -> socket.socket:
    if port:
        with socket.socket() as probe:  # without sharing: fails wherever anyone is bound
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError as error:
                raise OSError(error.errno, f"port {port} of node {name} is taken ({error.strerror})") from error
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that a server may probe whether the port is free
    held.bind((_HOST, port))
    return held
