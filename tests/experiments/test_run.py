"""An experiment in one process: its files, its result, its environments, and how it ends early."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import runpy
import signal
import types

import dm_env
import haiku as hk
import jax
import numpy as np
import pytest

from acme_lite import environments, experiments, learning, networks, replay, specs, testing
from acme_lite.agents import dqn, r2d2
from acme_lite.experiments import interrupts, outputs, parts

BUILDER = dqn.DQNBuilder(
    dqn.DQNConfig(
        n_step=1,
        hidden_sizes=(8,),
        batch_size=8,
        samples_per_insert=4.0,
        min_replay_size=20,
        max_replay_size=200,
        epsilon=0.1,
        num_steps_per_call=1,
        overlap=False,
    )
)
RECURRENT_BUILDER = r2d2.R2D2Builder(
    r2d2.R2D2Config(
        trace_length=4,
        period=2,
        hidden_sizes=(8,),
        core_size=8,
        batch_size=8,
        samples_per_insert=4.0,
        min_replay_size=32,
        max_replay_size=200,
    )
)


def make_experiment(directory, **settings):
    settings = {
        "builder": BUILDER,
        "environment_factory": testing.MemoryEnvironment,
        "max_num_actor_steps": 120,
        "evaluation": experiments.EvaluationConfig(every_steps=50, num_episodes=3),
        "directory": directory,
    } | settings
    return experiments.ExperimentConfig(**settings)


def run(directory, **settings):
    return experiments.run_experiment(make_experiment(directory, **settings), quiet=True)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def recurrent_result(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "run", builder=RECURRENT_BUILDER, num_envs=3)


def read_rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_its_files(result):
    names = {path.name for path in result.directory.iterdir()}
    assert {"config.json", "learning_curve.png", "logs", "policy.bin", "result.json", "tensorboard"} <= names
    assert (result.directory / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((result.directory / "config.json").read_text())
    assert config["seed"] == 0 and config["max_num_actor_steps"] == 120 and config["environment"]["name"] == "memory"
    assert config["agent"]["config"]["batch_size"] == 8
    for label in ("actor", "learner", "evaluator", "time_split"):
        assert read_rows(result.directory / "logs" / f"{label}.csv")
        assert list((result.directory / "tensorboard" / label).glob("*tfevents*"))


def test_rows_of_the_logs(result):
    actor, evaluator = (read_rows(result.directory / "logs" / f"{label}.csv") for label in ("actor", "evaluator"))
    assert len(actor) == result.counts["actor_episodes"]
    assert {float(row["episode_return"]) for row in actor} <= {-1.0, 1.0}
    assert sum(int(row["episode_length"]) for row in actor) <= 120
    returns = [value for evaluation in result.evaluations for value in evaluation.returns]
    assert [float(row["episode_return"]) for row in evaluator] == returns
    (*_, learner) = read_rows(result.directory / "logs" / "learner.csv")
    assert int(learner["learner_steps"]) == result.counts["learner_steps"]
    assert np.isfinite(float(learner["loss"]))


def test_the_result_says_what_was_done(result):
    assert result.finished
    assert result.counts["actor_steps"] == 120
    # One transition per step; 4 samples for each one after the first 20, in batches of 8. The last step of a run ends
    # it: what that step makes due is not learned any more.
    assert result.counts["learner_steps"] == (119 - 20) * 4 // 8
    assert [evaluation.actor_steps for evaluation in result.evaluations] == [50, 100, 120]
    assert result.counts["evaluator_episodes"] == 9
    for evaluation in result.evaluations:
        assert len(evaluation.returns) == 3 and set(evaluation.returns) <= {-1.0, 1.0}
        assert evaluation.mean_return == pytest.approx(np.mean(evaluation.returns))
    written = json.loads((result.directory / "result.json").read_text())
    assert written["counts"] == result.counts
    assert [(one["actor_steps"], tuple(one["returns"])) for one in written["evaluations"]] == [
        (one.actor_steps, one.returns) for one in result.evaluations
    ]


def test_variables_are_written_by_their_paths(result):
    leaves = jax.tree_util.tree_leaves_with_path(result.variables)
    with np.load(result.directory / "variables.npz") as archive:
        assert set(archive) == {jax.tree_util.keystr(path) for path, _ in leaves}
        for path, leaf in leaves:
            np.testing.assert_array_equal(archive[jax.tree_util.keystr(path)], leaf)


def test_the_time_split_adds_up_to_at_most_the_total(result):
    rows = [
        {name.removesuffix("_seconds"): float(value) for name, value in row.items() if name.endswith("_seconds")}
        for row in read_rows(result.directory / "logs" / "time_split.csv")
    ]
    for seconds in [*rows, result.seconds]:
        names = {"environment", "acting", "adding", "sampling", "learning", "evaluating", "checkpointing", "total"}
        assert set(seconds) == names
        assert all(value >= 0 for value in seconds.values())
        assert sum(value for name, value in seconds.items() if name != "total") <= seconds["total"]
    assert rows[-1]["evaluating"] > 0 and rows[-1]["learning"] > 0


def make_evaluation_policy(builder):
    spec = specs.make_environment_spec(testing.MemoryEnvironment())
    policy = builder.make_policy(builder.make_networks(spec), spec, evaluation=True)
    return policy.init, jax.jit(policy.select_action)


def batched(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree)


def check_loaded_policy(result, builder):
    """Plays episodes with the loaded policy, and asks the learner's own for the same actions."""
    loaded = experiments.load_policy(result.directory)
    init, select_action = make_evaluation_policy(builder)
    environment = testing.MemoryEnvironment(seed=3)
    seen = []
    for _ in range(20):
        timestep, state = environment.reset(), batched(init())
        loaded.reset()
        while not timestep.last():
            action = loaded(timestep.observation)
            environment.action_spec().validate(action)
            expected, _, state = select_action(
                result.variables["policy"], batched(timestep.observation), state, jax.random.key(0)
            )
            assert action == expected[0]
            seen.append(int(action))
            timestep = environment.step(action)
    return seen


def test_a_loaded_policy_acts_as_the_learners(result):
    assert check_loaded_policy(result, BUILDER)


def test_a_loaded_recurrent_policy_carries_its_state_and_resets_it(recurrent_result):
    assert set(check_loaded_policy(recurrent_result, RECURRENT_BUILDER)) == {0, 1}
    loaded = experiments.load_policy(recurrent_result.directory)
    states = []
    for cue in (1, 0, 0):
        loaded({"cue": np.array([cue], np.float32), "query": np.int32(0)})
        states.append(np.asarray(loaded._state[0]))
    assert not np.array_equal(states[1], states[2])
    loaded.reset()
    loaded({"cue": np.array([1], np.float32), "query": np.int32(0)})
    np.testing.assert_array_equal(loaded._state[0], states[0])


def test_a_directory_without_a_policy_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no policy\.bin: a run writes it when it ends"):
        experiments.load_policy(tmp_path)


def test_several_members_end_less_than_a_step_of_all_late(recurrent_result):
    assert 120 <= recurrent_result.counts["actor_steps"] <= 122
    assert recurrent_result.evaluations[-1].actor_steps == recurrent_result.counts["actor_steps"]


class Recorded(testing.MemoryEnvironment):
    """Keeps the seeds, observations and actions that go through it."""

    def __init__(self, seed):
        super().__init__(seed)
        self.seed = seed
        self.history = []

    def reset(self):
        timestep = super().reset()
        self.history.append(("reset", int(timestep.observation["cue"][0])))
        return timestep

    def step(self, action):
        self.history.append(("step", int(action)))
        return super().step(action)


class Factory:
    """Makes recorded environments and keeps them."""

    def __init__(self):
        self.made = []

    def __call__(self, seed):
        self.made.append(Recorded(seed))
        return self.made[-1]


def test_evaluation_leaves_the_training_environment_alone(tmp_path):
    with_evaluation, without = Factory(), Factory()
    evaluated = run(tmp_path / "with", environment_factory=with_evaluation)
    plain = run(tmp_path / "without", environment_factory=without, evaluation=None)
    assert len(with_evaluation.made) == 2 and len(without.made) == 1
    training, evaluation = with_evaluation.made
    assert training.history == without.made[0].history
    assert sum(kind == "step" for kind, _ in training.history) == 120
    assert sum(kind == "step" for kind, _ in evaluation.history) == evaluated.counts["evaluator_steps"]
    assert len(evaluated.evaluations) == 3 and plain.evaluations == ()
    assert plain.finished and "evaluator_steps" not in plain.counts
    assert json.loads((plain.directory / "result.json").read_text())["evaluations"] == []


def test_every_environment_gets_a_seed_of_its_own(tmp_path):
    seeds = []
    for seed in (0, 1):
        factory = Factory()
        run(tmp_path / str(seed), environment_factory=factory, num_envs=3, max_num_actor_steps=12, seed=seed)
        seeds += [environment.seed for environment in factory.made]
        cues = {tuple(cue for kind, cue in environment.history[:40] if kind == "reset") for environment in factory.made}
        assert len(cues) > 1
    assert len(seeds) == 8 and len(set(seeds)) == 8


class InterruptingObserver:
    """Presses Ctrl-C at a step."""

    def __init__(self, at_step):
        self._steps_left = at_step

    def observe_first(self, timestep):
        pass

    def observe(self, action, next_timestep):
        self._steps_left -= 1
        if not self._steps_left:
            raise KeyboardInterrupt

    def get_metrics(self, member):
        return {}


class SignallingObserver(InterruptingObserver):
    """Sends a signal to this process at a step."""

    def __init__(self, at_step, number):
        super().__init__(at_step)
        self._number = number

    def observe(self, action, next_timestep):
        self._steps_left -= 1
        if not self._steps_left:
            os.kill(os.getpid(), self._number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_end_a_run_as_ctrl_c_does_and_the_process_too(tmp_path, capfd, number, code):
    experiment = make_experiment(tmp_path / "run", observers=[SignallingObserver(70, number)])
    before = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored, and a run leaves it so
    try:
        with pytest.raises(SystemExit) as ended:
            experiments.run_experiment(experiment)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert ended.value.code == code
    assert (tmp_path / "run" / "variables.npz").exists()
    assert os.listdir(tmp_path / "run" / "checkpoints")
    said = capfd.readouterr()
    assert re.search(r"Interrupted after [56]\d environment steps in", said.out), said.out
    assert f"{signal.Signals(number).name}: ends after this step." in said.err


def test_signals_are_taken_where_there_is_no_sighup(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    interrupt = runpy.run_path(interrupts.__file__)["Interrupt"]
    with interrupt() as requested:
        os.kill(os.getpid(), signal.SIGTERM)
    assert requested.requested == signal.SIGTERM


def test_ctrl_c_ends_a_run_with_what_it_has(tmp_path, capsys):
    experiment = make_experiment(tmp_path / "run", observers=[InterruptingObserver(70)])
    result = experiments.run_experiment(experiment)
    assert not result.finished
    assert 50 <= result.counts["actor_steps"] <= 70
    assert [evaluation.actor_steps for evaluation in result.evaluations] == [50]
    assert not (result.directory / "result.json").exists()
    assert (result.directory / "learning_curve.png").exists()
    observation = testing.MemoryEnvironment().reset().observation
    assert experiments.load_policy(result.directory)(observation) in (0, 1)
    assert f"Interrupted after {result.counts['actor_steps']} environment steps in" in capsys.readouterr().out
    # Started again, it begins anew in the same directory, since it has no checkpoint, and what there was is kept.
    again = run(tmp_path / "run")
    assert again.finished and again.directory == result.directory
    assert (result.directory / "interrupted-1" / "policy.bin").exists()


def test_a_finished_run_says_where_its_files_are(tmp_path, capsys):
    result = experiments.run_experiment(make_experiment(tmp_path / "run", max_num_actor_steps=30))
    printed = capsys.readouterr().out
    assert "Finished after 30 environment steps in" in printed
    assert "Last evaluation, at step 30: mean return" in printed
    assert str(result.directory) in printed


@pytest.mark.parametrize("counts", [{}, {"learner_steps": 0}, {"learner_steps": 3}])
def test_a_run_that_was_too_short_to_learn_says_so(result, counts):
    described = dataclasses.replace(result, counts={"actor_steps": 30, **counts})
    said = outputs.summary(described, result.directory)
    assert ("No learner steps: the run ended before" in said) == (not counts.get("learner_steps"))


def test_a_run_that_ended_before_its_first_step_says_so(result):
    said = outputs.summary(dataclasses.replace(result, counts={}, finished=False), result.directory)
    assert said.startswith("Interrupted after 0 environment steps")


def test_a_directory_of_another_run_is_refused_before_anything_is_done(result):
    before = (result.directory / "config.json").read_bytes()
    with pytest.raises(ValueError, match="seed: 0 there, 5 here"):
        run(result.directory, seed=5)
    assert (result.directory / "config.json").read_bytes() == before


@dataclasses.dataclass(frozen=True)
class StuckLimiter:
    """Lets some items in and gives none."""

    size: int
    min_size_to_sample: int = 1

    def can_insert(self, counts, num_items):
        return counts.inserts + num_items <= self.size

    def can_sample(self, counts, num_items):
        return False

    due = can_sample

    def inserts_until_due(self, counts, num_items):
        return 1

    def check(self, num_items, max_size):
        pass

    def widened(self, num_items):
        return self


class StuckBuilder:
    """DQN with a limiter that lets neither side go on after some steps."""

    def __getattr__(self, name):
        return getattr(BUILDER, name)

    def make_tables(self, spec, extras_spec):
        (table,) = BUILDER.make_tables(spec, extras_spec)
        return [dataclasses.replace(table, limiter=StuckLimiter(13))]


def test_a_deadlock_is_an_error_with_the_limiters_counts(tmp_path):
    with pytest.raises(experiments.Deadlock, match=r"Neither acting nor learning.*num_inserts=13, num_samples=0"):
        run(tmp_path / "run", builder=StuckBuilder())
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_limiter_that_could_never_feed_a_batch_is_refused_before_acting(tmp_path):
    def make_tables(spec, extras_spec):
        (table,) = BUILDER.make_tables(spec, extras_spec)
        queue = {"sampler": replay.Fifo(), "max_times_sampled": 1, "limiter": replay.rate_limiters.Queue(4)}
        return [dataclasses.replace(table, **queue)]

    factory = Factory()
    builder = types.SimpleNamespace(**{name: getattr(BUILDER, name) for name in dir(BUILDER) if name[:5] == "make_"})
    builder.init_variables, builder.make_tables = BUILDER.init_variables, make_tables
    with pytest.raises(ValueError, match="must be at least the 8 items that one call samples"):
        run(tmp_path / "run", builder=builder, environment_factory=factory)
    assert all(not environment.history for environment in factory.made)


def test_ones_own_networks_take_the_place_of_the_builders(tmp_path):
    def make_networks(spec):
        return dqn.make_networks(spec, hidden_sizes=(3,))

    result = run(tmp_path / "run", network_factory=make_networks, max_num_actor_steps=12, evaluation=None)
    shapes = {np.shape(leaf) for leaf in jax.tree.leaves(result.variables["policy"])}
    assert (3, 2) in shapes and not any(64 in shape for shape in shapes)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_envs", 0, "ExperimentConfig.num_envs must be a whole number of at least 1, got 0"),
        ("max_num_actor_steps", -1, "max_num_actor_steps must be a whole number of at least 1, got -1"),
        ("seed", -1, r"ExperimentConfig.seed must be a whole number in \[0, 2\*\*32\), got -1"),
        ("seed", 2**32, r"ExperimentConfig.seed must be a whole number in \[0, 2\*\*32\), got 4294967296"),
        ("seed", 2**64, r"ExperimentConfig.seed must be a whole number in \[0, 2\*\*32\), got 18446744073709551616"),
        ("seed", 1.0, r"ExperimentConfig.seed must be a whole number in \[0, 2\*\*32\), got 1.0"),
        ("environment_factory", None, "environment_factory must be a function, got None"),
        (
            "builder",
            dqn.DQNBuilder,
            r"builder must be a builder, such as dqn.DQNBuilder\(dqn.DQNConfig\(\)\), got <class",
        ),
        ("builder", dqn.DQNConfig(), r"ExperimentConfig.builder must be a builder, such as .*, got DQNConfig\("),
        ("builder", None, r"ExperimentConfig.builder must be a builder, such as .*, got None"),
        ("logger_factory", 3, "logger_factory must be a function, got 3"),
    ],
)
def test_bad_settings_are_named(name, value, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_experiment(tmp_path, **{name: value})


class FailingEnvironment(testing.MemoryEnvironment):
    """Raises an error in its last steps, of whatever kind."""

    error: BaseException = RuntimeError("the motor is hot")
    left = 100

    def step(self, action):
        type(self).left -= 1
        if type(self).left < 0:
            raise type(self).error
        return super().step(action)


def test_ctrl_c_in_the_last_evaluation_ends_the_run_with_what_it_has(tmp_path):
    made = []

    class Interrupted(FailingEnvironment):
        error = KeyboardInterrupt()
        left = 2

    def factory(seed):
        made.append(seed)
        return testing.MemoryEnvironment(seed) if len(made) == 1 else Interrupted(seed)

    evaluation = experiments.EvaluationConfig(every_steps=1_000, num_episodes=3)
    result = run(tmp_path / "run", environment_factory=factory, evaluation=evaluation)
    assert not result.finished and result.evaluations == () and result.counts["actor_steps"] == 120
    assert (result.directory / "policy.bin").exists() and not (result.directory / "result.json").exists()


@pytest.mark.parametrize("every_steps", [50, 1_000])  # in the middle, and at the end
def test_ctrl_c_ends_an_evaluation_whose_episode_never_ends(every_steps, tmp_path):
    made = []

    class Endless(testing.MemoryEnvironment):
        num_steps = 0

        def step(self, action):
            self.num_steps += 1
            if self.num_steps == 100:
                signal.raise_signal(signal.SIGINT)
            assert self.num_steps < 1_000, "The evaluation went on."
            return super().step(action)._replace(step_type=dm_env.StepType.MID)

    def factory(seed):
        made.append(seed)
        return Endless(seed) if len(made) == 2 else testing.MemoryEnvironment(seed)

    settings = dict(
        environment_factory=factory,
        evaluation=experiments.EvaluationConfig(every_steps=every_steps, num_episodes=3),
        checkpointing=experiments.CheckpointConfig(every_steps=1_000),
    )
    stopped = run(tmp_path / "run", **settings)
    assert not stopped.finished and stopped.evaluations == ()
    steps = stopped.counts["actor_steps"]
    resumed = run(tmp_path / "run", **settings)  # in an environment whose episodes end
    assert resumed.finished and resumed.counts["actor_steps"] == 120
    assert [evaluation.actor_steps for evaluation in resumed.evaluations] == ([120] if steps == 120 else [51, 100, 120])


def test_an_evaluation_whose_return_is_not_a_number_ends_the_run(tmp_path):
    made = []

    class NaNInTheLastStep(testing.MemoryEnvironment):
        def step(self, action):
            timestep = super().step(action)
            return timestep._replace(reward=np.float32("nan")) if timestep.last() else timestep

    def factory(seed):
        made.append(seed)  # the first one is for training
        return (testing.MemoryEnvironment if len(made) == 1 else NaNInTheLastStep)(seed)

    message = r"metric 'episode_return' became nan in episode 1 of the evaluation after environment step 50:"
    with pytest.raises(learning.NonFiniteMetricError, match=message):
        run(tmp_path / "run", environment_factory=factory)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"variables.npz", "learning_curve.png"} <= names and "result.json" not in names


def test_an_error_leaves_variables_and_curve(tmp_path):
    class Failing(FailingEnvironment):
        left = 90

    with pytest.raises(RuntimeError, match="the motor is hot"):
        run(tmp_path / "run", environment_factory=Failing, evaluation=None)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"variables.npz", "learning_curve.png"} <= names and "result.json" not in names
    assert int(read_rows(tmp_path / "run" / "logs" / "learner.csv")[-1]["learner_steps"]) > 0


def test_an_environment_of_another_kind_is_refused_with_advice(tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    with pytest.raises(ValueError, match=r"one dm_env.Environment .*GymnasiumEnvironment adapts.*got TimeLimit"):
        run(tmp_path / "run", environment_factory=lambda seed: gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match=r"got SyncVectorEnvironment"):
        run(tmp_path / "run", environment_factory=lambda seed: environments.make_vector("gym:CartPole-v1", 2))


@pytest.mark.parametrize("wrap", [None, environments.FlattenObservation, environments.GymnasiumEnvironment])
def test_a_factory_that_returns_the_same_environment_again_is_refused(wrap, tmp_path):
    shared = environments.make("gym:CartPole-v1")
    if wrap is environments.GymnasiumEnvironment:
        shared = shared.environment
    with pytest.raises(ValueError, match="environment_factory must make a new environment each time"):
        run(tmp_path / "run", environment_factory=lambda seed: wrap(shared) if wrap else shared)


def test_a_plan_is_made_for_all_actors(tmp_path):
    builder = dqn.DQNBuilder(dataclasses.replace(BUILDER.config, epsilon=(0.1, 0.5)))  # a value for each of two
    experiment = make_experiment(tmp_path, builder=builder)
    spec = specs.make_environment_spec(testing.MemoryEnvironment())
    assert parts.make_plan(experiment, spec, num_actors=2).variable_names == ["policy"]
    with pytest.raises(ValueError, match="epsilon must hold a value for each of the 1 actors"):
        parts.make_plan(experiment, spec)


def test_an_agent_that_cannot_act_there_leaves_the_directory_free(tmp_path):
    with pytest.raises(ValueError, match="DQN needs one discrete action"):
        run(tmp_path / "run", environment_factory=lambda seed: environments.make("gym:Pendulum-v1", seed=seed))
    assert not (tmp_path / "run").exists()


def test_a_network_that_looks_at_the_batch_size_is_saved_too(tmp_path):
    def make_networks(spec):
        def values(observation):
            features = networks.concatenate(observation)
            return hk.Linear(spec.action.num_values)(features.reshape(len(features), -1))

        return networks.from_haiku(values, spec.observation)

    result = run(tmp_path / "run", network_factory=make_networks, evaluation=None)
    observation = specs.zeros(testing.MemoryEnvironment(0).observation_spec())
    assert experiments.load_policy(result.directory)(observation) in (0, 1)
