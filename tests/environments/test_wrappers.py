import copy

import jax
import numpy as np
import pytest
from dm_env import specs as dm_specs

from acme_lite import environments, specs
from acme_lite.environments import wrappers
from tests.environments import episodes

WRAPPERS = {
    "single_precision": environments.SinglePrecision,
    "canonical_actions": environments.CanonicalActions,
    "action_repeat": lambda environment: environments.ActionRepeat(environment, 1),
    "frame_stack": lambda environment: environments.FrameStack(environments.FlattenObservation(environment), 2),
    "step_limit": lambda environment: environments.StepLimit(environment, 9),
    "flatten": environments.FlattenObservation,
    "concatenate": environments.ConcatenateObservations,
}


def run(environment, actions):
    timesteps = [environment.reset()]
    timesteps.extend(environment.step(action) for action in actions)
    return timesteps


def assert_conforms(environment, timestep):
    jax.tree.map(lambda spec, value: spec.validate(value), environment.observation_spec(), timestep.observation)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("make", [episodes.scripted, episodes.scripted_tree])
def test_wrapper_conforms_to_its_specs_and_passes_the_rest_through(wrap, make):
    inner = make()
    environment = wrap(inner)
    timesteps = run(environment, [0] * 9)
    for timestep in timesteps:
        assert_conforms(environment, timestep)
    plain = run(make(), [0] * 9)
    assert [step.step_type for step in timesteps] == [step.step_type for step in plain]
    assert [step.reward for step in timesteps] == [step.reward for step in plain]
    environment.reseed(7)
    environment.close()
    assert inner.seeds == [7]
    assert inner.is_closed
    assert environment.is_closed  # an unknown attribute
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = environment.no_such_thing


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_wrapper_can_be_copied(wrap):
    environment = copy.deepcopy(wrap(episodes.scripted_tree()))
    np.testing.assert_equal(environment.reset().observation, wrap(episodes.scripted_tree()).reset().observation)


def test_wrapper_has_no_reseed_where_the_environment_has_none():
    environment = environments.FlattenObservation(dm_specs_environment())
    assert not hasattr(environment, "reseed")


def dm_specs_environment():
    inner = episodes.scripted()

    class Plain:
        observation_spec = staticmethod(inner.observation_spec)
        action_spec = staticmethod(inner.action_spec)
        reward_spec = staticmethod(inner.reward_spec)
        discount_spec = staticmethod(inner.discount_spec)

    return Plain()


def test_single_precision_converts_values_specs_and_actions():
    action_spec = dm_specs.BoundedArray((2,), np.float64, [-1e300, -1.0], [np.inf, 1.0], "action")
    inner = episodes.scripted(action_spec=action_spec)
    environment = environments.SinglePrecision(inner)
    _, timestep = run(environment, [np.array([0.5, 0.25], np.float32)])
    assert timestep.reward.dtype == timestep.discount.dtype == timestep.observation.dtype == np.float32
    assert environment.reward_spec().dtype == environment.discount_spec().dtype == np.float32
    spec = environment.action_spec()
    assert spec.dtype == np.float32
    # -1e300 is beyond float32: the least finite one stands for it; infinity stays.
    np.testing.assert_array_equal(spec.minimum, np.array([np.finfo(np.float32).min, -1], np.float32))
    np.testing.assert_array_equal(spec.maximum, np.array([np.inf, 1], np.float32))
    assert inner.actions[0].dtype == np.float64
    np.testing.assert_array_equal(inner.actions[0], [0.5, 0.25])


def test_single_precision_rounds_the_bounds_of_actions_to_the_inside_and_those_of_observations_as_values():
    # The nearest float32 to 0.1 and to 0.3 are greater, that to 0.7 is less; none lies between the bounds of the last.
    bounds = dm_specs.BoundedArray((4,), np.float64, [0.1, -0.3, -0.7, 0.1], [0.3, -0.1, 0.7, 0.1], "bounded")
    inner = episodes.scripted(action_spec=bounds)
    spec = environments.SinglePrecision(inner).action_spec()
    for action in (spec.minimum, spec.maximum):
        bounds.replace(shape=(3,), minimum=bounds.minimum[:3], maximum=bounds.maximum[:3]).validate(
            action[:3].astype(np.float64)
        )
    np.testing.assert_allclose(spec.minimum, bounds.minimum, rtol=1e-7)
    np.testing.assert_allclose(spec.maximum, bounds.maximum, rtol=1e-7)
    single = wrappers.to_single_spec(bounds)
    for observation in (bounds.minimum, bounds.maximum):
        single.validate(observation.astype(np.float32))


def test_single_precision_keeps_structure_and_kinds_of_specs():
    environment = environments.SinglePrecision(episodes.scripted_tree())
    spec = environment.observation_spec()
    assert isinstance(spec["b"][0], dm_specs.DiscreteArray)
    assert spec["b"][0].num_values == 9
    assert jax.tree.leaves(jax.tree.map(lambda leaf: leaf.dtype, spec)) == [np.float32, np.int32, np.float32]
    flat = environments.FlattenObservation(episodes.scripted_tree())
    stacked = environments.SinglePrecision(environments.FrameStack(flat, 2)).observation_spec()
    assert all(isinstance(leaf, specs.FrameStack) for leaf in jax.tree.leaves(stacked))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_single_precision_refuses_whole_numbers_that_it_cannot_hold(dtype):
    spec = dm_specs.Array((2,), dtype)
    inner = episodes.Scripted([np.array([5, 2**33], dtype)], [], [], observation_spec=spec)
    with pytest.raises(ValueError, match="that 32 bits can hold, got 5 to 8589934592"):
        environments.SinglePrecision(inner).reset()


def test_canonical_actions_scale_each_dimension_to_its_bounds():
    inner = episodes.scripted(action_spec=dm_specs.BoundedArray((3,), np.float64, [-2, 0, 5], [2, 10, 5], "action"))
    environment = environments.CanonicalActions(inner)
    assert environment.action_spec() == dm_specs.BoundedArray((3,), np.float64, -1, 1)
    run(environment, [np.array([1.0, -1.0, 0.3]), np.array([-0.5, 0.5, -1.0]), np.array([-9.0, 9.0, 9.0])])
    # middle + half * a: (0, 5, 5) + (2, 5, 0) * a.
    np.testing.assert_allclose(inner.actions, [[2, 0, 5], [-1, 7.5, 5], [-2, 10, 5]])


def test_canonical_actions_without_clip_go_beyond_the_bounds():
    inner = episodes.scripted(action_spec=dm_specs.BoundedArray((1,), np.float32, 0, 10, "action"))
    run(environments.CanonicalActions(inner, clip=False), [np.array([2.0], np.float32)])
    np.testing.assert_allclose(inner.actions, [[15]])  # 5 + 5 * 2
    assert inner.actions[0].dtype == np.float32


def test_canonical_actions_pass_discrete_parts_of_a_tree():
    inner = episodes.scripted(
        action_spec={"x": dm_specs.BoundedArray((), np.float32, 0, 4), "n": dm_specs.DiscreteArray(3)}
    )
    run(environments.CanonicalActions(inner), [{"x": np.float32(0.5), "n": np.int32(2)}])
    assert inner.actions == [{"x": np.float32(3), "n": 2}]


@pytest.mark.parametrize(
    "spec", [dm_specs.Array((1,), np.float32), dm_specs.BoundedArray((2,), np.float32, [0, -np.inf], 1)]
)
def test_canonical_actions_need_finite_bounds(spec):
    with pytest.raises(ValueError, match=r"CanonicalActions\.environment.*finite bounds, got"):
        environments.CanonicalActions(episodes.scripted(action_spec=spec))


def test_action_repeat_sums_rewards_multiplies_discounts_and_stops_at_the_end():
    inner = episodes.scripted(num_steps=5, discount=0.5)
    timesteps = run(environments.ActionRepeat(inner, 2), [0, 1, 1, 0, 1])
    # Rewards 1..5 in pairs: 1 + 2, 3 + 4, and 5 alone since the episode ends; then FIRST takes no action.
    assert [step.reward for step in timesteps] == [None, 3.0, 7.0, 5.0, None, 3.0]
    assert [step.discount for step in timesteps] == [None, 0.25, 0.25, 0.5, None, 0.25]
    assert [int(step.step_type) for step in timesteps] == [0, 1, 1, 2, 0, 1]
    assert [float(step.observation[0]) for step in timesteps] == [0, 2, 4, 5, 0, 2]
    assert inner.actions == [0, 0, 1, 1, 1, 1, 1]


def test_frame_stack_fills_the_stack_at_the_start_and_drops_the_oldest():
    environment = environments.FrameStack(episodes.scripted(num_steps=3), 3)
    spec = environment.observation_spec()
    assert isinstance(spec, specs.FrameStack)
    assert spec.shape == (3, 1)
    timesteps = run(environment, [0] * 4)
    stacks = [step.observation[:, 0].tolist() for step in timesteps]
    assert stacks == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 0]]


def test_frame_stack_does_not_alias_the_environments_buffer():
    environment = environments.FrameStack(environments.GymnasiumEnvironment(episodes.RandomEpisodes()), 2)
    environment.reseed(0)
    first = environment.reset().observation
    kept = first.copy()
    environment.step(0)
    np.testing.assert_array_equal(first, kept)


def test_frame_stack_stacks_every_leaf():
    environment = environments.FrameStack(environments.FlattenObservation(episodes.scripted_tree()), 2)
    _, timestep = run(environment, [0])
    np.testing.assert_array_equal(timestep.observation["a"][:, 0], [0, 1])
    np.testing.assert_array_equal(timestep.observation["b"][1][:, 0], [0, 1])
    np.testing.assert_array_equal(environment.observation_spec()["a"].maximum, np.full(3, 9))


def test_frame_stack_refuses_observations_of_so_many_values():
    with pytest.raises(ValueError, match=r"no DiscreteArray in its observations, got .* FlattenObservation inside"):
        environments.FrameStack(episodes.scripted_tree(), 2)


@pytest.mark.parametrize("wrap", [environments.FlattenObservation, environments.ConcatenateObservations])
def test_flat_observations_must_be_one_of_the_values(wrap):
    inner = episodes.Scripted([np.int32(-1)], [], [], observation_spec=dm_specs.DiscreteArray(3))
    with pytest.raises(ValueError, match=r"must be in \[0, 3\), .*, got -1"):
        wrap(inner).reset()


def test_step_limit_truncates_with_the_discount_kept():
    timesteps = run(environments.StepLimit(episodes.scripted(num_steps=4, discount=0.9), 2), [0] * 4)
    assert [int(step.step_type) for step in timesteps] == [0, 1, 2, 0, 1]
    assert [step.discount for step in timesteps] == [None, 0.9, 0.9, None, 0.9]
    assert [float(step.observation[0]) for step in timesteps] == [0, 1, 2, 0, 1]


def test_step_limit_lets_earlier_and_simultaneous_ends_through():
    for limit in (2, 5):
        timesteps = run(environments.StepLimit(episodes.scripted(num_steps=2, discount=0.0), limit), [0] * 5)
        assert [int(step.step_type) for step in timesteps] == [0, 1, 2, 0, 1, 2]
        assert timesteps[2].discount == 0.0


def test_step_limit_counts_anew_after_an_early_reset():
    environment = environments.StepLimit(episodes.scripted(num_steps=9), 2)
    environment.reset()
    environment.step(0)
    environment.reset()
    assert environment.step(0).mid()
    assert environment.step(0).last()


def test_flatten_observation_flattens_each_leaf():
    environment = environments.FlattenObservation(episodes.scripted_tree())
    _, timestep = run(environment, [0])
    shapes = jax.tree.map(np.shape, timestep.observation, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    assert shapes == {"b": ((9,), (4,)), "a": (3,)}
    np.testing.assert_array_equal(timestep.observation["b"][0], np.eye(9)[1])
    assert environment.observation_spec()["a"].maximum.tolist() == [9, 9, 9]
    assert not isinstance(environment.observation_spec()["b"][1], dm_specs.BoundedArray)


def test_concatenate_observations_sorts_keys():
    environment = environments.ConcatenateObservations(episodes.scripted_tree())
    spec = environment.observation_spec()
    # "a" (3), then "b": one of nine values (9) and the matrix (4).
    assert spec.shape == (16,)
    assert spec.dtype == np.float32
    np.testing.assert_array_equal(spec.minimum, [0] * 12 + [-np.inf] * 4)
    np.testing.assert_array_equal(spec.maximum, [9] * 3 + [1] * 9 + [np.inf] * 4)
    _, timestep = run(environment, [0])
    np.testing.assert_array_equal(timestep.observation, np.concatenate([np.ones(3), np.eye(9)[1], np.ones(4)]))


def test_concatenate_observations_takes_the_names_in_sorted_order():
    values = {"z": np.array([[1.0, 2.0], [3.0, 4.0]]), "y": np.float64(5.0), "x": np.array([6])}
    spec = {key: dm_specs.Array(np.shape(value), np.asarray(value).dtype) for key, value in values.items()}
    inner = episodes.Scripted([values], [], [], observation_spec=spec)
    chosen = environments.ConcatenateObservations(inner, names=["z", "y"]).reset().observation
    np.testing.assert_array_equal(chosen, np.array([5, 1, 2, 3, 4], np.float32))


@pytest.mark.parametrize("names", [["c"], [], "a", ["a", "c"]])
def test_concatenate_observations_refuses_unknown_names(names):
    with pytest.raises(ValueError, match=r"ConcatenateObservations\.names .*\['a', 'b'\], got"):
        environments.ConcatenateObservations(episodes.scripted_tree(), names)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize(
    ("wrapper", "name"),
    [
        (environments.ActionRepeat, r"ActionRepeat\.num_repeats"),
        (environments.FrameStack, r"FrameStack\.num_frames"),
        (environments.StepLimit, r"StepLimit\.max_steps"),
    ],
)
def test_counts_must_be_positive_integers(wrapper, name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {value!r}"):
        wrapper(episodes.scripted(), value)


def test_actions_are_not_repeated_over_stacked_frames():
    stacked = environments.FrameStack(episodes.scripted(num_steps=3), 3)
    with pytest.raises(ValueError, match="ActionRepeat must stand inside FrameStack"):
        environments.ActionRepeat(stacked, 2)
    repeated = environments.ActionRepeat(episodes.scripted(num_steps=3), 2)
    assert environments.FrameStack(repeated, 3).observation_spec().shape == (3, 1)
