"""What the examples refuse; that they run is checked by `.ci/run`."""

import pathlib
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def test_a_replay_for_one_process_is_refused_where_there_are_actors():
    arguments = ["dqn", "--env", "gym:CartPole-v1", "--num-actors", "2", "--replay", "local"]
    command = [sys.executable, str(EXAMPLES / "train.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "--replay is for runs in one process: with --num-actors there is always a Reverb server.\n"
