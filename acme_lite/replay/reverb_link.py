"""The link between a `ReverbReplay` and its server: what writers and datasets share."""

from __future__ import annotations

import atexit
import logging
import pathlib
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from acme_lite import checkpointing
from acme_lite.replay import (
    interface,
    rate_limiters,
    reverb_checkpoints,
    reverb_declarations,
    reverb_server,
    store,
    tables,
)
from acme_lite.replay.reverb_layout import Layout

_logger = logging.getLogger(__name__)

_links: weakref.WeakSet[Link] = weakref.WeakSet()

_Result = TypeVar("_Result")
_WARN_SECONDS = 60.0
_SETTLE_SECONDS = 5.0
_DESCRIBE_SECONDS = 1
_CALL_ATTEMPTS = 3
_CALL_AGAIN_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 0.02
_SEND_SECONDS = 0.02


class Link:
    """A connection to a Reverb server, and the server itself where it runs in this process.

    Attributes:
        address: where the server is, "host:port".
        layout: how rows and items are packed.
        tables: name -> declaration.
        binding: Reverb's extension module.
        client: its client.
        generation: grows when the server is replaced; what was made of an older client must be made anew.
        has_server: whether the server runs in this process.
        max_in_flight_items: items that a writer may have sent without an answer.
        timeout_seconds: how long to wait for an answer of the server, or to send what is over this limit.

    Args:
        declarations: the tables.
        address: of a server elsewhere, None to start one here.
        port: of the server that is started; a free one unless given.
        checkpoint_directory: where the server keeps its checkpoints, and whose newest it starts from; a temporary
            folder unless given.
        loopback_only: whether the server refuses who is not on this machine.
        max_in_flight_items: see above.
        timeout_seconds: see above.
    """

    def __init__(
        self,
        declarations: Sequence[tables.Table],
        *,
        address: str | None,
        port: int | None,
        checkpoint_directory: pathlib.Path | None,
        loopback_only: bool,
        max_in_flight_items: int,
        timeout_seconds: float,
    ):
        store.check_tables(declarations)
        self.tables = {table.name: table for table in declarations}
        self.layout = Layout(declarations)
        self.max_in_flight_items = max_in_flight_items
        self.timeout_seconds = timeout_seconds
        self.generation = 0
        self.has_server = address is None
        self.draw_lock = threading.Lock()
        self._declarations = tuple(declarations)
        self.binding = _import_binding()
        self._parse = _import_parser()
        self._loopback_only = loopback_only
        self._checkpoints = checkpoint_directory
        self._is_temporary = address is None and checkpoint_directory is None
        self._lock = threading.Lock()
        self._created = dict.fromkeys(self.tables, 0)
        self._inserted_by_others = dict.fromkeys(self.tables, 0)
        self._seen_inserts = dict.fromkeys(self.tables, 0)
        self._taken = dict.fromkeys(self.tables, 0)
        self._inserts_at_sample = dict.fromkeys(self.tables, 0)
        self._num_prefetching = dict.fromkeys(self.tables, 0)
        self._writers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._leftovers = threading.Event()
        self._sender: threading.Thread | None = None
        self._server: Any = None
        self._server_tables: dict[str, Any] = {}
        self._closed = False
        _links.add(self)
        if address is None:
            self._port = reverb_server.free_port(port)
            self.address = f"localhost:{self._port}"
            if checkpoint_directory is None:
                self._checkpoints = pathlib.Path(tempfile.mkdtemp(prefix="acme_lite_reverb_"))
            assert self._checkpoints is not None
            reverb_checkpoints.remove_unfinished(self._checkpoints)
            self.start(reverb_checkpoints.newest(self._checkpoints))
        else:
            self.address = address
            self.client = self.binding.Client(address)
            self._await_server()

    @property
    def closed(self) -> bool:
        """Whether the replay was closed."""
        return self._closed

    def check_open(self) -> None:
        """Raises ClosedError if the replay was closed."""
        if self._closed:
            raise interface.ClosedError("The replay was closed.")

    def table(self, name: str) -> tables.Table:
        """Returns a declaration.

        Raises:
            KeyError: there is none of this name.
            ClosedError: the replay was closed.
        """
        self.check_open()
        try:
            return self.tables[name]
        except KeyError:
            raise KeyError(f"There is no table {name!r}; there are {sorted(self.tables)}.") from None

    def add_writer(self, writer: Any) -> None:
        """Notes a writer, whose items are waited for before counts are read."""
        self.check_open()
        self._writers.add(writer)

    def send_soon(self) -> None:
        """Sees to it that what writers have kept back is sent within `_SEND_SECONDS`."""
        self._leftovers.set()
        if self._sender is None:
            weakref.finalize(self, self._leftovers.set)
            self._sender = threading.Thread(
                target=_send_leftovers, args=(weakref.ref(self), self._leftovers), name="reverb-writers", daemon=True
            )
            self._sender.start()

    def send(self) -> None:
        """Sends what writers have kept back."""
        for writer in list(self._writers):
            writer.send()

    def note_created(self, table: str, num_items: int) -> None:
        """Counts items that a writer has created."""
        with self._lock:
            self._created[table] += num_items

    def note_taken(self, table: str, num_items: int) -> None:
        """Counts items that a dataset has given out."""
        with self._lock:
            self._taken[table] += num_items
            self._inserts_at_sample[table] = self._inserted_by_others[table] + self._created[table]

    def note_ahead(self, table: str, num_datasets: int) -> None:
        """Counts datasets that draw ahead, also once they are closed: what they have drawn stays in the counts."""
        with self._lock:
            self._num_prefetching[table] += num_datasets

    def plans(self, table: tables.Table) -> bool:
        """Whether `planned` is known.

        The server must be here, items must leave the table for their number alone, and of those who draw ahead there
        must be one: nobody knows who of several gets what the limiter gives.
        """
        return self.has_server and not table.max_times_sampled and self._num_prefetching[table.name] <= 1

    def planned(self, table: tables.Table) -> rate_limiters.Counts:
        """Returns the counts of a table in which all is that was created, and of which only is drawn what was taken.

        What other processes insert is seen with the next look at the server's counts.
        """
        name = table.name
        with self._lock:
            inserts = self._inserted_by_others[name] + self._created[name]
            return rate_limiters.Counts(
                inserts, self._taken[name], min(inserts, table.max_size), self._inserts_at_sample[name]
            )

    def counts(self, timeout_seconds: int | None = None) -> dict[str, rate_limiters.Counts]:
        """Returns the counts of every table, as the server has them.

        Args:
            timeout_seconds: how long to wait for the server; the link's own time unless given.

        Raises:
            TimeoutError: the server did not answer.
            ClosedError: the replay was closed.
        """
        infos = [self._parse(info) for info in self._raw_infos(timeout_seconds)]
        with self._lock:
            for info in infos:
                if info.name in self.tables:
                    inserts = info.rate_limiter_info.insert_stats.completed
                    if not self.has_server and inserts < self._seen_inserts[info.name]:
                        # Another server has come in place of one that was killed, without the newest items, and what
                        # was on its way to that one is lost.
                        self._created[info.name], self._inserted_by_others[info.name] = 0, inserts
                    self._seen_inserts[info.name] = inserts
                    others = inserts - self._created[info.name]
                    self._inserted_by_others[info.name] = max(self._inserted_by_others[info.name], others)
        return {
            info.name: rate_limiters.Counts(
                inserts=info.rate_limiter_info.insert_stats.completed,
                samples=info.rate_limiter_info.sample_stats.completed,
                size=info.current_size,
                inserts_at_sample=self._inserts_at_sample.get(info.name, 0),
            )
            for info in infos
        }

    def settled_counts(self) -> dict[str, rate_limiters.Counts]:
        """Returns the counts once the server has let in what writers here have created, as far as the limiter does.

        With a server elsewhere there is no waiting: its counts change at any time anyway.
        """
        counts = self.counts()
        if not self.has_server:
            return counts
        deadline = time.monotonic() + _SETTLE_SECONDS
        while any(
            self.num_pending(name, counts[name]) and self.can_insert(table, counts[name], 1)
            for name, table in self.tables.items()
        ):
            if time.monotonic() > deadline:
                _logger.warning("Items did not arrive at the Reverb server at %s: %s.", self.address, counts)
                with self._lock:
                    for name, one in counts.items():
                        self._created[name] = one.inserts - self._inserted_by_others[name]
                break
            for writer in list(self._writers):
                writer.push()
            counts = self.counts()
        return counts

    def num_pending(self, table: str, counts: rate_limiters.Counts) -> int:
        """Returns how many items writers of this process have created that are not in the table yet.

        Where others write to the same table, too, theirs hide some of these.
        """
        return max(0, self._created[table] - (counts.inserts - self._inserted_by_others[table]))

    def can_sample(self, table: tables.Table, counts: rate_limiters.Counts, num_items: int) -> bool:
        """Whether the server would give so many items now, without waiting between them.

        A server asks the limiter for each item anew, also for its least size. So where items leave once they have been
        sampled, there must be as many more; how often an item can still be sampled is not known.
        """
        if not table.limiter.can_sample(counts, num_items):
            return False
        if self._server_tables and not self._server_tables[table.name].can_sample(num_items):
            return False
        return not table.max_times_sampled or counts.size - num_items + 1 >= table.limiter.min_size_to_sample

    def can_insert(self, table: tables.Table, counts: rate_limiters.Counts, num_items: int) -> bool:
        """Whether the server would let in so many items now."""
        if self._server_tables:
            return self._server_tables[table.name].can_insert(num_items)
        return table.limiter.can_insert(counts, num_items)

    def describe(self, names: Sequence[str] | None = None) -> str:
        """Returns the state of tables in words, for messages."""
        try:
            counts = self.counts(_DESCRIBE_SECONDS)
        except (TimeoutError, RuntimeError):
            return f"the Reverb server at {self.address} does not answer"
        infos = (
            interface.make_table_info(self.tables[name], counts[name], self.num_pending(name, counts[name])).limiter
            for name in (self.tables if names is None else names)
        )
        return f"{'; '.join(infos)}; Reverb server at {self.address}"

    def wait(
        self,
        ready: Callable[[], bool],
        timeout_seconds: float | None,
        describe: Callable[[], str],
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Waits in short naps, so that Ctrl-C works.

        Args:
            ready: whether to go on; may raise.
            timeout_seconds: how long to wait; for ever if None, with a warning logged every minute.
            describe: returns what is waited for.
            pause: takes a nap of at most so many seconds.

        Raises:
            TimeoutError: it took too long.
            ClosedError: the replay was closed.
        """
        started = warned = time.monotonic()
        nap = 0.0001
        while not ready():
            now = time.monotonic()
            if timeout_seconds is not None and now - started >= timeout_seconds:
                raise TimeoutError(f"Waited {now - started:.1f} s for {describe()}.")
            if now - warned >= _WARN_SECONDS:
                warned = now
                _logger.warning("Has waited %.0f s for %s.", now - started, describe())
            pause(nap)
            nap = min(2 * nap, _LONGEST_POLL_SECONDS)
            self.check_open()

    def call(self, function: Callable[[], _Result], what: str) -> _Result:
        """Returns what a call of the binding returns; those to a server elsewhere have no timeout of their own.

        A call that a dying server had begun fails at once, and is made again; one that finds no server waits for it.

        Raises:
            TimeoutError: the server did not answer.
        """
        if self.has_server:
            return function()
        for attempt in range(_CALL_ATTEMPTS):
            succeeded, result = self._call_once(function, what)
            if succeeded:
                return result
            if not isinstance(result, RuntimeError) or attempt == _CALL_ATTEMPTS - 1:
                raise result
            time.sleep(_CALL_AGAIN_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    def _call_once(self, function: Callable[[], Any], what: str) -> tuple[bool, Any]:
        """Returns whether a call succeeded, and what it returned or raised."""
        outcome: list[tuple[bool, Any]] = []

        def run() -> None:
            try:
                outcome.append((True, function()))
            except Exception as error:  # the caller decides
                outcome.append((False, error))

        threading.Thread(target=run, name="reverb-call", daemon=True).start()
        self.wait(lambda: bool(outcome), self.timeout_seconds, lambda: f"the Reverb server at {self.address} to {what}")
        return outcome[0]

    def start(self, checkpoint: pathlib.Path | None) -> None:
        """Starts the server of this process from a checkpoint, or empty; it takes the place of one that runs.

        Raises:
            CheckpointError: the checkpoint is damaged; the server before it runs on.
            ValueError: the checkpoint is of other tables; the server before it runs on.
            RuntimeError: the server could not be started; the replay is closed.
        """
        assert self._checkpoints is not None
        if checkpoint is not None:
            reverb_checkpoints.check_whole(checkpoint)
            found = reverb_declarations.of_checkpoint(checkpoint)
            where = f"The Reverb checkpoint {checkpoint}"
            reverb_declarations.check(self._declarations, self.layout, found, where)
            if len(found) > len(self.tables):
                raise ValueError(f"{where} must hold the tables {sorted(self.tables)} alone, got {sorted(found)}.")
        if self._server is not None:
            self._disconnect_writers()  # an open stream holds up the server's end for 5 s
            self._server.stop()
            self._server = None
            self._disconnect_writers()  # what was written meanwhile would go to the new server
        self._folder = reverb_checkpoints.make_folder(self._checkpoints)
        try:
            self._server, made = reverb_server.make_server(
                self._declarations, self.layout, self._port, self._folder, checkpoint
            )
            if self._loopback_only:
                reverb_server.confine_to_loopback(self._port)
        except Exception:
            self.close()  # there is no server to go back to
            raise
        self.client = self.binding.Client(self.address)
        self.generation += 1
        self._server_tables = {}
        counts = self._await_server()
        source = () if checkpoint is None else checkpoint.parents
        reverb_checkpoints.remove_folders(self._checkpoints, self._folder, *source)
        if checkpoint is None:  # with one, the server has other tables than those that it was given
            self._server_tables = {table.name: table.internal_table for table in made}
        with self._lock:
            self._created = dict.fromkeys(self.tables, 0)
            self._inserted_by_others = {name: one.inserts for name, one in counts.items()}
            self._taken = {name: one.samples for name, one in counts.items()}
            self._inserts_at_sample = dict.fromkeys(self.tables, 0)

    def checkpoint(self) -> pathlib.Path | str:
        """Returns the path of a new checkpoint: as a string where it is on the machine of a server elsewhere.

        Raises:
            DiskFullError: the disk of this process's server is full.
        """
        self.settled_counts()
        self._is_temporary = False
        if not self.has_server:
            return self.call(self.client.Checkpoint, "write a checkpoint")
        assert self._checkpoints is not None
        try:
            path = pathlib.Path(self.client.Checkpoint())
            reverb_checkpoints.check_written(path)
        except (OSError, RuntimeError, IndexError) as error:  # a full disk is an IndexError of the binding
            reverb_checkpoints.remove_unfinished(self._checkpoints)
            what = "A checkpoint of the Reverb server"
            explained = checkpointing.disk_full(error, self._checkpoints, what, "The server goes on.")
            if explained is None:
                raise
            raise explained from error
        reverb_checkpoints.remove_folders(self._checkpoints, self._folder)
        return path

    def close(self) -> None:
        """Ends writers and the server."""
        if self._closed:
            return
        for writer in list(self._writers):
            writer.close()
        self._closed = True
        self._leftovers.set()
        if self._server is not None:
            self._server.stop()
            self._server = None
            self._server_tables = {}
        if self._is_temporary and self._checkpoints is not None:
            shutil.rmtree(self._checkpoints, ignore_errors=True)

    def _disconnect_writers(self) -> None:
        for writer in list(self._writers):
            writer.disconnect()

    def _raw_infos(self, timeout_seconds: int | None = None) -> list[bytes]:
        """Returns what the server says of its tables.

        It is asked as a client would, also in its own process: `info` of the binding's tables makes Python's objects
        without Python's lock, and whatever another thread does meanwhile may end the process.
        """
        self.check_open()
        timeout = timeout_seconds or max(1, int(self.timeout_seconds))
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.client.ServerInfo(max(1, int(deadline - time.monotonic())))
            except RuntimeError as error:
                # Where a server dies in the middle of a call, that fails at once, and the server may come back.
                if self.has_server or time.monotonic() + _CALL_AGAIN_SECONDS > deadline:
                    raise TimeoutError(
                        f"The Reverb server at {self.address} did not answer in {timeout} s: {error}"
                    ) from error
            time.sleep(_CALL_AGAIN_SECONDS)
            self.check_open()

    def _await_server(self) -> dict[str, rate_limiters.Counts]:
        """Waits for the server, and checks that it has these tables.

        Raises:
            TimeoutError: it did not answer.
            ValueError: it has other tables, or of other settings.
        """
        found: list[Any] = []

        def answers() -> bool:
            try:
                found.extend(self._parse(info) for info in self._raw_infos(1))
            except TimeoutError:
                return False
            return True

        self.wait(answers, self.timeout_seconds, lambda: f"the Reverb server at {self.address} to answer")
        reverb_declarations.check(
            self._declarations,
            self.layout,
            {info.name: reverb_declarations.of_server(info) for info in found},
            f"The Reverb server at {self.address}",
        )
        return self.counts()


def _send_leftovers(link_ref: weakref.ref[Link], leftovers: threading.Event) -> None:
    """Sends what writers keep back, once it has waited for a while; ends with the link."""
    while True:
        leftovers.wait()
        time.sleep(_SEND_SECONDS)
        leftovers.clear()
        link = link_ref()
        if link is None or link.closed:
            return
        try:
            link.send()
        except RuntimeError:  # what is wrong with a writer is raised where it is used
            _logger.exception("Items could not be sent to the Reverb server at %s.", link.address)
        del link


@atexit.register
def _close_links() -> None:
    # Reverb's server fails noisily where it ends after the modules that it needs.
    for link in list(_links):
        link.close()


def _import_binding() -> Any:
    reverb_server.import_reverb()
    from reverb import pybind

    return pybind


def _import_parser() -> Callable[[bytes], Any]:
    from reverb.cc import schema_pb2

    return schema_pb2.TableInfo.FromString
