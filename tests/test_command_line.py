"""Agents, their variants and their settings from the command line."""

import dataclasses

import pytest

from acme_lite import command_line, learning
from acme_lite.agents import dqn, ppo


@dataclasses.dataclass(frozen=True)
class Settings:
    """What else there is."""

    env: str
    """Where it acts."""
    steps: int = 10
    """How long."""


def call(*args):
    called = []
    command_line.run(lambda *given: called.append(given), Settings, description="Trains.", args=args)
    (given,) = called
    return given


def test_an_agent_and_settings():
    assert call("dqn", "--env", "catch") == (dqn.DQNBuilder(), Settings("catch"))
    builder, settings = call("ppo", "--batch-size", "4", "--env", "catch", "--steps", "3")
    assert builder == ppo.PPOBuilder(ppo.PPOConfig(batch_size=4)) and settings == Settings("catch", 3)


def test_a_variant_begins_from_its_own_settings():
    builder, _ = call("dqn:rainbow", "--env", "catch", "--n-step", "5")
    assert builder == dqn.DQNBuilder(dqn.variant_config("rainbow", n_step=5))


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["1:0.1:1000"], learning.LinearSchedule(1.0, 0.1, 1_000)),
        (["0.2"], 0.2),
        (["0.1", "0.2"], (0.1, 0.2)),
    ],
)
def test_a_field_may_be_a_schedule(words, value):
    builder, _ = call("dqn", "--env", "catch", "--epsilon", *words)
    assert builder.config.epsilon == value


def test_a_schedule_that_is_written_wrongly_is_an_error(capsys):
    with pytest.raises(SystemExit):
        call("dqn", "--env", "catch", "--epsilon", "1:0.1")
    assert "--epsilon" in capsys.readouterr().err


def test_a_setting_that_is_not_allowed_is_an_error_that_names_it(capsys):
    with pytest.raises(SystemExit) as ended:
        call("dqn", "--env", "catch", "--n-step", "0")
    assert ended.value.code == 2
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "agent.config: DQNConfig.n_step must be a whole number of at least 1, got 0." in printed


def test_errors_of_the_function_itself_are_raised():
    def fail(builder, settings):
        raise ValueError("the run failed")

    with pytest.raises(ValueError, match="the run failed"):
        command_line.run(fail, Settings, args=["dqn", "--env", "catch"])


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        (["--help"], ["Trains.", "dqn:rainbow", "r2d2"]),
        (["dqn", "--help"], ["--epsilon", "INITIAL:FINAL:STEPS", "Where it acts.", "Transitions in a batch."]),
    ],
)
def test_help_says_what_there_is(args, lines, capsys):
    with pytest.raises(SystemExit):
        call(*args)
    printed = capsys.readouterr().out
    assert all(line in printed for line in lines)


def test_ctrl_c_ends_a_script_without_a_traceback():
    def interrupted(builder, settings):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command_line.run(interrupted, Settings, args=["dqn", "--env", "catch"])
    assert ended.value.code == 130 and ended.value.__suppress_context__
