"""The learner shell: runs a `LearnerCore` over a dataset."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import _runtime, counting, loggers, replay, types
from acme_lite.learning import learner_core, packing


class NonFiniteMetricError(FloatingPointError):
    """A loss or another metric became NaN or infinite."""


class SGDLearner:
    """Runs the compiled update of a `LearnerCore` over a dataset, K learner steps in one call.

    What a call leaves behind (new priorities, metrics) is dealt with at the start of the next one, so that nothing
    waits for it. With `overlap` the call itself runs in a thread of its own while the caller goes on acting; it is
    taken up at the start of the next `step`, so results depend on the order of calls alone and repeat bit for bit,
    with variables one call late.

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
        packed, variables = self._sharding.replicate(_runtime.jit(self._init)(key))
        self._state = packed  # packed, as wherever it is not said otherwise
        self._variables = self._sharding.first(variables)
        self._compiled = _runtime.jit(self._call, state=packed, donate_argnums=(0,) if donate else ())
        self._future: concurrent.futures.Future | None = None
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
        self._take_up()
        self._finish()
        sample = next(self._dataset)
        data = self._sharding.shard((sample.data, _without_keys(sample.info, self._num_steps_per_call)))
        if self._executor is None:
            self._publish(sample.info, self._compiled(self._state, data))
        else:
            self._future = self._executor.submit(self._compiled, self._state, data)
            self._info = sample.info
        self._num_steps += self._num_steps_per_call
        self._counter.increment(learner_steps=self._num_steps_per_call)

    def run(self, num_steps: int | None = None) -> None:
        while num_steps is None or num_steps > 0:
            self.step()
            num_steps = None if num_steps is None else num_steps - 1

    def get_variables(self, names: Sequence[str]) -> list[types.ArrayTree]:
        variables = self._variables  # of one update, whatever another thread publishes meanwhile
        try:
            return [variables[name] for name in names]
        except KeyError as error:
            raise KeyError(f"There is no variable {error}; there are {sorted(variables)}.") from None

    def save(self) -> Any:
        """Returns the state, the variables that others see, and what the last call left behind, on the host."""
        result = None if self._future is None else self._future.result()
        packed = self._state if result is None else result[0]
        pending = self._pending if result is None else (self._info, *result[2:])
        return {"state": self._packing.unpack(jax.device_get(packed))} | jax.device_get(
            {
                "variables": self._variables,
                "pending": pending,
                "published": result is None,
                "window": self._window,
                "metric_names": self._metric_names,
                "num_steps": self._num_steps,
            }
        )

    def restore(self, state: Any) -> None:
        self._future = None
        packed, variables = self._sharding.replicate(_runtime.jit(self._packed)(state["state"]))
        self._state, variables = packed, self._sharding.first(variables)
        self._window = list(state["window"])
        self._metric_names = list(state["metric_names"])
        self._num_steps = state["num_steps"]
        self._pending = state["pending"]
        if state["published"]:
            self._variables = variables
        else:
            # The call had ended but not been taken up: its results are published at the start of the next step.
            self._variables = self._sharding.first(self._sharding.replicate(jax.device_put(state["variables"])))
            info, priorities, metrics = state["pending"]
            self._info, self._pending = info, None
            self._future = concurrent.futures.Future()
            self._future.set_result((packed, variables, priorities, metrics))

    def close(self) -> None:
        """Takes up the last call: publishes its variables, sends its priorities back, writes the rest of the log.

        Raises:
            NonFiniteMetricError: as `step`.
        """
        try:
            self._take_up()
            self._finish()
            self._write_metrics()
        finally:
            if self._executor is not None:
                self._executor.shutdown(wait=True)

    def _init(self, key):
        """Returns the first state, packed, and the variables."""
        state = self._core.init(key)
        self._packing = packing.Packing(state)
        return self._packed(state)

    def _packed(self, state):
        """Returns a state packed, and its variables in arrays of their own: the state's may be donated."""
        return self._packing.pack(state), dict(self._core.variables(state))

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

    def _publish(self, info, result) -> None:
        self._state, variables, priorities, metrics = result
        self._variables = self._sharding.first(variables)
        self._pending = (info, priorities, metrics)

    def _take_up(self) -> None:
        """Waits for the call that runs in the thread, if any, and publishes what it gave."""
        if self._future is not None:
            self._publish(self._info, self._future.result())
            self._future = None

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
        steps = self._num_steps
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
