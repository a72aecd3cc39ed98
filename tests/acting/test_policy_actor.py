"""The actor shell: keys, recurrent state, extras, variables, compilation."""

import collections
import threading

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import _runtime, acting, packing, specs
from tests import two_devices


class Variables:
    """Serves one tree, and counts how often it is asked."""

    def __init__(self, policy):
        self.policy = policy
        self.asked = 0

    def get_variables(self, names):
        assert tuple(names) == ("policy",)
        self.asked += 1
        return [self.policy]


class PackedVariables(Variables):
    """Serves the tree packed, as a learner in the same process does."""

    def __init__(self, policy):
        super().__init__(policy)
        self._packing = packing.Packing(policy, "policy")
        self.set(policy)

    def set(self, policy):
        self._packed = packing.Packed(self._packing.pack(policy), self._packing)

    def get_variables(self, names):
        raise AssertionError("An actor takes them packed.")

    def packed_variable(self, name):
        assert name == "policy"
        return self._packed


class Recorder:
    """An adder that keeps what it is given."""

    def __init__(self):
        self.first = []
        self.added = []

    def add_first(self, timestep):
        self.first.append(timestep)

    def add(self, action, next_timestep, extras=()):
        self.added.append((action, next_timestep, extras))

    def reset(self):
        pass


def make_timestep(step_types, observation):
    num_envs = len(step_types)
    return dm_env.TimeStep(
        np.asarray(step_types), np.zeros(num_envs, np.float32), np.ones(num_envs, np.float32), observation
    )


FIRST, MID, LAST = (int(step_type) for step_type in (dm_env.StepType.FIRST, dm_env.StepType.MID, dm_env.StepType.LAST))


def counting_policy():
    """Counts each episode's steps in its state; the action is the count before, the extras what was seen."""

    def select_action(params, observation, state, key):
        return state, {"seen": observation * params, "noise": jax.random.uniform(key, state.shape)}, state + 1

    return acting.ActorCore(init=lambda: jnp.int32(10), select_action=select_action)


def linear_policy():
    """Acts by a linear function of the observation, and noise."""

    def select_action(params, observation, state, key):
        mean = observation @ params["weights"] + params["biases"]
        return mean + jax.random.normal(key, mean.shape), (), state

    return acting.ActorCore(init=tuple, select_action=select_action)


def test_a_packed_policy_acts_as_one_that_is_not():
    def policy(scale):
        return {"weights": scale * jnp.arange(6.0).reshape(3, 2), "biases": jnp.array([scale, -1.0])}

    sources = [Variables(policy(1.0)), PackedVariables(policy(1.0))]
    plain, packed = [acting.PolicyActor(linear_policy(), one, key=jax.random.key(0), num_envs=2) for one in sources]
    observation = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    np.testing.assert_array_equal(packed.select_action(observation), plain.select_action(observation))
    sources[0].policy = policy(2.0)
    sources[1].set(policy(2.0))
    states = []
    for actor in (plain, packed):
        actor.update()
        states.append(actor.save())
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    jax.tree.map(np.testing.assert_array_equal, *states)
    expected = plain.select_action(observation)
    np.testing.assert_array_equal(packed.select_action(observation), expected)
    packed.restore(states[0])
    np.testing.assert_array_equal(packed.select_action(observation), expected)


def test_recurrent_state_is_reset_per_member_where_an_episode_begins():
    actor = acting.PolicyActor(counting_policy(), Variables(jnp.float32(1)), key=jax.random.key(0), num_envs=3)
    observation = np.zeros(3, np.float32)
    actor.observe_first(make_timestep([FIRST] * 3, observation))
    actions = []
    for step_types in ([MID, MID, LAST], [MID, LAST, FIRST], [LAST, FIRST, MID], [FIRST, MID, MID]):
        action = actor.select_action(observation)
        actions.append(action.tolist())
        actor.observe(action, make_timestep(step_types, observation))
    actions.append(actor.select_action(observation).tolist())
    assert actions == [[10, 10, 10], [11, 11, 11], [12, 12, 10], [13, 10, 11], [10, 11, 12]]


def test_the_adder_gets_actions_steps_and_extras_of_the_same_step():
    adder = Recorder()
    actor = acting.PolicyActor(counting_policy(), Variables(jnp.float32(2)), adder, key=jax.random.key(0), num_envs=2)
    observation = np.array([1, 3], np.float32)
    first = make_timestep([FIRST, FIRST], observation)
    actor.observe_first(first)
    action = actor.select_action(observation)
    step = make_timestep([MID, MID], observation)
    actor.observe(action, step)
    assert adder.first == [first]
    ((added_action, added_step, extras),) = adder.added
    assert added_action is action and added_step is step
    np.testing.assert_array_equal(extras["seen"], [2, 6])
    assert isinstance(extras["seen"], np.ndarray)


def test_keys_differ_from_step_to_step_and_repeat_with_the_seed():
    def noise(seed, steps):
        adder = Recorder()
        actor = acting.PolicyActor(counting_policy(), Variables(jnp.float32(1)), adder, key=jax.random.key(seed))
        observation = np.zeros(1, np.float32)
        actor.observe_first(make_timestep([FIRST], observation))
        for _ in range(steps):
            actor.observe(actor.select_action(observation), make_timestep([MID], observation))
        return [float(extras["noise"][0]) for _, _, extras in adder.added]

    first = noise(0, 5)
    assert len(set(first)) == 5
    assert first == noise(0, 5)
    assert not set(first) & set(noise(1, 5))


def test_new_variables_are_used_after_update_alone():
    variables = Variables(jnp.float32(1))
    policy = acting.feed_forward(lambda params, observation, key: observation * params)
    actor = acting.PolicyActor(policy, variables, key=jax.random.key(0), num_envs=2)
    observation = np.array([1, 2], np.float32)
    assert actor.select_action(observation).tolist() == [1, 2]
    variables.policy = jnp.float32(3)
    assert actor.select_action(observation).tolist() == [1, 2]
    actor.update()
    assert actor.select_action(observation).tolist() == [3, 6]


def test_waiting_for_variables_puts_the_newest_in_use():
    variables = Variables(jnp.float32(1))
    client = acting.VariableClient(variables, ("policy",), update_period_seconds=threading.TIMEOUT_MAX)
    policy = acting.feed_forward(lambda params, observation, key: observation * params)
    actor = acting.PolicyActor(policy, client, key=jax.random.key(0))
    observation = np.ones(1, np.float32)
    assert actor.select_action(observation).tolist() == [1]
    variables.policy = jnp.float32(3)
    actor.update()
    assert actor.select_action(observation).tolist() == [1]
    actor.update(wait=True)
    assert actor.select_action(observation).tolist() == [3]
    client.close()


@pytest.mark.parametrize(
    "policy", [counting_policy(), acting.feed_forward(lambda params, observation, key: observation)]
)
def test_the_policy_is_traced_once_over_ten_steps(policy):
    traces = []

    def select_action(*args):
        traces.append(args)
        return policy.select_action(*args)

    actor = acting.PolicyActor(
        acting.ActorCore(policy.init, select_action), Variables(jnp.float32(1)), key=jax.random.key(0), num_envs=2
    )
    observation = np.zeros(2, np.float32)
    actor.observe_first(make_timestep([FIRST, FIRST], observation))
    for _ in range(10):
        actor.observe(actor.select_action(observation), make_timestep([MID, LAST], observation))
        actor.update()
    assert len(traces) == 1


@pytest.mark.parametrize("mapping", [dict, collections.OrderedDict])
def test_observations_and_actions_may_be_trees(mapping):
    policy = acting.feed_forward(
        lambda params, observation, key: mapping(move=observation["a"][:, 0], look=observation["b"] + params)
    )
    actor = acting.PolicyActor(policy, Variables(jnp.float32(1)), key=jax.random.key(0), num_envs=2)
    action = actor.select_action({"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float32)})
    assert type(action) is mapping
    np.testing.assert_array_equal(action["move"], [1, 1])
    np.testing.assert_array_equal(action["look"], [1, 1])


def test_extras_spec_has_the_shapes_of_one_row():
    spec = acting.extras_spec(counting_policy(), jnp.float32(1), specs.Array((), np.float32))
    assert spec["seen"].shape == () and spec["seen"].dtype == np.float32
    assert spec["noise"].shape == ()


def test_a_number_of_members_below_one_is_refused():
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        acting.PolicyActor(counting_policy(), Variables(jnp.float32(1)), key=jax.random.key(0), num_envs=0)


_ACTS_ELSEWHERE = """
import jax, jax.numpy as jnp, numpy as np
from acme_lite import acting
from tests.acting import test_policy_actor as common
first, second = jax.local_devices()
source = common.Variables(jax.device_put(jnp.float32(2), first))
assert source.policy.devices() == {first}
results = []
for device in (None, first, second):
    recorder, settings = common.Recorder(), dict(key=jax.random.key(0), num_envs=2, device=device)
    actor = acting.PolicyActor(common.counting_policy(), source, recorder, **settings)
    actor.observe_first(common.make_timestep([common.FIRST] * 2, np.ones(2, np.float32)))
    for _ in range(3):
        action = actor.select_action(np.ones(2, np.float32))
        actor.observe(action, common.make_timestep([common.MID] * 2, np.ones(2, np.float32)))
        actor.restore(actor.save())
    if device is not None:
        assert jax.tree.leaves(actor._params)[0].devices() == {device}
    results.append((action, [extras for _, _, extras in recorder.added]))
for result in results[1:]:
    jax.tree.map(np.testing.assert_array_equal, result, results[0])
print("the same")
"""


def test_acting_on_another_device_than_the_variables_are_on_gives_the_same():
    assert two_devices.run(_ACTS_ELSEWHERE) == "the same"


def test_actors_act_on_the_cpu_beside_an_accelerator(monkeypatch):
    assert _runtime.acting_device() is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert _runtime.acting_device() is jax.local_devices(backend="cpu")[0]

    def only_gpu(backend):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", only_gpu)
    assert _runtime.acting_device() is None
