"""How the learner's node decides, without processes."""

from __future__ import annotations

import socket
import threading
import time
import types

import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import experiments, launching  # noqa: E402  # after the check for Launchpad
from acme_lite.experiments import coordination, nodes, run_directory, stopping  # noqa: E402
from acme_lite.replay import ClosedError  # noqa: E402


class Replay:
    """Has a clock, and answers after so many seconds."""

    def __init__(self, *, has_more):
        self.now, self.has_more, self.answers_after = 0.0, has_more, 0.0

    def clock(self):
        return self.now

    def can_sample(self):
        self.now += self.answers_after
        return self.has_more


def idle(replay):
    return nodes.Idleness(replay.can_sample, replay.clock)


def test_a_learner_ends_soon_where_the_limiter_gives_no_more(capsys):
    replay = Replay(has_more=False)
    idleness = idle(replay)
    assert not idleness.ends()
    replay.now += 2.0
    assert idleness.ends()
    assert capsys.readouterr().out == ""


def test_a_learner_waits_a_minute_for_samples_that_the_limiter_would_give_and_says_so(capsys):
    replay = Replay(has_more=True)
    idleness = idle(replay)
    replay.now += 50.0
    assert not idleness.ends()
    idleness.begin()
    replay.now += 60.0
    assert not idleness.ends()
    replay.now += 1.0
    assert idleness.ends()
    assert "none have come for 61 s" in capsys.readouterr().out


def test_the_minute_begins_when_a_replay_that_was_away_is_back():
    replay = Replay(has_more=True)
    idleness = idle(replay)
    replay.now, replay.answers_after = 5.0, 100.0
    assert not idleness.ends()
    replay.answers_after = 0.0
    assert not idleness.ends()
    replay.now += 61.0
    assert idleness.ends()


@pytest.fixture
def leaving(monkeypatch):
    """A learner that leaves off, and what it writes."""
    learner = object.__new__(nodes.Learner)
    learner.written = []
    learner._learner = types.SimpleNamespace(close=lambda: learner.written.append("learner"))
    learner._has_server, learner._server = True, types.SimpleNamespace(save=lambda: "replay")
    monkeypatch.setattr(learner, "_save_coordinator", lambda: "state")
    monkeypatch.setattr(learner, "_write_results", lambda plan, directory, state: learner.written.append(state))
    return learner


def test_a_checkpoint_that_cannot_be_written_as_the_program_stops_is_told_and_the_results_are_written(
    leaving, monkeypatch, capsys
):
    def write_checkpoint(schedule, coordinator, save_replay):
        assert coordinator == "state" and save_replay() == "replay"
        raise OSError("no such disk")

    monkeypatch.setattr(leaving, "_write_checkpoint", write_checkpoint)
    with pytest.raises(OSError, match="no such disk"):
        leaving._leave_off(None, None, always_due())
    assert leaving.written == ["learner", "state"]
    assert "The learner could not write its last checkpoint: OSError: no such disk" in capsys.readouterr().out


def test_a_learner_whose_last_call_fails_as_the_program_stops_writes_what_there_is(leaving, monkeypatch):
    def close():
        raise ArithmeticError("not a number")

    leaving._learner.close = close
    monkeypatch.setattr(leaving, "_write_checkpoint", lambda *args: leaving.written.append("checkpoint"))
    with pytest.raises(ArithmeticError, match="not a number"):
        leaving._leave_off(None, None, always_due())
    assert leaving.written == ["checkpoint", "state"]


def test_a_replay_that_has_died_for_good_costs_the_last_checkpoint_but_not_the_results(leaving, monkeypatch, capsys):
    monkeypatch.setattr(stopping, "_GONE_SECONDS", 0.1)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        leaving._server = launching.connect(f"127.0.0.1:{nobody.getsockname()[1]}", "token", timeout_seconds=30.0)
        leaving._has_server = False
        monkeypatch.setattr(leaving, "_write_checkpoint", lambda schedule, coordinator, save_replay: save_replay())
        with pytest.raises(launching.ProgramStoppedError, match="nobody is left to answer"):
            leaving._leave_off(None, None, always_due())
    assert leaving.written == ["learner", "state"]
    assert "could not write its last checkpoint: ProgramStoppedError: the program stops" in capsys.readouterr().out


class SlowCoordinator(coordination.Coordinator):
    """Takes two seconds for a report once the program stops."""

    def __init__(self, stop):
        super().__init__(100)
        self._stop = stop

    def report(self, *args, **kwargs):
        if self._stop.is_set():
            time.sleep(2.0)
        return super().report(*args, **kwargs)


@pytest.fixture
def stop(monkeypatch):
    made = threading.Event()
    monkeypatch.setattr(nodes.lp, "stop_event", lambda: made)
    return made


@pytest.fixture
def served(stop):
    """A client of a slow coordinator, and its server."""
    coordinator = SlowCoordinator(stop)
    coordinator.start("run", None)
    server = launching.Server(coordinator, "127.0.0.1:0", "token")
    yield launching.connect(server.address, "token", timeout_seconds=60.0, stopping=stop), server
    server.stop()


def make_learner(monkeypatch, coordinator):
    """Returns a learner that notes what it writes."""
    learner = nodes.Learner(types.SimpleNamespace(experiment=None), None, types.SimpleNamespace(), coordinator)
    learner._counts = coordination.Counts(learner._coordinator)
    learner._learner = types.SimpleNamespace(close=lambda: None)
    learner._has_server, learner._server.save = True, lambda: "replay"
    learner.written = []
    for name in ("_write_checkpoint", "_write_results"):
        monkeypatch.setattr(learner, name, lambda *args, name=name: learner.written.append(name))
    return learner


def test_a_slow_counter_costs_a_program_that_stops_neither_checkpoint_nor_results(monkeypatch, stop, served):
    learner = make_learner(monkeypatch, served[0])
    learner._counts.counter.increment(learner_steps=3)
    stop.set()
    learner._leave_off(None, None, always_due())
    assert learner.written == ["_write_checkpoint", "_write_results"]
    assert learner._counts.counter.get_counts()["learner_steps"] == 3


def test_it_is_told_where_the_counter_is_gone_when_a_program_stops(monkeypatch, stop, served, capsys):
    monkeypatch.setattr(nodes, "_LAST_CALL_SECONDS", 0.1)
    client, server = served
    learner = make_learner(monkeypatch, client)
    server.stop()
    stop.set()
    with pytest.raises(launching.ProgramStoppedError):
        learner._leave_off(None, None, always_due())
    assert "could not write its last checkpoint and the results: ProgramStoppedError" in capsys.readouterr().out


def test_a_learner_that_comes_back_after_the_run_has_finished_ends_it(monkeypatch, stop, tmp_path, capsys):
    ended = threading.Event()
    monkeypatch.setattr(nodes.lp, "stop", ended.set)
    monkeypatch.setattr(nodes.ProgramSettings, "describe", lambda program: {})
    directory = tmp_path / "run"
    for leftover in ("reverb", "checkpoints/checkpoint-000001"):
        (directory / leftover).mkdir(parents=True)
    for name in (run_directory.CONFIG_FILE, run_directory.RESULT_FILE):
        run_directory.write_json(directory / name, {})
    coordinator = coordination.Coordinator(100)
    coordinator.start(str(directory), None)
    server = launching.Server(coordinator, "127.0.0.1:0", "token")
    try:
        client = launching.connect(server.address, "token", timeout_seconds=60.0, stopping=stop)
        experiment = types.SimpleNamespace(checkpointing=experiments.CheckpointConfig(), directory=directory)
        program = nodes.ProgramSettings(experiment, None, {}, 1, 0.5, watchdog_seconds=60.0)
        nodes.Learner(program, None, types.SimpleNamespace(), client).run()
    finally:
        server.stop()
    assert coordinator.phase() == "done" and ended.is_set()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert {path.name for path in directory.iterdir()} == {run_directory.CONFIG_FILE, run_directory.RESULT_FILE}
    assert "after the run had finished in" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ClosedError("closed"), launching.ProgramStoppedError("stopped")])
def test_what_the_stop_interrupts_ends_and_everything_else_is_an_error(error):
    stop = threading.Event()
    with pytest.raises(type(error)), stopping.until_stop(stop):
        raise error
    stop.set()
    with stopping.until_stop(stop):
        raise error
    with pytest.raises(ArithmeticError), stopping.until_stop(stop):
        raise ArithmeticError


@pytest.mark.parametrize("kind", [nodes.Actor, nodes.Evaluator])
def test_a_node_whose_environment_takes_long_to_be_made_says_so(kind, monkeypatch):
    waits = []

    def make_environment(seed):
        waits.append(node._watchdog._done[0])
        raise ArithmeticError("enough seen")

    node = object.__new__(kind)
    node._index, node._address, node._learner, node._stop = 0, None, object(), threading.Event()
    node._coordinator = coordination.Coordinator(100)
    node._coordinator.start("run", None)
    experiment = types.SimpleNamespace(environment_factory=make_environment, num_envs=1, seed=0)
    monkeypatch.setattr(nodes.ProgramSettings, "plan", lambda program: None)
    node._program = nodes.ProgramSettings(experiment, None, {}, 1, 0.5, watchdog_seconds=60.0)
    node._settings = experiments.EvaluationConfig()
    with pytest.raises(ArithmeticError):
        node.run()
    assert waits == ["its environment to be made"]


class Counts:
    """Tells the phases that a program goes through, one at each look."""

    actor_steps = 0

    def __init__(self, *phases):
        self.phases = list(phases)

    def synchronise(self):
        return self.phases.pop(0)


def learn(monkeypatch, phases, schedule, *, has_more=False, state=None):
    """Runs a learner's loop beside a replay that gives it nothing, and returns the phases that it did not come to."""
    monkeypatch.setattr(nodes, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(nodes, "_SETTLE_SECONDS", 0.05)
    learner = object.__new__(nodes.Learner)
    learner._counts, learner._stop, learner._has_server = Counts(*phases), threading.Event(), False
    learner._server = types.SimpleNamespace(can_sample=lambda: has_more, save=None)
    learner._learner = types.SimpleNamespace(save=lambda: state)
    monkeypatch.setattr(learner, "_report", lambda steps: None)
    monkeypatch.setattr(learner, "_save_coordinator", lambda: "state")
    monkeypatch.setattr(learner, "_write_checkpoint", lambda schedule, coordinator, save_replay: time.sleep(0.1))
    learner._learn(types.SimpleNamespace(ready=lambda: False), schedule)
    return learner._counts.phases


@pytest.mark.parametrize(
    ("started", "state", "said"),
    [
        (True, None, "Checkpoints leave the replay out, since it is too great.\n"),
        (
            True,
            {"replay": None},
            "The replay begins empty: the checkpoint leaves it out.\n"
            "Checkpoints leave the replay out, since it is too great.\n",
        ),
        (False, {"replay": None}, "Checkpoints leave the replay out, since it is too great.\n"),
    ],
    ids=["begun", "resumed", "learner_restarted"],
)
def test_a_replay_that_checkpoints_leave_out_is_told_of(tmp_path, capsys, started, state, said):
    learner = object.__new__(nodes.Learner)
    learner._experiment = types.SimpleNamespace(checkpointing=experiments.CheckpointConfig())
    learner._server = types.SimpleNamespace(
        open=lambda directory, checkpoint: started, why_left_out=lambda: "it is too great"
    )
    learner._open_replay(tmp_path, state)
    assert capsys.readouterr().out == said


def always_due():
    return types.SimpleNamespace(due=lambda steps: True)


def test_a_checkpoint_that_takes_long_does_not_end_a_program_whose_actors_act(monkeypatch):
    assert learn(monkeypatch, ["acting"] * 5 + ["evaluated"], always_due()) == []


def test_a_checkpoint_that_takes_long_does_not_count_as_waiting_for_the_last_samples(monkeypatch):
    assert learn(monkeypatch, ["learning"] * 5 + ["evaluated"], always_due()) == []


def test_a_learner_whose_samples_have_come_to_their_end_ends_before_it_is_told_to(monkeypatch):
    assert len(learn(monkeypatch, ["acting"] * 3 + ["learning"] * 100_000, None)) > 0


def test_a_learner_whose_state_cannot_be_saved_fails_before_it_learns(monkeypatch):
    phases = ["acting"] * 5 + ["evaluated"]
    with pytest.raises(TypeError, match=r"state\['params'\] is of type builtins:object"):
        learn(monkeypatch, phases, types.SimpleNamespace(due=lambda steps: False), state={"params": object()})
    assert learn(monkeypatch, phases, None, state={"params": object()}) == []
