"""The learner shell: runs a `LearnerCore` over a dataset."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import _runtime, counting, loggers, packing, replay, types
from acme_lite.learning import learner_core


class NonFiniteMetricError(FloatingPointError):
    """A loss or another metric became NaN or infinite."""


class SGDLearner:
    """Runs the compiled update of a `LearnerCore` over a dataset, K learner steps in one call.

    What a call leaves behind (new priorities, metrics) is dealt with at the start of the next one, so that nothing
    waits for it. With `overlap` the call itself runs in a thread of its own while the caller goes on acting; it is
    taken up in the next `step`, so results depend on the order of calls alone and repeat bit for bit, with variables
    one call late. Where the update gives no priorities, the next sample is drawn before, so that the thread goes on
    without a break.

    With several devices the state is replicated and the batch axis is sharded over them; the update sees one global
    batch, so statistics over it stay what they are on one device.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own, and seven have defaults
        self,
        core: learner_core.LearnerCore,
        dataset: replay.Dataset,
        *,
        key: jax.Array,
        counter: counting.Counter | None = None,
        logger: loggers.Logger | None = None,
        num_steps_per_call: int = 1,
        overlap: bool = False,
        log_every_steps: int = 200,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Makes a learner.

        Args:
            core: the algorithm.
            dataset: draws samples: leaves `[B, ...]`, or `[K, B, ...]` where K = `num_steps_per_call` > 1.
            key: PRNG key for the initial state; consumed.
            counter: gets `learner_steps`.
            logger: gets a row of metrics, averaged over `log_every_steps` learner steps.
            num_steps_per_call: K, learner steps in one compiled call, at least 1.
            overlap: whether the compiled call runs in a thread of its own.
            log_every_steps: learner steps from row to row; metrics are checked for NaN and infinity then.
            devices: where to learn, at least one; all local devices unless given; more than one share each batch.

        Raises:
            ValueError: `num_steps_per_call` or `log_every_steps` is less than 1, `devices` is empty, or the devices do
                not divide the dataset's batches, where it has a `batch_size`.
        """
        for name, value in (("num_steps_per_call", num_steps_per_call), ("log_every_steps", log_every_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self._core = core
        self._dataset = dataset
        self._counter = counting.Counter() if counter is None else counter
        self._logger = logger
        self._num_steps_per_call = num_steps_per_call
        self._log_every_steps = log_every_steps
        self._sharding = _BatchSharding(devices, num_steps_per_call)
        batch_size = getattr(dataset, "batch_size", None)  # otherwise the first sample shows it
        if batch_size is not None:
            self._sharding.check(batch_size)
        donate = self._sharding.platform != "cpu"
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "learner") if overlap else None

        self._metric_names: list[str] = []
        # State and variables are packed, as wherever it is not said otherwise.
        self._state, variables = self._sharding.replicate(_runtime.jit(self._init)(key))
        self._variables = self._with_packing(variables)
        self._unpack = _runtime.jit(lambda packed: {name: self._packings[name].unpack(packed[name]) for name in packed})
        self._unpacked: tuple[dict[str, packing.Packed], dict[str, types.ArrayTree]] = ({}, {})
        self._compiled = _runtime.jit(self._call, state=self._state, donate_argnums=(0,) if donate else ())
        self._calls: collections.deque[tuple[Any, concurrent.futures.Future]] = collections.deque()  # of the thread
        self._gives_priorities = True  # unless a call has shown otherwise
        self._ready = getattr(dataset, "ready", lambda: False)  # a plain iterator may wait
        self._pending: tuple[Any, Any, Any] | None = None  # (info, priorities, metrics) of the last call
        self._window: list[Any] = []
        self._num_steps = 0

    @property
    def num_steps(self) -> int:
        """Learner steps taken (in a call that is still running, too)."""
        return self._num_steps

    def step(self) -> None:
        """Performs one call: K learner steps on the next sample.

        Raises:
            NonFiniteMetricError: a metric became NaN or infinite; names it and the learner step.
        """
        self._settle(1)  # more are left where a signal came between two lines
        goes_on = bool(self._calls) and not self._gives_priorities and self._ready()
        if goes_on:
            self._begin_call()
        self._take_up()
        self._finish()
        if not goes_on:
            self._begin_call()

    def run(self, num_steps: int | None = None) -> None:
        while num_steps is None or num_steps > 0:
            self.step()
            num_steps = None if num_steps is None else num_steps - 1

    def get_variables(self, names: Sequence[str]) -> list[types.ArrayTree]:
        packed = self._variables  # of one update, whatever another thread publishes meanwhile
        source, variables = self._unpacked
        if source is not packed:
            variables = self._unpack({name: variable.arrays for name, variable in packed.items()})
            self._unpacked = packed, variables
        try:
            return [variables[name] for name in names]
        except KeyError as error:
            raise KeyError(f"There is no variable {error}; there are {sorted(variables)}.") from None

    def packed_variable(self, name: str) -> packing.Packed | None:
        """See `packing.packed_variable`; None where there is none, or a subclass has a `get_variables` of its own."""
        has_own = type(self).get_variables is not SGDLearner.get_variables or "get_variables" in vars(self)
        return None if has_own else self._variables.get(name)

    def save(self) -> Any:
        """Returns the state, the variables that others see, and what the last call left behind, on the host."""
        self._settle(1)
        pending, published = self._pending, not self._calls
        if self._calls:
            info, call = self._calls[0]
            pending = info, *call.result()[1:]
        served = {name: one.packing.unpack(jax.device_get(one.arrays)) for name, one in self._variables.items()}
        return {"state": self._packing.unpack(jax.device_get(self._state)), "variables": served} | jax.device_get(
            {
                "pending": pending,
                "published": published,
                "window": self._window,
                "metric_names": self._metric_names,
                "num_steps": self._num_steps,
            }
        )

    def restore(self, state: Any) -> None:
        concurrent.futures.wait([call for _, call in self._calls])  # it would write its state over this one
        self._calls.clear()
        self._state, variables = self._sharding.replicate(_runtime.jit(self._packed)(state["state"]))
        self._window = list(state["window"])
        self._metric_names = list(state["metric_names"])
        self._num_steps = state["num_steps"]
        self._pending = state["pending"]
        if state["published"]:
            self._variables = self._with_packing(variables)
        else:
            # The call had ended but not been taken up: its results are published at the start of the next step.
            before = self._sharding.replicate(_runtime.jit(self._packed_variables)(state["variables"]))
            self._variables = self._with_packing(before)
            info, priorities, metrics = state["pending"]
            call: concurrent.futures.Future = concurrent.futures.Future()
            call.set_result((variables, priorities, metrics))
            self._calls.append((info, call))
            self._pending = None

    def close(self) -> None:
        """Takes up the last call: publishes its variables, sends its priorities back, writes the rest of the log.

        Raises:
            NonFiniteMetricError: as `step`.
        """
        try:
            self._settle(0)
            self._finish()
            self._write_metrics()
        finally:
            if self._executor is not None:
                self._executor.shutdown(wait=True)

    def _init(self, key):
        """Returns the first state and the variables."""
        state = self._core.init(key)
        self._packing = packing.Packing(state, "state")
        self._packings = {
            name: packing.Packing(variable, f"variables[{name!r}]", weak=False)
            for name, variable in self._core.variables(state).items()
        }
        return self._packed(state)

    def _packed(self, state):
        """Returns a state packed, and its variables in arrays of their own: the state's may be donated."""
        return self._packing.pack(state), self._packed_variables(self._core.variables(state))

    def _packed_variables(self, variables):
        return {name: self._packings[name].pack(variable) for name, variable in variables.items()}

    def _with_packing(self, variables: dict[str, list[jax.Array]]) -> dict[str, packing.Packed]:
        """Returns variables that are replicated as actors get them."""
        variables = self._sharding.first(variables)
        return {name: packing.Packed(arrays, self._packings[name]) for name, arrays in variables.items()}

    def _call(self, packed, data):
        """One compiled call: K learner steps; returns state, variables, priorities and metrics `[K, M]`."""

        def update(state, data):
            state, output = self._core.update(state, replay.Sample(*data))
            self._metric_names = sorted(output.metrics)
            return state, (output.priorities, _stack_metrics(output.metrics))

        state = self._packing.unpack(packed)
        if self._num_steps_per_call == 1:
            state, (priorities, metrics) = update(state, data)
            metrics = metrics[None]
        else:
            state, (priorities, metrics) = jax.lax.scan(update, state, data)
        return *self._sharding.keep_replicated(self._packed(state)), priorities, metrics

    def _begin_call(self) -> None:
        """Draws a sample and calls the update on it; with `overlap`, in the thread."""
        sample = next(self._dataset)
        data = self._sharding.shard((sample.data, _without_keys(sample.info, self._num_steps_per_call)))
        if self._executor is None:
            self._publish(sample.info, *self._advance(data))
        else:
            self._calls.append((sample.info, self._executor.submit(self._advance, data)))
        self._num_steps += self._num_steps_per_call
        self._counter.increment(learner_steps=self._num_steps_per_call)

    def _advance(self, data):
        """Performs one compiled call, which begins where the one before has ended."""
        self._state, *results = self._compiled(self._state, data)
        return results

    def _publish(self, info, variables, priorities, metrics) -> None:
        self._variables = self._with_packing(variables)
        self._pending = (info, priorities, metrics)
        self._gives_priorities = priorities is not None

    def _take_up(self) -> None:
        """Waits for the oldest call of the thread, if any, and publishes what it gave."""
        if self._calls:
            info, call = self._calls[0]
            results = call.result()  # where this is interrupted, or raises, the call stays
            self._calls.popleft()
            self._publish(info, *results)

    def _settle(self, most: int) -> None:
        """Takes up and deals with calls until at most so many are left."""
        while len(self._calls) > most:
            self._take_up()
            self._finish()

    def _finish(self) -> None:
        """Deals with what the last call left behind."""
        if self._pending is None:
            return
        info, priorities, metrics = self._pending
        self._pending = None
        self._window.append(metrics)
        if priorities is not None:
            try:
                self._dataset.update_priorities(info, jax.tree.map(np.asarray, priorities))
            except ValueError:
                self._write_metrics()  # names the metric that is behind a priority that is not finite
                raise
        if len(self._window) * self._num_steps_per_call >= self._log_every_steps:
            self._write_metrics()

    def _write_metrics(self) -> None:
        """Checks the metrics of all steps since the last row and writes their means."""
        if not self._window:
            return
        values = np.concatenate([np.asarray(metrics) for metrics in self._window])  # [steps, M]
        self._window = []
        steps = self._num_steps - len(self._calls) * self._num_steps_per_call
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row, column = bad[0]
            raise NonFiniteMetricError(
                f"The metric {self._metric_names[column]!r} became {values[row, column]} at learner step "
                f"{steps - len(values) + int(row) + 1}."
            )
        if self._logger is not None:
            means = values.mean(axis=0).tolist()
            self._logger.write(
                {**self._counter.get_counts(), "learner_steps": steps}
                | dict(zip(self._metric_names, means, strict=True))
            )


def _stack_metrics(metrics: Mapping[str, jax.Array]) -> jax.Array:
    """Returns `[M]` metrics in the order of their names: one array is fetched in less time than many."""
    for name, value in metrics.items():
        if jnp.ndim(value):
            raise ValueError(f"The metric {name!r} must be a scalar, got shape {jnp.shape(value)}.")
    values = [jnp.asarray(metrics[name], jnp.float32) for name in sorted(metrics)]
    return jnp.stack(values) if values else jnp.zeros(0)


def _without_keys(info: Any, num_steps_per_call: int) -> Any:
    """Returns the info that goes to the device; a scalar is repeated for each of K steps."""
    if isinstance(info, replay.SampleInfo):
        size: Any = np.int32(info.table_size)
        keys: Any = ()
        if num_steps_per_call > 1:
            size = np.full(num_steps_per_call, size)
        return replay.SampleInfo(keys, info.probabilities.astype(np.float32), size)
    return tuple(_without_keys(part, num_steps_per_call) for part in info)


class _BatchSharding:
    """How batches and states lie on the devices; where there is but one, and nobody chose it, they stay where they are.

    Args:
        devices: where to learn; all local ones if None.
        num_steps_per_call: a batch has an axis of so many steps before its own if this is more than 1.
    """

    def __init__(self, devices: Sequence[jax.Device] | None, num_steps_per_call: int):
        chosen = devices is not None
        devices = jax.local_devices() if devices is None else devices
        if not devices:
            raise ValueError("devices must hold at least one device, got none.")
        self.num_devices = len(devices)
        self._puts = chosen or self.num_devices > 1
        self.platform = devices[0].platform
        self._batch_axis = 0 if num_steps_per_call == 1 else 1
        mesh = jax.sharding.Mesh(np.asarray(devices), ("batch",))
        self._replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        axes = (None,) * self._batch_axis + ("batch",)
        self._sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    def replicate(self, state: Any) -> Any:
        """Puts a copy of a state on each device."""
        return jax.device_put(state, self._replicated) if self._puts else state

    def keep_replicated(self, state: Any) -> Any:
        """Returns a traced state that the compiler must leave replicated: it might shard a leaf that fits."""
        return jax.lax.with_sharding_constraint(state, self._replicated) if self._puts else state

    def first(self, tree: Any) -> Any:
        """Returns the copy on the first device of what is replicated."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree) if self._puts else tree

    def shard(self, data: Any) -> Any:
        """Puts a batch on the devices.

        Raises:
            ValueError: the batch cannot be divided by the number of devices.
        """
        return jax.tree.map(self._shard_leaf, data) if self._puts else data

    def _shard_leaf(self, leaf: Any) -> Any:
        if np.ndim(leaf) <= self._batch_axis:
            return jax.device_put(leaf, self._replicated)
        self.check(leaf.shape[self._batch_axis])
        return jax.device_put(leaf, self._sharded)

    def check(self, batch_size: int) -> None:
        """Raises ValueError if the devices do not divide a batch."""
        if batch_size % self.num_devices:
            raise ValueError(
                f"batch_size must be divisible by the number of devices, {self.num_devices}, got {batch_size}."
            )
