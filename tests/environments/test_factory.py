import subprocess
import sys

import jax
import numpy as np
import pytest
from dm_env import specs as dm_specs

from acme_lite import environments, specs

SUITES = {
    "gym:CartPole-v1": "gymnasium",
    "gym:Pendulum-v1": "gymnasium",
    "gym:HalfCheetah-v5": "mujoco",
    "dm_control:cartpole:swingup": "dm_control",
    "dm_control:finger:turn_hard": "dm_control",
    "bsuite:catch/0": "bsuite",
    "bsuite:catch_noise/0": "bsuite",
    "bsuite:cartpole_swingup/0": "bsuite",
    "bsuite:memory_len/3": "bsuite",
    "bsuite:deep_sea_stochastic/0": "bsuite",
    "atari:Breakout": "ale_py",
}
EXTRAS = {"dm_control:cartpole:swingup": "dm_control", "bsuite:catch/0": "bsuite", "atari:Pong": "ale_py"}


@pytest.fixture(params=SUITES, scope="module")
def name(request):
    pytest.importorskip(SUITES[request.param])
    return request.param


def make_actions(environment, num_steps, seed):
    generator = np.random.default_rng(seed)
    spec = environment.action_spec()
    if isinstance(spec, dm_specs.DiscreteArray):
        return generator.integers(0, spec.num_values, num_steps).astype(spec.dtype)
    return generator.uniform(spec.minimum, spec.maximum, (num_steps, *spec.shape)).astype(spec.dtype)


def episode(environment, actions):
    timesteps = [environment.reset(), *(environment.step(action) for action in actions)]
    return [jax.tree.map(np.copy, tuple(timestep)) for timestep in timesteps]


def assert_same(one, two):
    for left, right in zip(one, two, strict=True):
        jax.tree.map(np.testing.assert_array_equal, left, right)


def test_environments_conform_in_single_precision(name):
    environment = environments.make(name, seed=1)
    spec = specs.make_environment_spec(environment)
    assert all(leaf.dtype not in (np.float64, np.int64) for leaf in jax.tree.leaves(spec))
    for step_type, reward, discount, observation in episode(environment, make_actions(environment, 12, 0)):
        jax.tree.map(lambda leaf, value: leaf.validate(value), spec.observation, observation)
        if step_type == 0:
            assert reward is None
            assert discount is None
        else:
            spec.reward.validate(reward)
            spec.discount.validate(discount)


def test_reseed_alone_decides_the_next_episode(name):
    environment, other = environments.make(name, seed=1), environments.make(name, seed=2)
    actions = make_actions(environment, 25, 0)
    expected = episode(environment, actions)
    episode(other, make_actions(environment, 7, 3))
    other.reseed(1)
    assert_same(expected, episode(other, actions))
    environment.close()


def test_vector_of_two_has_episodes_of_its_own(name):
    vector = environments.make_vector(name, 2, seed=4)
    single = environments.make(name, seed=environments.episode_seed(4, 1, 0))
    actions = make_actions(single, 8, 5)
    batches = np.stack([actions, actions], axis=1)
    expected = episode(single, actions)
    timesteps = [vector.reset(), *(vector.step(batch) for batch in batches)]
    for timestep, (step_type, reward, _, observation) in zip(timesteps, expected, strict=True):
        if step_type == 0 and timestep is not timesteps[0]:
            break  # the single environment goes on with its own generator
        assert timestep.step_type[1] == step_type
        assert timestep.reward[1] == (0 if reward is None else reward)
        jax.tree.map(
            lambda left, right: np.testing.assert_array_equal(left[1], right), timestep.observation, observation
        )


def test_cartpole_and_pendulum_specs():
    assert environments.make("gym:CartPole-v1").action_spec() == dm_specs.DiscreteArray(2)
    assert environments.make("gym:Pendulum-v1").action_spec() == dm_specs.BoundedArray((1,), np.float32, [-2], [2])
    assert environments.make("gym:Pendulum-v1", g=1.0).environment.unwrapped.g == 1.0


def test_dm_control_gives_dictionaries_and_truncates_with_discount_1():
    pytest.importorskip("dm_control")
    environment = environments.make("dm_control:cartpole:balance", task_kwargs={"time_limit": 0.05})
    assert type(environment.observation_spec()) is dict
    timestep = environment.reset()
    assert type(timestep.observation) is dict
    while not timestep.last():
        timestep = environment.step(np.zeros(1, np.float32))
    assert timestep.discount == 1.0
    assert environment.physics.timestep() > 0  # unknown attributes come from the suite


def test_dm_control_environment_needs_a_generator():
    with pytest.raises(ValueError, match=r"DMControlEnvironment\.environment must have a `task\.random`"):
        environments.DMControlEnvironment(environments.make("gym:CartPole-v1"))


def test_the_seed_decides_the_physics_that_dm_control_draws_when_it_builds_a_task():
    pytest.importorskip("dm_control")
    name = "dm_control:lqr:lqr_2_1"
    stiffness = [environments.make(name, seed=seed).physics.model.jnt_stiffness.tolist() for seed in (3, 3, 4)]
    assert stiffness[0] == stiffness[1] != stiffness[2]
    vectors = [environments.make_vector(name, 2, seed=seed) for seed in (3, 3, 4)]
    members = [[member.physics.model.jnt_stiffness.tolist() for member in vector.environments] for vector in vectors]
    assert members[0] == members[1] and members[0][0] != members[0][1]
    assert not any(stiffness in members[0] for stiffness in members[2])
    given = environments.make(name, seed=4, task_kwargs={"random": 3}).physics.model.jnt_stiffness.tolist()
    assert given == stiffness[0]


def test_bsuite_noise_is_reseeded_apart_from_the_environment():
    pytest.importorskip("bsuite")
    environment = environments.make("bsuite:catch_noise/0", seed=1)
    noise, inner = environment.environment.environment, environment.environment.environment._env
    assert noise._rng.randint(2**30) != inner._rng.randint(2**30)
    environment.reseed(1)
    again = inner._rng.randint(2**30)
    environment.reseed(1)
    assert inner._rng.randint(2**30) == again


def test_atari_stacks_frames_and_clips_rewards():
    pytest.importorskip("ale_py")
    environment = environments.make("atari:Pong", seed=0, sticky_actions=False, noop_max=0)
    spec = environment.observation_spec()
    assert isinstance(spec, specs.FrameStack)
    assert (spec.shape, spec.dtype) == ((4, 84, 84), np.uint8)
    first = environment.reset().observation
    assert (first == first[0]).all()
    second = environment.step(np.int32(0)).observation
    np.testing.assert_array_equal(second[:3], first[1:])
    assert environment.reward_spec().dtype == np.float32
    clipped = environments.make("atari:Pong", clip_rewards=True, num_frames=2)
    assert clipped.observation_spec().shape == (2, 84, 84)


def test_sticky_actions_repeat_the_last_one_a_quarter_of_the_time():
    pytest.importorskip("ale_py")
    import gymnasium

    from acme_lite.environments import atari

    class Recorder(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Discrete(1), gymnasium.spaces.Discrete(10**6)

        def __init__(self):
            self.actions = []

        def reset(self, *, seed=None, options=None):
            assert seed is None  # a seed would load the game again
            return 0, {}

        def step(self, action):
            self.actions.append(action)
            return 0, 0.0, False, False, {}

    recorder = Recorder()
    environment = atari.StickyActions(recorder, 0.25)
    environment.reset(seed=0)
    for action in range(1, 4001):
        environment.step(action)
    before = [0, *recorder.actions[:-1]]
    repeated = [action == last for action, last in zip(recorder.actions, before, strict=True)]
    assert all(
        action == own for own, action, r in zip(range(1, 4001), recorder.actions, repeated, strict=True) if not r
    )
    assert abs(np.mean(repeated) - 0.25) < 0.03  # four standard deviations


@pytest.mark.parametrize("name", ["CartPole-v1", "gym:", "procgen:coinrun", ""])
def test_unknown_suites(name):
    with pytest.raises(ValueError, match=r"name must be '<suite>:<task>' with a suite out of \['atari', 'bsuite', "):
        environments.make(name)


@pytest.mark.parametrize(
    ("name", "closest", "module"),
    [
        ("gym:CartPole-v7", "gym:CartPole-v0", "gymnasium"),
        ("gym:Pendulun", "gym:Pendulum-v1", "gymnasium"),
        ("gym:Pendulum-v0", "gym:Pendulum-v1", "gymnasium"),
        ("gym:Hopper-v1", "gym:Hopper-v", "gymnasium"),
        ("gym:foo bar", "gym:", "gymnasium"),
        ("gym:nope:Foo-v0", "gym:", "gymnasium"),
        ("gym:tests.nope:CartPole-v1", "gym:CartPole-v1", "gymnasium"),
        ("gym:json:CartPole-v7", "gym:CartPole-v", "gymnasium"),
        ("gym:a:b:CartPole-v1", "gym:CartPole-v1", "gymnasium"),
        ("dm_control:cartpole:swing", "dm_control:cartpole:swingup", "dm_control"),
        ("dm_control:cartpole", "dm_control:cartpole:", "dm_control"),
        ("bsuite:catch/99", "bsuite:catch/9", "bsuite"),
        ("atari:pong", "atari:Pong", "ale_py"),
    ],
)
def test_unknown_tasks_list_the_closest_first(name, closest, module):
    pytest.importorskip(module)
    with pytest.raises(ValueError, match=f"There is no task '{name}'. There are '{closest}.* and [0-9]+ more"):
        environments.make(name)


@pytest.mark.parametrize(("name", "module"), EXTRAS.items())
def test_missing_packages_say_what_to_install(name, module, monkeypatch):
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder is sys.meta_path[-1]])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ImportError, match=rf"'{name}' needs the package '{module}'.*: pip install '\.\[envs\]'"):
        environments.make(name)


def test_gymnasium_without_mujoco_says_what_to_install(monkeypatch):
    for loaded in [loaded for loaded in sys.modules if "mujoco" in loaded.split(".")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "mujoco", None)  # makes its import fail
    with pytest.raises(ImportError, match=r"'gym:HalfCheetah-v5' needs the package 'mujoco': pip install '\.\[envs\]'"):
        environments.make("gym:HalfCheetah-v5")


def test_a_module_that_lacks_another_one_says_so(tmp_path, monkeypatch):
    (tmp_path / "registers_tasks.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        environments.make("gym:registers_tasks:Foo-v0")


def test_gymnasium_tasks_may_have_no_version_and_a_module():
    for name in ("gym:CartPole", "gym:gymnasium:CartPole-v1"):
        assert environments.make(name).environment.spec.id == "CartPole-v1"


def test_make_vector_needs_a_member():
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        environments.make_vector("gym:CartPole-v1", 0)
    with pytest.raises(ValueError, match=r"seed must be an integer in .*, got -1"):
        environments.make_vector("gym:CartPole-v1", 1, seed=-1)


def test_import_is_light():
    heavy = "gymnasium bsuite dm_control ale_py cv2 tensorflow"
    code = f"import sys, acme_lite.environments; print([m for m in {heavy!r}.split() if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert answer.strip() == "[]"


def test_names_are_exported():
    assert environments.GymnasiumEnvironment.__name__ in dir(environments)
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchThing'"):
        _ = environments.NoSuchThing
