"""The learner shell: calls, scans, overlap, devices, priorities, metrics, saving."""

import os
import signal
import threading

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acme_lite import counting, learning, loggers, packing, replay
from acme_lite.learning import sgd_learner
from tests import two_devices


class Batches:
    """A dataset of random batches for linear regression; remembers the priorities that come back."""

    def __init__(self, batch_size=4, num_batches=None, seed=0):
        self._shape = (batch_size,) if num_batches is None else (num_batches, batch_size)
        self._rng = np.random.default_rng(seed)
        self._drawn = 0
        self.priorities = []
        self.poison_at = None

    def __next__(self):
        inputs = self._rng.normal(size=(*self._shape, 3)).astype(np.float32)
        targets = inputs @ np.array([1, -2, 3], np.float32)
        if self._drawn == self.poison_at:
            targets[..., 0] = np.inf
        size = int(np.prod(self._shape))
        keys = (np.arange(size) + 2**40 + self._drawn * size).reshape(self._shape)
        self._drawn += 1
        return replay.Sample((inputs, targets), replay.SampleInfo(keys, np.full(self._shape, 0.5), 100))

    def ready(self):
        return True

    def update_priorities(self, info, priorities):
        self.priorities.append((info.keys, priorities))


def regression_core(optimizer=None, *, priorities=True):
    optimizer = optax.sgd(0.1) if optimizer is None else optimizer

    def loss_fn(weights, inputs, targets):
        errors = inputs @ weights - targets
        return jnp.mean(errors**2), jnp.abs(errors)

    def init(key):
        weights = jax.random.normal(key, (3,))
        return weights, optimizer.init(weights), jnp.int32(0)

    def update(state, sample):
        weights, opt_state, steps = state
        weights, opt_state, errors, metrics = learning.gradient_step(
            loss_fn, optimizer, weights, opt_state, *sample.data
        )
        metrics["probability"] = jnp.mean(sample.info.probabilities)
        metrics["table_size"] = sample.info.table_size
        return (weights, opt_state, steps + 1), learning.LearnerOutput(metrics, errors if priorities else None)

    return learning.LearnerCore(init, update, lambda state: {"policy": state[0], "steps": state[2]})


def make_learner(dataset, *, priorities=True, **kwargs):
    return learning.SGDLearner(regression_core(priorities=priorities), dataset, key=jax.random.key(0), **kwargs)


def weights_of(learner):
    return np.asarray(learner.get_variables(["policy"])[0])


def test_it_learns_and_counts():
    counter = counting.Counter()
    learner = make_learner(Batches(32), counter=counter)
    learner.run(100)
    np.testing.assert_allclose(weights_of(learner), [1, -2, 3], atol=1e-3)
    assert counter.get_counts()["learner_steps"] == learner.num_steps == 100
    assert int(learner.get_variables(["steps"])[0]) == 100


def test_variables_come_in_the_order_of_the_names_and_unknown_ones_are_named():
    learner = make_learner(Batches())
    steps, weights = learner.get_variables(["steps", "policy"])
    assert steps.shape == () and weights.shape == (3,)
    with pytest.raises(KeyError, match=r"no variable 'critic'.*policy.*steps"):
        learner.get_variables(["critic"])


def test_several_steps_in_one_call_equal_single_steps():
    class Split(Batches):
        """Gives the batches of a dataset with K at once, one at a time."""

        def __init__(self, batches):
            super().__init__()
            self._queue = [
                replay.Sample(
                    jax.tree.map(lambda leaf, k=k: leaf[k], sample.data),
                    replay.SampleInfo(sample.info.keys[k], sample.info.probabilities[k], sample.info.table_size),
                )
                for sample in batches
                for k in range(3)
            ]

        def __next__(self):
            return self._queue.pop(0)

    dataset = Batches(num_batches=3)
    together = make_learner(dataset, num_steps_per_call=3)
    together.run(2)
    together.close()
    again = Batches(num_batches=3)
    single = make_learner(Split([next(again), next(again)]))
    single.run(6)
    np.testing.assert_allclose(weights_of(together), weights_of(single), rtol=1e-6)
    assert together.num_steps == single.num_steps == 6
    assert [priorities.shape for _, priorities in dataset.priorities] == [(3, 4), (3, 4)]


@pytest.mark.parametrize("num_batches", [None, 2])
@pytest.mark.parametrize("priorities", [True, False])
def test_overlap_gives_the_same_parameters_one_call_late(num_batches, priorities):
    kwargs = {"priorities": priorities} | ({} if num_batches is None else {"num_steps_per_call": num_batches})
    direct = make_learner(Batches(num_batches=num_batches), **kwargs)
    overlapped = make_learner(Batches(num_batches=num_batches), overlap=True, **kwargs)
    seen, late = [], []
    for _ in range(5):
        seen.append(weights_of(direct))
        direct.step()
        overlapped.step()
        late.append(weights_of(overlapped))
    np.testing.assert_array_equal(late, seen)
    overlapped.close()
    np.testing.assert_array_equal(weights_of(overlapped), weights_of(direct))


@pytest.mark.parametrize(
    ("priorities", "ready", "served"),
    [(True, True, [0, 1, 2, 3, 4]), (False, False, [0, 1, 2, 3, 4]), (False, True, [0, 1, 1, 2, 3])],
)
def test_the_thread_goes_on_without_a_break_where_no_priorities_change_the_next_sample(priorities, ready, served):
    class Watched(Batches):
        def __next__(self):
            seen.append(int(learner.get_variables(["steps"])[0]))
            return super().__next__()

        def ready(self):
            return ready

    seen: list[int] = []
    learner = make_learner(Watched(), overlap=True, priorities=priorities)
    for done in range(5):
        learner.step()
        assert int(learner.get_variables(["steps"])[0]) == done
    assert seen == served
    learner.close()
    assert int(learner.get_variables(["steps"])[0]) == 5


def test_a_plain_iterator_is_a_dataset_for_an_overlapped_learner():
    batches = Batches()
    learner = make_learner(iter([next(batches) for _ in range(4)]), overlap=True, priorities=False)
    learner.run(4)
    learner.close()
    assert int(learner.get_variables(["steps"])[0]) == 4


@pytest.mark.parametrize("overlap", [False, True])
def test_priorities_go_back_with_the_keys_of_their_own_batch_before_the_next_one_is_drawn(overlap):
    dataset = Batches()
    learner = make_learner(dataset, overlap=overlap)
    learner.run(3)
    assert len(dataset.priorities) == 2
    learner.close()
    reference = Batches()
    for keys, priorities in dataset.priorities:
        info = next(reference).info
        np.testing.assert_array_equal(keys, info.keys)
        assert keys.dtype == np.int64 and keys.min() >= 2**40
        assert priorities.shape == keys.shape and (priorities > 0).all()
    assert len(dataset.priorities) == 3


def test_rows_hold_means_of_all_metrics_since_the_row_before():
    logger = loggers.InMemoryLogger()
    learner = make_learner(Batches(), logger=logger, log_every_steps=4)
    losses, same = [], Batches()
    for _ in range(10):
        inputs, targets = next(same).data
        losses.append(np.mean((inputs @ weights_of(learner) - targets) ** 2))
        learner.step()
    learner.close()
    assert [row["learner_steps"] for row in logger.rows] == [4, 8, 10]
    for row, part in zip(logger.rows, (losses[:4], losses[4:8], losses[8:]), strict=True):
        np.testing.assert_allclose(row["loss"], np.mean(part), rtol=1e-4)
        assert row["probability"] == 0.5 and row["table_size"] == 100


@pytest.mark.parametrize(("num_batches", "step"), [(None, 6), (4, 21)])
def test_a_metric_that_is_not_finite_stops_learning_with_its_name_and_step(num_batches, step):
    dataset = Batches(num_batches=num_batches)
    dataset.poison_at = 5
    kwargs = {} if num_batches is None else {"num_steps_per_call": num_batches}
    learner = make_learner(dataset, log_every_steps=10, **kwargs)
    with pytest.raises(learning.NonFiniteMetricError, match=rf"metric '\w+' became (inf|nan) at learner step {step}\."):
        learner.run(40)


def test_the_thread_ends_also_where_closing_finds_an_error():
    dataset = Batches()
    dataset.poison_at = 2
    before = set(threading.enumerate())
    learner = make_learner(dataset, overlap=True)
    learner.run(4)
    assert set(threading.enumerate()) - before
    with pytest.raises(learning.NonFiniteMetricError):
        learner.close()
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize("priorities", [True, False])
@pytest.mark.parametrize("overlap", [False, True])
def test_a_restored_learner_goes_on_as_if_nothing_had_happened(overlap, priorities):
    def run(interrupted):
        dataset, logger = Batches(), loggers.InMemoryLogger()

        def make():
            return make_learner(dataset, overlap=overlap, logger=logger, log_every_steps=3, priorities=priorities)

        learner = make()
        learner.run(4)
        if interrupted:
            state = learner.save()
            learner = make()
            learner.restore(state)
        seen = [weights_of(learner)]
        for _ in range(4):
            learner.step()
            seen.append(weights_of(learner))
        learner.close()
        return seen, dataset.priorities, [row["loss"] for row in logger.rows]

    (seen, priorities, losses), (seen_again, priorities_again, losses_again) = run(False), run(True)
    np.testing.assert_array_equal(seen, seen_again)
    assert losses == losses_again
    for (keys, values), (keys_again, values_again) in zip(priorities, priorities_again, strict=True):
        np.testing.assert_array_equal(keys, keys_again)
        np.testing.assert_array_equal(values, values_again)


def test_the_update_is_traced_once_over_ten_steps():
    core, traces = regression_core(), []

    def update(state, sample):
        traces.append(sample)
        return core.update(state, sample)

    learner = learning.SGDLearner(core._replace(update=update), Batches(), key=jax.random.key(0))
    learner.run(10)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["num_steps_per_call", "log_every_steps"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        make_learner(Batches(), **{name: 0})


def test_a_learner_restored_before_its_first_step_names_the_metrics_of_the_one_before():
    logger = loggers.InMemoryLogger()
    before = make_learner(Batches(), log_every_steps=2)
    before.run(2)
    after = make_learner(Batches(), logger=logger, log_every_steps=2)
    after.restore(before.save())
    after.close()
    assert [row["learner_steps"] for row in logger.rows] == [2]
    assert {"loss", "gradient_norm", "probability", "table_size"} < set(logger.rows[0])


def slow_core(gate, *, priorities):
    """A core whose update waits for an event, and raises once where that says so."""

    def wait(steps):
        if gate.fails_at == int(steps):
            gate.fails_at = None
            raise RuntimeError("the update is broken")
        gate.wait(60)
        return np.int32(0)

    def update(state, sample):
        steps = state + 1 + jax.experimental.io_callback(wait, jax.ShapeDtypeStruct((), np.int32), state, ordered=True)
        given = jnp.ones(sample.info.probabilities.shape) if priorities else None
        return steps, learning.LearnerOutput({"steps": jnp.float32(steps)}, given)

    return learning.LearnerCore(lambda key: jnp.int32(0), update, lambda state: {"policy": state})


class Gate(threading.Event):
    fails_at = None


@pytest.mark.parametrize("priorities", [True, False])
def test_a_call_stays_where_a_signal_interrupts_the_wait_for_it(priorities):
    gate, counter = Gate(), counting.Counter()
    gate.set()
    learner = learning.SGDLearner(
        slow_core(gate, priorities=priorities), Batches(), key=jax.random.key(0), counter=counter, overlap=True
    )
    learner.run(3)
    gate.clear()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        while True:  # the call under way may be done
            learner.step()
    gate.set()
    state = learner.save()
    assert int(state["state"]) == state["num_steps"] == learner.num_steps == counter.get_counts()["learner_steps"]
    learner.close()
    assert int(learner.get_variables(["policy"])[0]) == learner.num_steps


def test_a_learner_that_is_restored_while_a_call_is_under_way_has_the_state_that_it_was_given():
    gate = Gate()
    gate.set()
    learner = learning.SGDLearner(slow_core(gate, priorities=False), Batches(), key=jax.random.key(0), overlap=True)
    learner.run(2)
    state = learner.save()
    learner.run(2)
    gate.clear()
    learner.step()
    threading.Timer(0.3, gate.set).start()
    learner.restore(state)
    learner.step()
    learner.close()
    assert int(learner.get_variables(["policy"])[0]) == learner.num_steps == 3


def test_an_error_in_the_thread_is_raised_by_whatever_comes_after_it():
    gate = Gate()
    gate.set()
    learner = learning.SGDLearner(slow_core(gate, priorities=False), Batches(), key=jax.random.key(0), overlap=True)
    learner.run(3)
    gate.fails_at = 3
    for act in (lambda: learner.run(3), learner.step, learner.save, learner.close):
        with pytest.raises(Exception, match="the update is broken"):
            act()


def test_variables_of_ones_own_do_not_change_what_is_saved():
    class Doubling(learning.SGDLearner):
        def get_variables(self, names):
            return [jax.tree.map(lambda leaf: 2 * leaf, one) for one in super().get_variables(names)]

    learner, again = [
        Doubling(regression_core(), Batches(), key=jax.random.key(seed), overlap=True) for seed in range(2)
    ]
    learner.run(3)
    again.restore(learner.save())
    np.testing.assert_array_equal(weights_of(again), weights_of(learner))


def test_numbers_of_pythons_own_stay_weak_among_packed_variables():
    def variables(state):
        return {"policy": {"scale": 0.5, "offset": state[0][0], "weights": state[0]}}

    core = regression_core()._replace(variables=variables)
    (policy,) = learning.SGDLearner(core, Batches(), key=jax.random.key(0)).get_variables(["policy"])
    assert (policy["scale"] * jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_variable_comes_packed_as_get_variables_gives_it():
    learner = make_learner(Batches())
    before = packing.packed_variable(learner, "policy")
    assert packing.packed_variable(learner, "policy") is before
    learner.step()
    packed = packing.packed_variable(learner, "policy")
    assert packed is not before
    np.testing.assert_array_equal(packed.packing.unpack(packed.arrays), weights_of(learner))


def test_what_serves_variables_of_its_own_does_not_give_them_packed():
    class Doubling(learning.SGDLearner):
        def get_variables(self, names):
            return [jax.tree.map(lambda leaf: 2 * leaf, one) for one in super().get_variables(names)]

    class Around:
        def __init__(self, learner):
            self._learner = learner

        def __getattr__(self, name):
            return getattr(self._learner, name)

    learner = Doubling(regression_core(), Batches(), key=jax.random.key(0))
    assert packing.packed_variable(learner, "policy") is None
    assert packing.packed_variable(Around(make_learner(Batches())), "policy") is None


@pytest.mark.parametrize("size", [3, 2 * packing.LARGEST_PACKED])
@pytest.mark.parametrize("overlap", [False, True])
def test_variables_outlive_the_state_that_an_accelerator_gives_up(monkeypatch, overlap, size):
    make = sgd_learner._BatchSharding.__init__

    def make_as_on_gpu(self, *args):
        make(self, *args)
        self.platform = "gpu"

    monkeypatch.setattr(sgd_learner._BatchSharding, "__init__", make_as_on_gpu)

    def update(state, sample):
        weights, steps = state
        return (weights + 1, steps + 1), learning.LearnerOutput({"loss": jnp.mean(weights)})

    core = learning.LearnerCore(lambda key: (jnp.zeros(size), 0), update, lambda state: {"policy": state[0]})
    learner = learning.SGDLearner(core, Batches(), key=jax.random.key(0), overlap=overlap)
    seen, given = [], learner._state
    for _ in range(4):
        seen += learner.get_variables(["policy"])
        learner.step()
    learner.close()
    assert all(array.is_deleted() for array in given)
    np.testing.assert_array_equal([array[0] for array in seen], [0, 0, 1, 2] if overlap else [0, 1, 2, 3])


def test_a_state_that_changes_its_dtype_is_named():
    core = regression_core()

    def update(state, sample):
        (weights, opt_state, steps), output = core.update(state, sample)
        return (weights, opt_state, steps / 2), output

    learner = learning.SGDLearner(core._replace(update=update), Batches(), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"state\[2\] must keep its shape and dtype, \(\) and int32"):
        learner.step()


def test_metrics_may_be_missing_and_must_be_scalars():
    core = regression_core()

    def with_metrics(metrics):
        def update(state, sample):
            state, output = core.update(state, sample)
            return state, output._replace(metrics=metrics)

        return learning.SGDLearner(core._replace(update=update), Batches(), key=jax.random.key(0), log_every_steps=1)

    silent = with_metrics({})
    silent.run(3)
    silent.close()
    assert silent.num_steps == 3
    with pytest.raises(ValueError, match=r"metric 'errors' must be a scalar, got shape \(4,\)"):
        with_metrics({"errors": jnp.ones(4)}).step()


_TWO_DEVICES = """
import jax, numpy as np
from tests.learning import test_sgd_learner as common
assert len(jax.local_devices()) == 2
first, second = jax.local_devices()
results = []
for devices in ([first, second], [first], [second]):
    for num_batches in (None, 3):
        for overlap in (False, True):
            dataset, kwargs = common.Batches(8, num_batches), dict(num_steps_per_call=num_batches or 1, overlap=overlap)
            learner = common.make_learner(dataset, devices=devices, **kwargs)
            learner.run(3)
            state, learner = learner.save(), common.make_learner(dataset, devices=devices, **kwargs)
            learner.restore(state)
            assert learner.get_variables(["policy"])[0].devices() == {devices[0]}
            learner.run(2)
            learner.close()
            (policy,) = learner.get_variables(["policy"])
            assert policy.devices() == {devices[0]}
            results.append((np.asarray(policy), np.concatenate([np.ravel(p) for _, p in dataset.priorities])))
for two, one, other in zip(results[:4], results[4:8], results[8:]):
    np.testing.assert_allclose(two[0], one[0], rtol=1e-5)
    np.testing.assert_allclose(two[1], one[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
try:
    common.make_learner(common.Batches(7)).run(1)
except ValueError as error:
    assert "divisible by the number of devices, 2, got 7" in str(error), error
else:
    raise AssertionError("a batch of 7 on 2 devices was taken")

# Where the dataset says how large its batches are, nobody need wait for the first one.
from acme_lite import replay, specs
signature = replay.Signature(specs.Array((3,), np.float32), {"action": specs.Array((), np.int32)})
table = replay.Table("default", 100, signature, replay.Transitions(1), replay.Uniform(), replay.MinSize(1))
dataset = replay.LocalReplay([table]).dataset("default", 7, num_batches=2)
try:
    common.make_learner(dataset, num_steps_per_call=2)
except ValueError as error:
    assert "divisible by the number of devices, 2, got 7" in str(error), error
else:
    raise AssertionError("a dataset of batches of 7 on 2 devices was taken")
print("the same")
"""


_TARGETS_AS_STATE = """
import jax, jax.numpy as jnp
from acme_lite import learning
from tests.learning import test_sgd_learner as common

def update(state, sample):
    return sample.data[1], learning.LearnerOutput({"loss": jnp.float32(0)})

core = learning.LearnerCore(lambda key: jnp.zeros(8), update, lambda state: {"policy": state})
for num_batches in (None, 3):
    learner = learning.SGDLearner(
        core, common.Batches(8, num_batches), key=jax.random.key(0), num_steps_per_call=num_batches or 1
    )
    learner.step()
    print(common.weights_of(learner).shape)
"""


def test_variables_are_whole_where_the_compiler_would_shard_the_state():
    # Both lie as the batch does, unless they must not.
    assert two_devices.run(_TARGETS_AS_STATE) == "(8,)\n(8,)"


def test_a_device_is_needed():
    with pytest.raises(ValueError, match="devices must hold at least one device, got none"):
        make_learner(Batches(), devices=[])


def test_two_devices_give_the_result_of_either():
    assert two_devices.run(_TWO_DEVICES) == "the same"
