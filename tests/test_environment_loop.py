"""Tests of the environment loop: counts, returns, order of calls, logging, on scripted environments."""

import collections

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs as dm_specs

from acme_lite import checkpointing, counting, environment_loop, environments, loggers


class ScriptedVectorEnvironment:
    """N members whose episodes have the lengths `lengths[member]`, over and over.

    The observation is (episode, step in the episode), the reward the step in the episode.
    """

    def __init__(self, lengths, calls=None):
        self.num_envs = len(lengths)
        self.calls = [] if calls is None else calls
        self._lengths = [list(member) for member in lengths]
        self._episode = [-1] * self.num_envs
        self._step = [0] * self.num_envs

    def reward_spec(self):
        return dm_specs.Array((), np.float32)

    def _begin(self, member):
        self._episode[member] += 1
        self._step[member] = 0
        return dm_env.StepType.FIRST

    def _advance(self, member):
        lengths = self._lengths[member]
        length = lengths[self._episode[member] % len(lengths)]
        if self._step[member] == length:
            return self._begin(member)
        self._step[member] += 1
        return dm_env.StepType.LAST if self._step[member] == length else dm_env.StepType.MID

    def _timestep(self, step_types):
        return dm_env.TimeStep(
            step_type=np.array([int(step_type) for step_type in step_types]),
            reward=np.array(self._step, np.float32),
            discount=np.ones(self.num_envs),
            observation=np.stack([self._episode, self._step], axis=1),
        )

    def reset(self):
        self.calls.append("reset")
        return self._timestep([self._begin(member) for member in range(self.num_envs)])

    def step(self, action):
        self.calls.append("step")
        return self._timestep([self._advance(member) for member in range(self.num_envs)])


class RecordingActor:
    def __init__(self, calls=None):
        self.calls = [] if calls is None else calls
        self.selected = []
        self.first = []
        self.observed = []

    def select_action(self, observation):
        self.calls.append("select_action")
        self.selected.append(observation)
        return observation[:, 1]

    def observe_first(self, timestep):
        self.calls.append("observe_first")
        self.first.append(timestep)

    def observe(self, action, next_timestep):
        self.calls.append("observe")
        self.observed.append((action, next_timestep))

    def update(self, wait=False):
        self.calls.append("update")


class LengthObserver:
    """Counts the steps of each member's episode by itself."""

    def observe_first(self, timestep):
        self.lengths = np.zeros(len(timestep.step_type), int)

    def observe(self, action, next_timestep):
        self.lengths = np.where(next_timestep.step_type == dm_env.StepType.FIRST, 0, self.lengths + 1)

    def get_metrics(self, member):
        return {"observed_length": self.lengths[member]}


def make_loop(lengths, **kwargs):
    return environment_loop.EnvironmentLoop(ScriptedVectorEnvironment(lengths), RecordingActor(), **kwargs)


def test_order_of_calls():
    calls = []
    loop = environment_loop.EnvironmentLoop(ScriptedVectorEnvironment([[2]], calls), RecordingActor(calls))
    loop.step()
    loop.step()
    vector_step = ["select_action", "step", "observe", "update"]
    assert calls == ["reset", "observe_first", *vector_step, *vector_step]


def test_the_actor_sees_every_step_and_acts_on_the_newest_observation():
    actor = RecordingActor()
    environment_loop.EnvironmentLoop(ScriptedVectorEnvironment([[2]]), actor).run(num_steps=4)
    # Episode 0: steps 0, 1, 2; the next call resets; episode 1: steps 0, 1, 2.
    assert actor.first[0].observation.tolist() == [[0, 0]]
    assert [timestep.observation.tolist() for _, timestep in actor.observed] == [
        [[0, 1]],
        [[0, 2]],
        [[1, 0]],
        [[1, 1]],
        [[1, 2]],
    ]
    assert [observation.tolist() for observation in actor.selected] == [
        [[0, 0]],
        [[0, 1]],
        [[0, 2]],
        [[1, 0]],
        [[1, 1]],
    ]
    assert [action.tolist() for action, _ in actor.observed] == [[0], [1], [2], [0], [1]]


def test_step_counts_environment_steps_but_no_resets():
    loop = make_loop([[1], [3]])
    # Member 0: LAST, FIRST, LAST, FIRST, ...; member 1: MID, MID, LAST, FIRST, ...
    assert [loop.step() for _ in range(8)] == [2, 1, 2, 0, 2, 1, 2, 0]
    assert loop.steps == 10
    assert loop.num_episodes == 6


def test_returns_and_lengths():
    result = make_loop([[3, 1, 2]]).run(num_episodes=4)
    # 1 + 2 + 3, 1, 1 + 2, and from the start.
    assert [episode.episode_return for episode in result.episodes] == [6, 1, 3, 6]
    assert [episode.length for episode in result.episodes] == [3, 1, 2, 3]
    assert [episode.steps for episode in result.episodes] == [3, 4, 6, 9]
    assert result.steps == 9


def test_members_are_kept_apart():
    loop = make_loop([[2], [4], [3]])
    result = loop.run(num_steps=60)
    for member, (length, episode_return) in enumerate([(2, 3), (4, 10), (3, 6)]):
        episodes = [episode for episode in result.episodes if episode.member == member]
        assert len(episodes) >= 4
        assert {(episode.length, episode.episode_return) for episode in episodes} == {(length, episode_return)}


def test_finished_holds_the_episodes_of_the_last_step_alone():
    loop = make_loop([[1], [2], [1]])
    loop.step()
    assert [episode.member for episode in loop.finished] == [0, 2]
    loop.step()
    assert [episode.member for episode in loop.finished] == [1]
    loop.run(num_episodes=0)
    loop.step()
    assert [episode.member for episode in loop.finished] == [0, 2]
    loop.step()
    assert loop.finished == []


def test_returns_are_summed_in_double_precision():
    class Environment(ScriptedVectorEnvironment):
        def _timestep(self, step_types):
            return (
                super()._timestep(step_types)._replace(reward=np.array([1e8 if self._step[0] == 1 else 1], np.float32))
            )

    loop = environment_loop.EnvironmentLoop(Environment([[11]]), RecordingActor())
    (episode,) = loop.run(num_episodes=1).episodes
    assert episode.episode_return == 100000010  # single precision would stay at 1e8


@pytest.mark.parametrize("num_steps", [0, 1, 5, 7, 13])
def test_one_member_runs_exactly(num_steps):
    counter = counting.Counter()
    loop = make_loop([[5]], counter=counter)
    assert loop.run(num_steps=num_steps).steps == num_steps == loop.steps
    assert counter.get_counts().get("actor_steps", 0) == num_steps


@pytest.mark.parametrize("num_steps", [1, 4, 10, 33])
def test_several_members_stop_at_the_first_step_with_enough(num_steps):
    loop = make_loop([[1], [3], [7], [2]])
    result = loop.run(num_steps=num_steps)
    assert num_steps <= result.steps == loop.steps <= num_steps + 3


@pytest.mark.parametrize("num_episodes", [0, 1, 4])
def test_episodes_are_exact_with_one_member(num_episodes):
    assert len(make_loop([[2, 1]]).run(num_episodes=num_episodes).episodes) == num_episodes


def test_the_first_limit_counts():
    assert make_loop([[3]]).run(num_steps=100, num_episodes=2).steps == 6
    assert len(make_loop([[3]]).run(num_steps=4, num_episodes=2).episodes) == 1


def test_an_episode_goes_on_in_the_next_run():
    loop = make_loop([[5]])
    assert loop.run(num_steps=3).episodes == []
    (episode,) = loop.run(num_steps=3).episodes
    assert (episode.episode_return, episode.length, episode.steps) == (15, 5, 5)
    assert loop.steps == 6


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "run needs num_steps or num_episodes, got None for both"),
        ({"num_steps": -1}, "num_steps must be at least 0, got -1"),
        ({"num_episodes": -2}, "num_episodes must be at least 0, got -2"),
    ],
)
def test_limits_are_checked(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_loop([[1]]).run(**kwargs)


def test_environments_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"environments.GymnasiumEnvironment and .* of Gymnasium\), got object"):
        environment_loop.EnvironmentLoop(object(), RecordingActor())


def test_rewards_must_be_scalars():
    class Environment(ScriptedVectorEnvironment):
        def reward_spec(self):
            return dm_specs.Array((2,), np.float32)

    with pytest.raises(ValueError, match=r"environment must have scalar rewards, got rewards of shape \(2,\)"):
        environment_loop.EnvironmentLoop(Environment([[1]]), RecordingActor())


def test_rows_counts_and_metrics():
    counter, logger = counting.Counter(), loggers.InMemoryLogger()
    counter.increment(learner_steps=4)
    loop = make_loop([[2], [2]], counter=counter, logger=logger, observers=[LengthObserver()], label="explorer")
    loop.run(num_steps=5)
    rates = [row.pop("steps_per_second") for row in logger.rows]
    assert rates[0] == rates[1] > 0
    common = {"learner_steps": 4, "explorer_steps": 4, "episode_return": 3, "episode_length": 2, "observed_length": 2}
    assert logger.rows == [common | {"explorer_episodes": 1}, common | {"explorer_episodes": 2}]
    assert counter.get_counts() == {"learner_steps": 4, "explorer_steps": 6, "explorer_episodes": 2}


def test_the_observer_of_a_later_episode_starts_anew():
    logger = loggers.InMemoryLogger()
    make_loop([[3, 1]], logger=logger, observers=[LengthObserver()]).run(num_episodes=4)
    assert [row["observed_length"] for row in logger.rows] == [3, 1, 3, 1]
    assert [row["episode_length"] for row in logger.rows] == [3, 1, 3, 1]


def test_steps_of_an_unfinished_episode_reach_the_counter_when_asked():
    counter = counting.Counter()
    loop = make_loop([[10]], counter=counter)
    for _ in range(3):
        loop.step()
    assert loop.steps == 3
    loop.report_steps()
    loop.report_steps()
    assert counter.get_counts() == {"actor_steps": 3}


def test_time_is_split(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(environment_loop, "_clock", lambda: now[0])

    def taking(seconds, method):
        def timed(*args):
            now[0] += seconds
            return method(*args)

        return timed

    environment, actor = ScriptedVectorEnvironment([[2]]), RecordingActor()
    for name, seconds in (("reset", 1000), ("step", 100)):
        monkeypatch.setattr(environment, name, taking(seconds, getattr(environment, name)))
    for name, seconds in (("select_action", 10), ("update", 5), ("observe", 2), ("observe_first", 1)):
        monkeypatch.setattr(actor, name, taking(seconds, getattr(actor, name)))
    logger = loggers.InMemoryLogger()
    loop = environment_loop.EnvironmentLoop(environment, actor, logger=logger)
    for _ in range(5):
        loop.step()
    assert loop.environment_seconds == 1000 + 5 * 100
    assert loop.acting_seconds == 5 * (10 + 5)
    assert loop.adding_seconds == 1 + 5 * 2
    # A reset and two vector steps of 117 s; then three, of which one only resets.
    assert [row["steps_per_second"] for row in logger.rows] == [2 / (1001 + 2 * 117), 2 / (3 * 117)]


def ordered(observation):
    return collections.OrderedDict(second=observation[..., 1], first=observation[..., 0])


@pytest.mark.parametrize("make_tree", [ordered, collections.namedtuple("Local", "observation")])
def test_a_loop_goes_on_with_observations_of_any_structure(make_tree):
    class Trees(ScriptedVectorEnvironment):
        def observation_spec(self):
            return make_tree(np.zeros(2))

        def step(self, action):
            timestep = super().step(action)
            return timestep._replace(observation=make_tree(timestep.observation))

    class Actor(RecordingActor):
        def select_action(self, observation):
            self.selected.append(observation)

    loop = environment_loop.EnvironmentLoop(Trees([[1], [1]]), Actor())
    loop.step()
    saved = checkpointing.unflatten(*checkpointing.flatten(loop.save()))
    actor = Actor()
    resumed = environment_loop.EnvironmentLoop(Trees([[1], [1]]), actor)
    resumed.restore(saved)
    resumed.step()
    (seen,) = actor.selected
    # Episode 0 has ended in both members.
    expected = make_tree(np.array([[0, 1], [0, 1]]))
    assert type(seen) is type(expected)
    jax.tree.map(np.testing.assert_array_equal, seen, expected)


def test_a_single_environment_keeps_its_seed():
    def observed(environment):
        actor = RecordingActor()
        actor.select_action = lambda observation: np.zeros(1, np.int32)
        environment_loop.EnvironmentLoop(environment, actor).run(num_episodes=2)
        return [step.observation[0] for _, step in actor.observed if step.step_type == dm_env.StepType.FIRST]

    of_seed = [environments.make("gym:CartPole-v1", seed=seed) for seed in (1, 1, 2)]
    first, same, other = [observed(environment) for environment in of_seed]
    np.testing.assert_array_equal(first, same)
    assert (first[0] != other[0]).any()
    assert (observed(of_seed[0])[0] != first[0]).any()  # a new loop goes on with the environment


def test_a_single_environment_is_vectorised():
    class Countdown(dm_env.Environment):
        def reset(self):
            self._left = 3
            return dm_env.restart(np.zeros(2, np.float32))

        def step(self, action):
            assert action.shape == ()
            self._left -= 1
            observation = np.full(2, self._left, np.float32)
            return dm_env.transition(0.5, observation) if self._left else dm_env.termination(0.5, observation)

        def observation_spec(self):
            return dm_specs.Array((2,), np.float32)

        def action_spec(self):
            return dm_specs.DiscreteArray(3)

    class Actor(RecordingActor):
        def select_action(self, observation):
            assert observation.shape == (1, 2)
            return np.zeros(1, np.int32)

    loop = environment_loop.EnvironmentLoop(Countdown(), Actor())
    result = loop.run(num_steps=7)
    assert loop.num_envs == 1
    assert result.steps == 7
    assert [(episode.episode_return, episode.length) for episode in result.episodes] == [(1.5, 3), (1.5, 3)]
