"""Distributed experiments whose parts are killed, and who reaches them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import types

import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import checkpointing, experiments, launching, loggers, testing  # noqa: E402  # after the check for Launchpad
from acme_lite.agents import dqn, impala  # noqa: E402
from acme_lite.experiments import nodes  # noqa: E402
from tests.experiments import programs  # noqa: E402

BACK = "The replay was started again"
CHECKPOINTING = experiments.CheckpointConfig(every_steps=200)
# Of at least 400 steps each: the evaluator is held up in the middle of its first.
EVALUATION = experiments.EvaluationConfig(every_steps=300, num_episodes=200)


def launch(program, folder, shown, **policies):
    launching.launch(program, log_directory=folder / "logs", policies=policies, console=shown.console)
    return json.loads((folder / "run" / "result.json").read_text())


def wait_for_checkpoint(folder):
    programs.wait_until(lambda: list((folder / "run" / "checkpoints").glob("checkpoint-*")), "there is a checkpoint")


def lost_items(shown):
    return [int(number.replace(",", "")) for number in re.findall(r"at least ([\d,]+) inserted items", shown)]


def send_garbage(port):
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 64)


@pytest.fixture(scope="module")
def harmed(tmp_path_factory):
    """One program whose actor, evaluator and replay are killed, and that strangers call, and what came of it."""
    folder = tmp_path_factory.mktemp("harmed")
    gate, shown = programs.Gate(folder / "open", num_steps=300), programs.Shown()
    program = programs.make(
        folder,
        environment_factory=gate.make_environment,
        replay_in_learner=False,
        max_num_actor_steps=1_500,
        evaluation=EVALUATION,
        checkpointing=CHECKPOINTING,
    )
    seen = types.SimpleNamespace(folder=folder, shown=shown, reached=[], refused=[], pids=set())

    def harm():
        wait_for_checkpoint(folder)
        nodes = programs.nodes()
        seen.ports = programs.listening(nodes.values())
        for port in sorted(set().union(*seen.ports.values())):
            for family, address in programs.other_addresses():
                with socket.socket(family) as stranger:
                    stranger.settimeout(10)
                    seen.reached += [(address, port)] if stranger.connect_ex((address, port)) == 0 else []
            send_garbage(port)
        for name, known in json.loads((folder / "logs" / "nodes.json").read_text()).items():
            stranger = launching.connect(known["address"], "guessed", timeout_seconds=programs.LIMIT_SECONDS)
            with pytest.raises(PermissionError, match="refused the token"):
                stranger.finish()
            seen.refused.append(name)
        gate.wait_for(nodes["evaluator/0"])
        for name in ("evaluator/0", "actor/0", "replay/0"):
            nodes[name].kill()
            shown.wait_for(f"{name}: running", 2)
            if name == "evaluator/0":
                gate.wait_for(programs.nodes()[name])
        shown.wait_for(BACK)
        seen.pids = {process.pid for process in (*nodes.values(), *programs.nodes().values())}
        gate.open()

    with programs.beside(harm):
        seen.result = launch(program, folder, shown)
    return seen


def test_killed_actor_evaluator_and_replay_come_back_and_all_steps_are_made(harmed):
    shown = harmed.shown.getvalue()
    died = [re.findall(pattern, shown) for pattern in (r"(\S+) died; restart 1 of", r"(\S+) died")]
    assert [sorted(names) for names in died] == [["actor/0", "evaluator/0", "replay/0"]] * 2, shown  # each once
    assert harmed.result["counts"]["actor_steps"] == 1_500
    assert harmed.result["evaluations"][-1]["actor_steps"] == 1_500
    assert not programs.alive(harmed.pids)


def test_an_evaluation_in_which_the_evaluator_was_killed_is_made_again(harmed):
    first, *_ = harmed.result["evaluations"]
    # The two actors were held up until the second evaluator was in the middle of its first evaluation.
    assert 300 <= first["actor_steps"] <= 2 * 300
    assert all(len(evaluation["returns"]) == EVALUATION.num_episodes for evaluation in harmed.result["evaluations"])


def test_items_since_the_checkpoint_are_counted_as_lost_and_the_ratio_holds(harmed):
    (lost,) = lost_items(harmed.shown.getvalue())
    assert f"{BACK} from its last checkpoint" in (harmed.folder / "logs" / "replay-0.log").read_text()
    assert 0 <= lost <= 600
    # What had no answer yet when its actor or the replay died is lost, too: 64 items and the bursts under way, of each
    # actor. And the dead actor has acted unseen: what it wrote in its last lease was not counted as steps.
    assert 1_500 - lost - 2 * 128 <= harmed.result["counts"]["replay_inserts"] <= 1_500 + 300
    programs.check_ratio(harmed.result["counts"])


def test_no_port_lets_in_who_comes_from_elsewhere(harmed):
    assert len(harmed.ports) == 6 and len(set().union(*harmed.ports.values())) == 7  # one each, and Reverb's
    if not programs.other_addresses():
        pytest.skip("this machine has the loopback interface alone")
    assert not harmed.reached


def test_whoever_has_no_token_is_refused(harmed):
    assert len(harmed.refused) == 6
    assert harmed.result["counts"]["actor_steps"] == 1_500  # `finish` would have ended the program


def per():
    return dqn.DQNBuilder(dataclasses.replace(programs.DQN, priority_exponent=0.6))


def queue():
    config = impala.IMPALAConfig(sequence_length=4, batch_size=4, queue_size=8, core="lstm", core_size=8, overlap=False)
    return impala.IMPALABuilder(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("builder", "checkpointing"),
    [(per(), CHECKPOINTING), (queue(), CHECKPOINTING), (per(), None)],
    ids=["priorities", "queue", "no_checkpoint"],
)
def test_a_replay_that_is_killed_twice(tmp_path, builder, checkpointing):
    gate, shown = programs.Gate(tmp_path / "open", num_steps=300), programs.Shown()
    program = programs.make(
        tmp_path,
        builder=builder,
        environment_factory=gate.make_environment,
        replay_in_learner=False,
        max_num_actor_steps=1_500,
        checkpointing=checkpointing,
        evaluation=None,
    )

    def harm():
        if checkpointing is None:
            programs.wait_until((tmp_path / "run" / "logs" / "learner.csv").exists, "the learner has learned")
        else:
            wait_for_checkpoint(tmp_path)
        log = tmp_path / "logs" / "replay-0.log"
        for count in (1, 2):
            programs.nodes()["replay/0"].kill()
            programs.wait_until(lambda count=count: len(lost_items(log.read_text())) == count, "the replay is back")
        gate.open()

    with programs.beside(harm):
        result = launch(program, tmp_path, shown)
    assert not re.search("(actor|learner)/. died", shown.getvalue())
    if checkpointing is None:
        assert "empty, since no checkpoints are written" in shown.getvalue()
    assert result["counts"]["actor_steps"] == 1_500
    assert result["counts"]["learner_steps"] >= 30


class DyingLogger(loggers.InMemoryLogger):
    """Kills its process when it is written to, once a checkpoint is there; at most so often."""

    def __init__(self, folder, most):
        super().__init__()
        self._folder, self._most = folder, most

    def write(self, row):
        deaths = len(list(self._folder.glob("death-*")))
        if deaths < self._most and list((self._folder / "run" / "checkpoints").glob("checkpoint-*")):
            (self._folder / f"death-{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)


def make_with_dying_learner(folder, most=1):
    def make_logger(label):
        return DyingLogger(folder, most) if label == "learner" else loggers.InMemoryLogger()

    return programs.make(
        folder, max_num_actor_steps=3_000, logger_factory=make_logger, checkpointing=CHECKPOINTING, evaluation=None
    )


@pytest.mark.slow
def test_a_learner_that_is_killed_goes_on_from_its_checkpoint(tmp_path):
    policy = launching.NodePolicy(max_restarts=2, ends_program=True)
    result = launch(make_with_dying_learner(tmp_path, 2), tmp_path, programs.Shown(), learner=policy)
    assert len(list(tmp_path.glob("death-*"))) == 2
    assert (tmp_path / "logs" / "learner-0.log").read_text().count("The run goes on from") == 2
    assert result["counts"]["actor_steps"] == 3_000


@pytest.mark.slow
def test_a_learner_that_is_killed_after_the_last_evaluation_comes_back_and_ends_the_run(tmp_path):
    shown = programs.Shown()

    def harm():
        programs.wait_until((tmp_path / "logs" / "nodes.json").exists, "the nodes are known")
        known = json.loads((tmp_path / "logs" / "nodes.json").read_text())["counter/0"]
        coordinator = launching.connect(**known, timeout_seconds=programs.LIMIT_SECONDS)
        programs.wait_until(lambda: coordinator.phase() == "evaluated", "the last evaluation has been made")
        programs.nodes()["learner/0"].kill()  # while it draws the learning curve
        shown.wait_for("learner/0: running", 2)

    program = programs.make(tmp_path, checkpointing=experiments.CheckpointConfig(every_steps=10**6))
    policy = launching.NodePolicy(max_restarts=1, ends_program=True)
    with programs.beside(harm):
        result = launch(program, tmp_path, shown, learner=policy)
    assert "The run goes on from" in (tmp_path / "logs" / "learner-0.log").read_text()  # that before the evaluation
    assert [one["actor_steps"] for one in result["evaluations"]].count(400) == 1


@pytest.mark.slow
def test_a_learner_that_is_killed_ends_the_program(tmp_path):
    with pytest.raises(launching.NodeFailedError, match="node learner/0 failed:\n\nkilled by SIGKILL"):
        launch(make_with_dying_learner(tmp_path), tmp_path, programs.Shown())
    assert not programs.nodes()


@pytest.mark.slow
def test_a_replay_that_is_killed_too_often_ends_the_program_with_what_there_is(tmp_path):
    shown = programs.Shown()

    def harm():
        wait_for_checkpoint(tmp_path)
        programs.nodes()["replay/0"].kill()

    program = programs.make(tmp_path, replay_in_learner=False, max_num_actor_steps=10**6, checkpointing=CHECKPOINTING)
    died = pytest.raises(launching.NodeFailedError, match="node replay/0 failed:\n\nkilled by SIGKILL")
    with programs.beside(harm), died:
        launch(program, tmp_path, shown, replay=launching.NodePolicy(stop_stage=2))
    assert not programs.nodes()
    assert "did not stop in time" not in shown.getvalue()
    assert "The learner could not write its last checkpoint: ProgramStoppedError" in shown.getvalue()
    assert (tmp_path / "run" / "learning_curve.png").exists()  # and older checkpoints, to go on from
    assert checkpointing.Checkpoints(tmp_path / "run" / "checkpoints").names()


@pytest.mark.slow
def test_a_counter_that_is_killed_ends_the_program_also_where_it_is_started_again(tmp_path):
    def harm():
        wait_for_checkpoint(tmp_path)
        programs.nodes()["counter/0"].kill()

    program = programs.make(tmp_path, max_num_actor_steps=10**6, checkpointing=CHECKPOINTING, evaluation=None)
    policy = dataclasses.replace(launching.DEFAULT_POLICIES["counter"], max_restarts=2)
    died = pytest.raises(launching.NodeFailedError, match=r"(?s)node learner/0 failed.*has lost its counts")
    with programs.beside(harm), died:
        launch(program, tmp_path, programs.Shown(), counter=policy)
    assert checkpointing.Checkpoints(tmp_path / "run" / "checkpoints").names() and not programs.nodes()


class FailingEnvironment(testing.MemoryEnvironment):
    """Raises at one step, each time."""

    num_steps = 0

    def step(self, action):
        self.num_steps += 1
        if self.num_steps == 500:
            raise ArithmeticError("the robot has fallen over")
        return super().step(action)


@pytest.mark.slow
def test_an_environment_that_raises_ends_the_program_with_its_traceback(tmp_path):
    shown = programs.Shown()
    program = programs.make(
        tmp_path, environment_factory=FailingEnvironment, num_actors=1, max_num_actor_steps=10**6, evaluation=None
    )
    policy = dataclasses.replace(launching.DEFAULT_POLICIES["actor"], max_restarts=1)
    with pytest.raises(launching.NodeFailedError, match=r"(?s)in step.*the robot has fallen over"):
        launch(program, tmp_path, shown, actor=policy)
    assert "actor/0 died; restart 1 of 1" in shown.getvalue()
    assert not programs.nodes()


@pytest.mark.slow
def test_whoever_waits_too_long_is_named_with_the_limiters_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "WATCHDOG_SECONDS", 2.0)
    gate, shown = programs.Gate(tmp_path / "open", num_steps=220), programs.Shown()
    program = programs.make(
        tmp_path,
        environment_factory=gate.make_environment,
        evaluation=experiments.EvaluationConfig(200, 100),  # more episodes than the gate lets through
        max_num_actor_steps=1_500,
    )
    waits = {
        "Actor 0": r"the environment, the policy or the limiter, in wait \(programs.py",
        "Actor 1": r"the environment, the policy or the limiter, in wait \(programs.py",
        "The learner": r"samples, in .*_learn \(nodes.py",
        "The evaluator": r"the environment or the policy, in wait \(programs.py",
    }
    patterns = [
        rf"(?s){name} has waited \d+ s for {what}.*{name} waits\. Done: .*Replay: table 'replay': \d{{3}} inserts"
        for name, what in waits.items()
    ]

    def harm():
        programs.wait_until(
            lambda: all(re.search(pattern, shown.getvalue()) for pattern in patterns), f"all wait:\n{shown.getvalue()}"
        )
        gate.open()

    with programs.beside(harm):
        launch(program, tmp_path, shown)
    log = (tmp_path / "logs" / "actor-0.log").read_text()
    assert re.search(patterns[0], log)


SCRIPT = """
import pathlib, sys
from acme_lite import experiments, launching
from tests.experiments import programs

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    program = programs.make(
        folder, max_num_actor_steps=10**6, checkpointing=experiments.CheckpointConfig(every_steps=200)
    )
    launching.launch(program)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, -2), (signal.SIGTERM, 143)])
def test_nothing_is_left_of_a_program_whose_launcher_ends(tmp_path, number, status):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(programs.ROOT)}
    launcher = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    try:
        wait_for_checkpoint(tmp_path)
        pids = [process.pid for process in programs.nodes(launcher.pid).values()]
        assert len(pids) == 5
        launcher.send_signal(number)
        assert launcher.wait(programs.LIMIT_SECONDS) == status
        programs.wait_until(lambda: not programs.alive(pids), "all processes have ended")
    finally:
        launcher.kill()
        launcher.wait()


@pytest.mark.parametrize("replay_in_learner", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_ctrl_c_writes_a_checkpoint_and_what_there_is(tmp_path, replay_in_learner):
    shown = programs.Shown()
    program = programs.make(
        tmp_path,
        replay_in_learner=replay_in_learner,
        max_num_actor_steps=10**6,
        checkpointing=experiments.CheckpointConfig(every_steps=10**6),
        evaluation=None,
    )

    def harm():
        log = tmp_path / "run" / "logs" / "learner.csv"
        programs.wait_until(lambda: log.exists() and log.read_text(), "the learner has learned")
        os.kill(os.getpid(), signal.SIGINT)

    with programs.beside(harm), pytest.raises(KeyboardInterrupt):
        launching.launch(
            program, log_directory=tmp_path / "logs", stop_seconds=programs.LIMIT_SECONDS, console=shown.console
        )
    assert "The learner has written a checkpoint" in shown.getvalue()
    state, labels, _ = checkpointing.Checkpoints(tmp_path / "run" / "checkpoints").load_newest()
    assert labels["actor_steps"] == state["coordinator"]["counts"]["actor_steps"] > 50
    assert state["replay"] is not None
    assert "Interrupted after" in shown.getvalue()
    assert (tmp_path / "run" / "learning_curve.png").exists() and not (tmp_path / "run" / "result.json").exists()
    assert experiments.load_policy(tmp_path / "run")(testing.MemoryEnvironment(0).reset().observation) in (0, 1)


LAUNCHPAD_SCRIPT = """
import pathlib, sys
import launchpad as lp
from acme_lite import experiments
from tests.experiments import programs

if __name__ == "__main__":
    program = programs.make(pathlib.Path(sys.argv[1]), checkpointing=experiments.CheckpointConfig(every_steps=200))
    lp.launch(program, launch_type=sys.argv[2], terminal="current_terminal").wait()
"""


@pytest.mark.parametrize("launch_type", ["local_mt", pytest.param("local_mp", marks=pytest.mark.slow)])
def test_launchpads_own_launchers_run_a_whole_experiment(tmp_path, launch_type):
    script = tmp_path / "script.py"
    script.write_text(LAUNCHPAD_SCRIPT)
    command = [sys.executable, str(script), str(tmp_path), launch_type]
    environment = os.environ | {"PYTHONPATH": str(programs.ROOT)}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=programs.LIMIT_SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["counts"]["actor_steps"] == 400
    assert result["evaluations"][-1]["actor_steps"] == 400
