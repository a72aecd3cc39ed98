import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs as dm_specs

from acme_lite import environments
from tests.environments import episodes

_BOTH_ACTIONS = {"a": dm_specs.DiscreteArray(3, np.int64), "b": dm_specs.BoundedArray((2,), np.float64, -1, 1)}


def make_member():
    return environments.GymnasiumEnvironment(episodes.RandomEpisodes())


def record(environment, actions):
    return [environment.reset(), *(environment.step(action) for action in actions)]


def random_actions(num_steps, num_envs, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (num_steps, num_envs)).astype(np.int32)


def reference(seed, member, actions):
    """Rows of one member, stepped alone: a new seed before each of its episodes."""
    environment = make_member()
    rows, episode, over = [], 0, True
    for action in [None, *actions]:
        if over:
            environment.reseed(environments.episode_seed(seed, member, episode))
            timestep = environment.reset()._replace(reward=0.0, discount=1.0)
            episode += 1
        else:
            timestep = environment.step(action)
        over = timestep.last()
        rows.append(timestep._replace(observation=np.array(timestep.observation)))
    return rows


@pytest.mark.parametrize("num_envs", [1, 3])
def test_members_equal_single_environments(num_envs):
    actions = random_actions(60, num_envs)
    vector = environments.SyncVectorEnvironment([make_member() for _ in range(num_envs)], seed=5)
    timesteps = record(vector, actions)
    for member in range(num_envs):
        expected = reference(5, member, actions[:, member])
        for field in dm_env.TimeStep._fields:
            got = np.stack([getattr(timestep, field)[member] for timestep in timesteps])
            np.testing.assert_array_equal(got, np.stack([getattr(timestep, field) for timestep in expected]), field)
    step_types = np.stack([timestep.step_type for timestep in timesteps])
    discounts = np.stack([timestep.discount for timestep in timesteps])
    lasts = step_types == dm_env.StepType.LAST
    assert set(discounts[lasts].tolist()) == {0.0, 1.0}  # both kinds of ends were met
    assert (discounts[~lasts] == 1).all()
    np.testing.assert_array_equal(vector.episodes, (step_types == dm_env.StepType.FIRST).sum(0))
    assert timesteps[1].reward.dtype == timesteps[1].observation.dtype == np.float32
    assert timesteps[0].observation.shape == (num_envs, 4)


@pytest.mark.parametrize("num_envs", [1, 2])
def test_returned_arrays_do_not_change_later(num_envs):
    vector = environments.SyncVectorEnvironment([make_member() for _ in range(num_envs)])
    timesteps = record(vector, [])
    copies = [tuple(np.copy(field) for field in timesteps[0])]
    for action in random_actions(20, num_envs):
        timesteps.append(vector.step(action))
        copies.append(tuple(np.copy(field) for field in timesteps[-1]))
    for timestep, kept in zip(timesteps, copies, strict=True):
        for field, value in zip(timestep, kept, strict=True):
            np.testing.assert_array_equal(field, value)


def first_observations(vector, num_steps):
    """`[member][episode]` first observations."""
    found = [[] for _ in range(vector.num_envs)]
    for timestep in record(vector, np.zeros((num_steps, vector.num_envs), np.int32)):
        for member in np.flatnonzero(timestep.step_type == dm_env.StepType.FIRST):
            found[member].append(tuple(timestep.observation[member].tolist()))
    return found


def test_episodes_draw_from_seed_member_and_episode_alone():
    two = first_observations(environments.SyncVectorEnvironment([make_member() for _ in range(2)], seed=1), 30)
    three = first_observations(environments.SyncVectorEnvironment([make_member() for _ in range(3)], seed=1), 30)
    other = first_observations(environments.SyncVectorEnvironment([make_member() for _ in range(2)], seed=2), 30)
    assert three[:2] == two
    starts = [start for member in (*three, *other) for start in member]
    assert len(set(starts)) == len(starts)


def test_actions_before_an_episode_do_not_change_it():
    runs = []
    for action in (0, 2):
        vector = environments.SyncVectorEnvironment([make_member()], seed=3)
        vector.reset()
        vector.step(np.array([action], np.int32))
        runs.append(vector.reset().observation)
    np.testing.assert_array_equal(runs[0], runs[1])


def test_reseed_resumes_exactly():
    vector = environments.SyncVectorEnvironment([make_member() for _ in range(3)], seed=4)
    record(vector, random_actions(15, 3))
    counts = vector.episodes
    expected = record(vector, random_actions(25, 3, seed=1))
    resumed = environments.SyncVectorEnvironment([make_member() for _ in range(3)], seed=99)
    record(resumed, random_actions(7, 3))
    resumed.reseed(4, counts)
    for one, two in zip(expected, record(resumed, random_actions(25, 3, seed=1)), strict=True):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)
    assert len(set(counts.tolist())) > 1  # the members were at different episodes
    np.testing.assert_array_equal(resumed.episodes, vector.episodes)


def test_episode_seed_is_a_hash_of_its_parts():
    seeds = {environments.episode_seed(seed, m, k) for seed in range(9) for m in range(9) for k in range(9)}
    assert len(seeds) == 9**3
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert environments.episode_seed(1, 2, 3) == environments.episode_seed(1, 2, 3)


def test_members_are_reseeded_before_each_reset_and_plain_ones_left_alone():
    member = episodes.scripted(num_steps=1)
    vector = environments.SyncVectorEnvironment([member], seed=8)
    record(vector, np.zeros((3, 1), np.int32))
    assert member.seeds == [environments.episode_seed(8, 0, 0), environments.episode_seed(8, 0, 1)]

    class Plain(episodes.Scripted):
        reseed = property()  # as if there were none

    plain = Plain([np.zeros(1)] * 2, [1.0], [0.0], observation_spec=dm_specs.Array((1,), float))
    timesteps = record(environments.SyncVectorEnvironment([plain]), np.zeros((2, 1), np.int32))
    assert [int(timestep.step_type[0]) for timestep in timesteps] == [0, 2, 0]


@pytest.mark.parametrize("num_envs", [1, 2])
def test_first_steps_have_reward_0_and_discount_1_and_discounts_pass(num_envs):
    vector = environments.SyncVectorEnvironment([episodes.scripted(2, discount=0.5) for _ in range(num_envs)])
    timesteps = record(vector, np.zeros((3, num_envs), np.int32))
    assert [timestep.reward[0] for timestep in timesteps] == [0.0, 1.0, 2.0, 0.0]
    assert [timestep.discount[0] for timestep in timesteps] == [1.0, 0.5, 0.5, 1.0]
    assert [timestep.step_type[0] for timestep in timesteps] == [0, 1, 2, 0]


@pytest.mark.parametrize("num_envs", [1, 3])
def test_trees_are_stacked_and_split(num_envs):
    action_spec = {"x": dm_specs.Array((2,), np.float32), "n": (dm_specs.DiscreteArray(3),)}
    members = []
    for _ in range(num_envs):
        member = episodes.scripted_tree()
        member.action_spec = lambda: action_spec
        members.append(member)
    vector = environments.SyncVectorEnvironment(members)
    first = vector.reset()
    assert first.observation["b"][1].shape == (num_envs, 2, 2)
    assert first.observation["b"][0].dtype == np.int64
    x = np.arange(2 * num_envs, dtype=np.float32).reshape(num_envs, 2)
    timestep = vector.step({"x": x, "n": (np.arange(num_envs),)})
    np.testing.assert_array_equal(timestep.observation["a"], np.ones((num_envs, 3)))
    for index, member in enumerate(members):
        np.testing.assert_array_equal(member.actions[0]["x"], x[index])
        assert member.actions[0]["n"] == (index,)


def test_step_before_reset_resets():
    vector = environments.SyncVectorEnvironment([make_member(), make_member()])
    assert vector.step(np.zeros(2, np.int32)).first().all()


def test_members_must_be_there_once_each_with_equal_specs():
    with pytest.raises(ValueError, match="environments must have at least one member"):
        environments.SyncVectorEnvironment([])
    member = make_member()
    with pytest.raises(ValueError, match="environments must be different objects"):
        environments.SyncVectorEnvironment([member, member])
    with pytest.raises(ValueError, match=r"environments must have equal specs, got .*member 0.*member 1"):
        environments.SyncVectorEnvironment([make_member(), episodes.scripted()])
    with pytest.raises(ValueError, match="environments must have equal specs"):
        environments.SyncVectorEnvironment([episodes.scripted_tree(), episodes.scripted()])
    bounded = [
        episodes.Scripted([np.zeros(2)], [], [], observation_spec=dm_specs.BoundedArray((2,), np.float64, 0, high))
        for high in ([1, 2], [1, 3])
    ]
    with pytest.raises(ValueError, match=r"equal specs, got .*\(member 1\), which differ in the bounds of elements"):
        environments.SyncVectorEnvironment(bounded)


@pytest.mark.parametrize("num_envs", [1, 2])
def test_actions_need_one_row_per_member(num_envs):
    vector = environments.SyncVectorEnvironment([make_member() for _ in range(num_envs)])
    vector.reset()
    with pytest.raises(ValueError, match=f"action must have {num_envs} rows"):
        vector.step(np.zeros(3, np.int32))
    with pytest.raises(ValueError, match=f"action must have {num_envs} rows"):
        vector.step(np.int32(0))


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize(
    "spec", [dm_specs.DiscreteArray(3, np.int64), dm_specs.BoundedArray((2,), np.float64, -1, 1), _BOTH_ACTIONS]
)
def test_actions_have_the_dtype_of_their_spec(num_envs, spec):
    members = [episodes.scripted(action_spec=spec) for _ in range(num_envs)]
    vector = environments.SyncVectorEnvironment(members)
    vector.reset()
    single = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
    vector.step(jax.tree.map(lambda leaf: np.ones((num_envs, *leaf.shape), single[leaf.dtype]), spec))
    for member in members:
        jax.tree.map(lambda leaf, action: leaf.validate(action), spec, member.actions[0])


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_members_may_change_their_actions(num_envs, dtype):
    members = [episodes.scripted(action_spec=dm_specs.BoundedArray((2,), dtype, -1, 1)) for _ in range(num_envs)]
    vector = environments.SyncVectorEnvironment(members)
    vector.reset()
    action = np.ones((num_envs, 2), np.float32)
    action.setflags(write=False)  # as those from JAX are
    vector.step(action)
    for member in members:
        member.actions[0] *= 0.5
    np.testing.assert_array_equal(action, 1)


def test_observations_must_have_the_shape_of_their_spec():
    member = episodes.Scripted([np.zeros(2)], [], [], observation_spec=dm_specs.Array((3,), float))
    with pytest.raises(ValueError, match=r"environments\[0\] gave an observation of shape \(2,\)"):
        environments.SyncVectorEnvironment([member]).reset()


def test_observations_must_be_whole_where_their_spec_is():
    member = episodes.Scripted([np.zeros(3)], [], [], observation_spec=dm_specs.Array((3,), np.uint8))
    with pytest.raises(ValueError, match=r"environments\[0\] gave an observation of float64 where its spec is"):
        environments.SyncVectorEnvironment([member]).reset()


_FLOATS = dm_specs.Array((3,), np.float32)
_BYTES = dm_specs.BoundedArray((3,), np.uint8, 0, 255)
_CHOICE = dm_specs.DiscreteArray(4)
_WHOLE = dm_specs.Array((), np.int32, "reward")


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("num_steps", [1, 2])  # the wrong step is the first LAST or MID one
@pytest.mark.parametrize(
    ("spec", "right", "wrong", "problem"),
    [
        (_FLOATS, np.zeros(3), np.zeros(1), r"of shape \(1,\) where its spec is Array float32\[3\]"),
        ({"a": _FLOATS}, {"a": np.zeros(3)}, {"a": np.zeros((3, 1))}, r"of shape \(3, 1\)"),
        (_FLOATS, np.zeros(3), np.array([None] * 3), "of object"),
        (_BYTES, np.zeros(3, int), np.full(3, 0.5), "of float64"),
        (_BYTES, np.zeros(3, int), np.array([300, -1, 0]), "with numbers from -1 to 300"),
        (_CHOICE, 0, 7, "with numbers from 7 to 7 where its spec is DiscreteArray"),
    ],
)
def test_later_observations_must_fit_their_spec(num_envs, num_steps, spec, right, wrong, problem):
    members = [
        episodes.Scripted([right, wrong, right], [1.0] * num_steps, [1.0] * num_steps, observation_spec=spec)
        for _ in range(num_envs)
    ]
    vector = environments.SyncVectorEnvironment(members)
    vector.reset()
    with pytest.raises(ValueError, match=rf"environments\[0\] gave an observation {problem}"):
        vector.step(np.zeros(num_envs, np.int32))


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("tree", [False, True])
def test_shapes_are_checked_at_every_step(num_envs, tree):
    spec, rows = {"a": _FLOATS} if tree else _FLOATS, [np.zeros(3)] * 3 + [np.zeros(1)] * 2
    observations = [{"a": row} if tree else row for row in rows]
    vector = environments.SyncVectorEnvironment(
        [episodes.Scripted(observations, [1.0] * 4, [1.0] * 4, observation_spec=spec) for _ in range(num_envs)]
    )
    record(vector, np.zeros((2, num_envs), np.int32))
    with pytest.raises(ValueError, match=r"of shape \(1,\) where its spec is"):
        vector.step(np.zeros(num_envs, np.int32))


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize(
    ("rewards", "discounts", "spec", "problem"),
    [
        ([0.7, 1], [1, 1], _WHOLE, "a reward 0.7 of float64 where its spec is .*int32"),
        ([1, 1, 0.7, 1], [1] * 4, _WHOLE, "the values .* where their spec is .*int32"),
        ([None, 1], [1, 1], None, "a reward None of object"),
        ([np.ones(1), 1], [1, 1], None, r"a reward of shape \(1,\)"),
        ([1, 1], [1.5, 1], None, r"the discount 1.5, and discounts are in \[0, 1\]"),
    ],
)
def test_rewards_and_discounts_must_fit_their_spec(num_envs, rewards, discounts, spec, problem):
    members = [
        episodes.Scripted([np.zeros(3)] * (len(rewards) + 1), rewards, discounts, observation_spec=_FLOATS)
        for _ in range(num_envs)
    ]
    for member in members:
        if spec is not None:
            member.reward_spec = lambda: spec
    vector = environments.SyncVectorEnvironment(members)
    with pytest.raises(ValueError, match=f"gave {problem}"):
        record(vector, np.zeros((5, num_envs), np.int32))


@pytest.mark.parametrize("num_envs", [1, 2])
def test_an_episode_must_end_before_the_next_one_begins(num_envs):
    members = [episodes.scripted() for _ in range(num_envs)]
    vector = environments.SyncVectorEnvironment(members)
    vector.reset()
    members[0].step = lambda action: members[0].reset()
    with pytest.raises(ValueError, match=r"environments\[0\] gave a FIRST step in the middle of an episode"):
        vector.step(np.zeros(num_envs, np.int32))


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, "1"])
def test_seeds_must_be_integers_in_range(seed):
    with pytest.raises(ValueError, match="seed must be an integer in"):
        environments.SyncVectorEnvironment([make_member()], seed=seed)


@pytest.mark.parametrize("counts", [[1], [1, -1], [0.5, 1.0]])
def test_episode_counts_must_be_one_per_member(counts):
    vector = environments.SyncVectorEnvironment([make_member(), make_member()])
    with pytest.raises(ValueError, match="episodes must be 2 integers of at least 0"):
        vector.reseed(0, np.array(counts))


def test_close_closes_every_member():
    members = [episodes.scripted(), episodes.scripted()]
    environments.SyncVectorEnvironment(members).close()
    assert all(member.is_closed for member in members)
