import collections

import dm_env
import gymnasium
import jax
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import specs as dm_specs
from dm_env import test_utils
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from acme_lite import environments
from tests.environments import episodes

NESTED = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (2, 2), np.uint8),
        "rest": spaces.Tuple((spaces.Discrete(3, start=-1), spaces.MultiBinary(2), spaces.MultiDiscrete([2, 5]))),
        "wide": spaces.Box(-np.inf, np.inf, (1,), np.float64),
    }
)


class Echo(gymnasium.Env):
    """Any spaces; observes samples of its observation space and keeps the actions it got."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space
        self.actions = []
        self.observations = []

    def _observe(self):
        self.observations.append(self.observation_space.sample())
        return self.observations[-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.actions.append(action)
        return self._observe(), 1, len(self.actions) % 5 == 0, False, {}


class RandomEpisodesConformance(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.GymnasiumEnvironment(episodes.RandomEpisodes())


class NestedSpacesConformance(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.GymnasiumEnvironment(Echo(NESTED, NESTED))


@pytest.mark.parametrize("kind", [episodes.TERMINATES, episodes.TRUNCATES, episodes.DOES_BOTH])
def test_ends_of_episodes(kind):
    environment = environments.GymnasiumEnvironment(episodes.RandomEpisodes())
    for seed in range(100):
        environment.reseed(seed)
        timestep = environment.reset()
        if timestep.observation[3] == kind:
            break
    start, _, length, _ = timestep.observation
    for step in range(1, int(length) + 1):
        timestep = environment.step(np.int32(2))
        assert timestep.reward == np.float32(start + step + 2)
        assert timestep.last() == (step == length)
    assert timestep.discount == (1.0 if kind == episodes.TRUNCATES else 0.0)
    assert environment.step(np.int32(0)).first()


def test_nested_spaces_become_specs_and_values_come_through():
    inner = Echo(NESTED, NESTED)
    environment = environments.GymnasiumEnvironment(inner)
    spec = environment.action_spec()
    assert spec["image"] == dm_specs.BoundedArray((2, 2), np.uint8, np.zeros((2, 2)), np.full((2, 2), 255))
    discrete, binary, multi = spec["rest"]
    assert isinstance(discrete, dm_specs.DiscreteArray)
    assert (discrete.num_values, discrete.dtype) == (3, np.int32)
    assert binary == dm_specs.BoundedArray((2,), np.int8, 0, 1)
    assert multi == dm_specs.BoundedArray((2,), np.int32, [0, 0], [1, 4])
    assert type(spec["wide"]) is dm_specs.Array
    assert spec["wide"].dtype == np.float32

    environment.reseed(3)
    timestep = environment.reset()
    observed = inner.observations[-1]
    assert timestep.observation["rest"][0] == observed["rest"][0] + 1  # counted from 0, not from -1
    np.testing.assert_array_equal(timestep.observation["rest"][2], observed["rest"][2])
    np.testing.assert_allclose(timestep.observation["wide"], observed["wide"], rtol=1e-6)

    action = jax.tree.map(lambda leaf: leaf.generate_value(), spec)
    environment.step({**action, "rest": (np.int32(2), *action["rest"][1:])})
    taken = inner.actions[-1]
    assert taken["rest"][0] == 1
    assert type(taken["rest"][0]) is np.int64  # as its space samples it
    assert taken["wide"].dtype == np.float64


def test_the_bounds_of_a_double_precision_action_are_in_its_space():
    inner = Echo(spaces.Box(-1, 1, (1,)), spaces.Box(0.1, 0.3, (2,), np.float64))  # the echo checks its actions
    environment = environments.GymnasiumEnvironment(inner)
    environment.reset()
    spec = environment.action_spec()
    for action in (spec.minimum, spec.maximum):
        environment.step(action)
    np.testing.assert_allclose(inner.actions, [[0.1, 0.1], [0.3, 0.3]], rtol=1e-7)


def test_discrete_actions_arrive_as_the_space_samples_them_and_floats_are_refused():
    inner = Echo(spaces.Discrete(4), spaces.Discrete(3, start=5))
    environment = environments.GymnasiumEnvironment(inner)
    environment.reset()
    environment.step(np.int32(2))
    assert inner.actions == [7]
    assert type(inner.actions[0]) is np.int64
    with pytest.raises(TypeError):
        environment.step(np.float32(1.5))


def test_same_seed_same_episodes_and_a_seed_counts_once():
    runs = []
    for _ in range(2):
        environment = environments.GymnasiumEnvironment(episodes.RandomEpisodes())
        environment.reseed(11)
        runs.append([np.array(environment.reset().observation) for _ in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len({float(observation[0]) for observation in runs[0]}) == 3


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0])
def test_reseed_checks_its_seed(seed):
    with pytest.raises(ValueError, match=r"seed must be an integer in \[0, 2\*\*32\), got"):
        environments.GymnasiumEnvironment(episodes.RandomEpisodes()).reseed(seed)


def test_unknown_spaces_are_refused_by_path():
    space = spaces.Dict({"words": spaces.Tuple((spaces.Text(3),))})
    with pytest.raises(ValueError, match=r"The observation/words/0 space must be Box, .* got Text"):
        environments.GymnasiumEnvironment(Echo(space, spaces.Discrete(2)))


def test_cartpole_keeps_the_discount_when_truncated_and_not_when_it_falls():
    environment = environments.make("gym:CartPole-v1", seed=0)
    timestep = environment.reset()
    num_steps = 0
    while not timestep.last():
        push = timestep.observation @ [0.1, 0.3, 3.0, 1.0]
        timestep = environment.step(np.int32(push > 0))
        num_steps += 1
    assert (num_steps, timestep.discount) == (500, 1.0)
    timestep = environment.step(np.int32(0))
    assert timestep.first()
    while not timestep.last():
        timestep = environment.step(np.int32(0))
    assert timestep.discount == 0.0


# Vector environments.


def make_gymnasium_vector(mode, num_envs=3):
    return SyncVectorEnv([episodes.RandomEpisodes] * num_envs, autoreset_mode=mode)


def record(vector, num_steps, seed=0):
    actions = np.random.default_rng(seed).integers(0, 3, (num_steps, vector.num_envs)).astype(np.int32)
    return [vector.reset(), *(vector.step(action) for action in actions)], actions


def assert_every_stream_is_whole(timesteps, actions):
    """Compares with what the observations themselves say must come next; returns the kinds of ends met."""
    kinds = collections.Counter()
    for member in range(actions.shape[1]):
        over, previous = True, None
        for index, timestep in enumerate(timesteps):
            step_type, reward, discount, observation = (field[member] for field in timestep)
            if over:
                assert step_type == dm_env.StepType.FIRST
                assert (reward, discount, observation[1]) == (0, 1, 0)
            else:
                np.testing.assert_array_equal(observation - previous, [0, 1, 0, 0])
                assert reward == np.float32(observation[0] + observation[1] + actions[index - 1, member])
                over = observation[1] == observation[2]
                assert step_type == (dm_env.StepType.LAST if over else dm_env.StepType.MID)
                assert discount == (0 if over and observation[3] != episodes.TRUNCATES else 1)
                kinds[observation[3]] += over
            if step_type == dm_env.StepType.FIRST:
                over = False
            previous = observation
    return kinds


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("num_envs", [1, 3])
def test_every_autoreset_mode_shows_whole_episodes(mode, num_envs):
    vector = environments.GymnasiumVectorEnvironment(make_gymnasium_vector(mode, num_envs), seed=2)
    timesteps, actions = record(vector, 80)
    kinds = assert_every_stream_is_whole(timesteps, actions)
    assert min(kinds[kind] for kind in range(3)) >= 1
    firsts = sum(timestep.step_type == dm_env.StepType.FIRST for timestep in timesteps)
    np.testing.assert_array_equal(vector.episodes, firsts)
    assert timesteps[1].reward.dtype == timesteps[1].discount.dtype == np.float32
    assert timesteps[0].observation.shape == (num_envs, 4)


def test_autoreset_mode_next_step_equals_single_environments():
    class SeedRecorder(episodes.RandomEpisodes):
        seed = None

        def reset(self, *, seed=None, options=None):
            self.seed = self.seed if seed is None else seed
            return super().reset(seed=seed, options=options)

    native = SyncVectorEnv([SeedRecorder] * 2)
    timesteps, actions = record(environments.GymnasiumVectorEnvironment(native, seed=6), 40)
    for member in range(2):
        single = environments.GymnasiumEnvironment(episodes.RandomEpisodes())
        single.reseed(native.envs[member].seed)
        expected = [np.array(single.reset().observation)]
        expected.extend(np.array(single.step(action).observation) for action in actions[:, member])
        np.testing.assert_array_equal([timestep.observation[member] for timestep in timesteps], expected)


def test_asynchronous_same_step_environment():
    native = AsyncVectorEnv([episodes.RandomEpisodes] * 2, autoreset_mode=AutoresetMode.SAME_STEP, context="spawn")
    vector = environments.GymnasiumVectorEnvironment(native)
    try:
        timesteps, actions = record(vector, 30)
    finally:
        vector.close()
    assert sum(assert_every_stream_is_whole(timesteps, actions).values()) > 0


def test_native_vector_cartpole():
    vector = environments.GymnasiumVectorEnvironment(
        gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point"), seed=1
    )
    timesteps = [vector.reset(), *(vector.step(np.zeros(4, np.int32)) for _ in range(30))]
    step_types = np.stack([timestep.step_type for timestep in timesteps])
    rewards = np.stack([timestep.reward for timestep in timesteps])
    discounts = np.stack([timestep.discount for timestep in timesteps])
    assert (step_types == 2).sum() >= 8  # pushed one way, the pole falls within 11 steps
    np.testing.assert_array_equal(step_types[1:] == 0, step_types[:-1] == 2)
    np.testing.assert_array_equal(rewards, step_types != 0)
    np.testing.assert_array_equal(discounts, step_types != 2)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_nested_spaces_in_vectors(mode):
    native = SyncVectorEnv([lambda: Echo(NESTED, NESTED)] * 2, autoreset_mode=mode)
    vector = environments.GymnasiumVectorEnvironment(native)
    spec = vector.action_spec()
    action = jax.tree.map(lambda leaf: np.stack([leaf.generate_value()] * 2), spec)
    timesteps = [vector.reset(), *(vector.step(action) for _ in range(6))]
    assert [int(timestep.step_type[0]) for timestep in timesteps] == [0, 1, 1, 1, 1, 2, 0]
    for timestep in timesteps:
        jax.tree.map(lambda leaf, value: [leaf.validate(row) for row in value], spec, timestep.observation)
    # The discrete part counts from 0 here and from -1 there.
    assert native.envs[0].actions[0]["rest"][0] == -1
    assert timesteps[5].observation["rest"][0][0] == native.envs[0].observations[5]["rest"][0] + 1


def test_vector_seeds():
    def firsts(seed, episode_counts=None):
        vector = environments.GymnasiumVectorEnvironment(make_gymnasium_vector(AutoresetMode.NEXT_STEP))
        vector.reseed(seed, episode_counts)
        return vector.reset().observation[:, 0].tolist()

    assert firsts(1) == firsts(1)
    drawn = [*firsts(1), *firsts(2), *firsts(1, np.array([1, 1, 1]))]
    assert len(set(drawn)) == 9


def test_vector_step_before_reset_resets():
    vector = environments.GymnasiumVectorEnvironment(make_gymnasium_vector(AutoresetMode.DISABLED))
    assert vector.step(np.zeros(3, np.int32)).first().all()


def test_returned_arrays_do_not_change_later():
    native = SyncVectorEnv([episodes.RandomEpisodes] * 2, copy=False)
    vector = environments.GymnasiumVectorEnvironment(native)
    first = vector.reset()
    kept = first.observation.copy()
    vector.step(np.zeros(2, np.int32))
    np.testing.assert_array_equal(first.observation, kept)


def test_modes_that_cannot_be_converted_are_refused():
    native = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point")
    native.unwrapped.metadata = {}
    with pytest.raises(ValueError, match=r"must declare metadata\['autoreset_mode'\], one of \['NextStep'.*got None"):
        environments.GymnasiumVectorEnvironment(native)
    native.unwrapped.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
    with pytest.raises(ValueError, match="every episode's first step would be lost"):
        environments.GymnasiumVectorEnvironment(native)


class Halves(Echo):
    def _observe(self):
        return np.array([0.5, 1.0])


def test_floats_where_the_space_has_whole_numbers_are_refused():
    spaces_of_both = (spaces.Box(0, 255, (2,), np.uint8), spaces.Discrete(2))
    with pytest.raises(ValueError, match="whole numbers, since its space is of uint8, got float64"):
        environments.GymnasiumEnvironment(Halves(*spaces_of_both)).reset()


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), np.array([300, -1])),
        (spaces.Box(0, 2**40, (2,), np.int64), np.array([2**33, 0])),
        (spaces.Box(0, 2**40, (2,), np.uint64), np.array([2**33, 0], np.uint64)),
    ],
)
def test_whole_numbers_beyond_the_dtype_of_the_spec_are_refused(space, value):
    environment = Echo(space, spaces.Discrete(2))
    environment._observe = lambda: value
    with pytest.raises(ValueError, match=f"must have numbers in .*, got {value.min()} to {value.max()}"):
        environments.GymnasiumEnvironment(environment).reset()


class OneArray(gymnasium.Env):
    """Counts its steps in one array, to three."""

    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)
    steps = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        self.steps[:] = 0
        return self.steps, {}

    def step(self, action):
        self.steps += 1
        return self.steps, 1.0, False, bool(self.steps[0] == 3), {}


@pytest.mark.parametrize("mode", gymnasium.vector.AutoresetMode)
def test_members_that_reuse_their_array_lose_no_last_observation(mode):
    native = gymnasium.vector.SyncVectorEnv([OneArray], autoreset_mode=mode)
    environment = environments.GymnasiumVectorEnvironment(native)
    environment.reset()
    action = np.zeros(1, np.int32)
    if mode is gymnasium.vector.AutoresetMode.SAME_STEP:
        with pytest.raises(ValueError, match=r"every observation of member 0 in the same array.*use mode 'NextStep'"):
            [environment.step(action) for _ in range(3)]
    else:
        assert [environment.step(action).observation.item() for _ in range(4)] == [1, 2, 3, 0]


def test_members_of_a_vector_may_change_their_actions():
    box = spaces.Box(-1, 1, (2,), np.float32)
    native = gymnasium.vector.SyncVectorEnv([lambda: Echo(box, box)] * 2)
    environment = environments.GymnasiumVectorEnvironment(native)
    environment.reset()
    action = np.ones((2, 2), np.float32)
    action.setflags(write=False)  # as those from JAX are
    environment.step(action)
    for member in native.envs:
        member.actions[0] *= 0.5
    np.testing.assert_array_equal(action, 1)


class Subclass(environments.GymnasiumEnvironment):
    """Steps as its base does, but one by one, and by its own step."""

    steps = 0

    def step(self, action):
        self.steps += 1
        return super().step(action)


SINGLE_SPACES = [
    (spaces.Box(-1, 1, (2, 3), np.float64), spaces.Box(-2, 2, (2,), np.float64)),
    (spaces.Box(0, 255, (2, 2), np.uint8), spaces.Discrete(4)),
    (spaces.Discrete(3, start=-1), spaces.Discrete(5, start=2)),
    (spaces.MultiBinary(2), spaces.MultiDiscrete([2, 5])),
    (spaces.Dict(a=spaces.Box(-1, 1, (2,), np.float32)), spaces.Discrete(2)),
]


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("both", SINGLE_SPACES, ids=str)
def test_members_step_together_as_they_do_one_by_one(num_envs, both):
    records = []
    for kind in (environments.GymnasiumEnvironment, Subclass):
        members = [kind(Echo(*both)) for _ in range(num_envs)]
        vector = environments.SyncVectorEnvironment(members, seed=3)
        rng = np.random.default_rng(0)
        spec = vector.action_spec()
        steps = [vector.reset()]
        for _ in range(40):
            low, high = spec.minimum, spec.maximum
            action = rng.uniform(low, high + 1 if spec.dtype.kind == "i" else high, (num_envs, *spec.shape))
            steps.append(vector.step(action.astype(spec.dtype)))
        assert kind is not Subclass or {member.steps for member in members} == {len(members[0].environment.actions)}
        # Actions as they came to the environments, with their dtypes, and all that was seen.
        records.append((steps, [member.environment.actions for member in members]))
    jax.tree.map(np.testing.assert_array_equal, *records)
    jax.tree.map(lambda one, other: None if one.dtype == other.dtype else pytest.fail(f"{one.dtype}"), *records)
    assert sum(int(step.step_type[0] == dm_env.StepType.LAST) for step in records[0][0]) >= 5


@pytest.mark.parametrize("num_envs", [1, 2])
def test_ends_of_episodes_are_the_same_where_members_step_together(num_envs):
    runs = []
    for kind in (environments.GymnasiumEnvironment, Subclass):
        vector = environments.SyncVectorEnvironment([kind(episodes.RandomEpisodes()) for _ in range(num_envs)], seed=5)
        steps = [vector.reset()] + [vector.step(np.full(num_envs, index % 3, np.int32)) for index in range(200)]
        runs.append((steps, vector.episodes))
    jax.tree.map(np.testing.assert_array_equal, *runs)
    last = [step.discount[step.step_type == dm_env.StepType.LAST] for step in runs[0][0]]
    assert {0.0, 1.0} == set(np.concatenate(last).tolist())


class Breaks(gymnasium.Env):
    """Episodes of two steps; from the 5th step on it gives what it was made with."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, observation=(0, 0), reward=0.0):
        self.wrong = np.array(observation, np.float32), reward
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        observation, reward = self.wrong if self.steps >= 5 else (np.zeros(2, np.float32), 0.0)
        return observation, reward, self.steps % 2 == 0, False, {}


class EndsInArrays(Breaks):
    """Says in arrays of one element whether an episode has ended."""

    def step(self, action):
        *step, terminated, truncated, info = super().step(action)
        return *step, np.array([terminated]), np.array([truncated]), info


@pytest.mark.parametrize("num_envs", [1, 2])
def test_ends_may_be_arrays_of_one_element(num_envs):
    members = [environments.GymnasiumEnvironment(EndsInArrays()) for _ in range(num_envs)]
    vector = environments.SyncVectorEnvironment(members)
    vector.reset()
    for _ in range(10):
        step = vector.step(np.zeros(num_envs, np.int32))
        assert step.discount.shape == step.step_type.shape == (num_envs,)


def test_an_environment_that_is_wrapped_later_is_stepped_through_its_wrapper():
    class Counted(gymnasium.Wrapper):
        calls = 0

        def step(self, action):
            self.calls += 1
            return super().step(action)

    member = environments.GymnasiumEnvironment(Breaks())
    vector = environments.SyncVectorEnvironment([member])
    vector.reset()
    for _ in range(6):
        vector.step(np.zeros(1, np.int32))
    member.environment = Counted(member.environment)
    for _ in range(6):
        vector.step(np.zeros(1, np.int32))
    assert member.environment.calls == 4


@pytest.mark.parametrize("num_broken", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"observation": [0, 0, 0]}, r"environments\[0\] gave an array of shape \(3,\) where its spec"),
        ({"observation": [0]}, r"environments\[0\] gave an array of shape \(1,\) where its spec"),
        ({"reward": np.zeros(1)}, r"environments\[0\] gave an array of shape \(1,\) where its spec is Array 'reward'"),
        ({"reward": "much"}, "that are no numbers where their spec is Array 'reward'"),
    ],
)
def test_shapes_are_checked_where_members_step_together(num_broken, wrong, problem):
    members = [environments.GymnasiumEnvironment(Breaks(**wrong if index < num_broken else {})) for index in range(2)]
    vector = environments.SyncVectorEnvironment(members)
    vector.reset()
    with pytest.raises(ValueError, match=problem):
        [vector.step(np.zeros(2, np.int32)) for _ in range(8)]


@pytest.mark.parametrize(
    ("action", "problem"), [(np.zeros(2), "cannot be interpreted as an integer"), (np.zeros(3, np.int32), "2 rows")]
)
def test_actions_are_checked_where_members_step_together(action, problem):
    vector = environments.SyncVectorEnvironment([environments.GymnasiumEnvironment(Breaks()) for _ in range(2)])
    vector.reset()
    for _ in range(6):
        vector.step(np.zeros(2, np.int32))
    with pytest.raises((TypeError, ValueError), match=problem):
        vector.step(action)


def test_a_member_that_somebody_else_has_ended_is_noticed():
    member = environments.GymnasiumEnvironment(episodes.RandomEpisodes())
    vector = environments.SyncVectorEnvironment([member], seed=5)
    vector.reset()
    for _ in range(100):  # all that is checked once has been
        timestep = vector.step(np.zeros(1, np.int32))
    while timestep.step_type[0] != dm_env.StepType.FIRST:
        timestep = vector.step(np.zeros(1, np.int32))
    while member.step(0).step_type != dm_env.StepType.LAST:
        pass
    with pytest.raises(ValueError, match="gave a FIRST step in the middle of an episode"):
        vector.step(np.zeros(1, np.int32))
