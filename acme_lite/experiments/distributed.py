"""An experiment as a program of many processes: the parts of `run_experiment`, one to a node.

    counter     counts what is done, shares out the steps, and collects episodes and evaluations
    replay      the Reverb server, where it is not in the learner's process
    learner     updates the parameters, serves them, writes checkpoints and, at the end, the results
    actor       one or more, each with `num_envs` environments
    evaluator   evaluates the newest policy

The learner's node owns the run's directory. A program that was stopped or killed and is started again goes on from its
last checkpoint: learner, counts and replay continue, episodes begin anew. Actors, evaluator and replay may die and come
back at any time, the replay with what its last checkpoint holds; so may the learner, which goes on from its last
checkpoint while the others wait for it.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import os
from collections.abc import Iterator, Sequence
from typing import Any

from acme_lite import _runtime, specs
from acme_lite.experiments import config, coordination, identity, nodes, parts

lp = _runtime.import_extra("launchpad", "distributed", "A distributed program")

from acme_lite import launching  # noqa: E402 - imports Launchpad, which needs what `nodes` has loaded

_REVERB = ("reverb",)  # with TensorFlow, that takes 6 s of CPU to import, and 390 MB


def make_distributed_experiment(
    experiment: config.ExperimentConfig,
    num_actors: int = 1,
    *,
    variable_update_period_seconds: float = 0.05,
    replay_in_learner: bool = True,
) -> Any:
    """Returns the `launchpad.Program` of an experiment, for `launching.launch` or `launchpad.launch`.

    Its groups are `counter`, `learner`, `actor` and, where the experiment evaluates, `evaluator`, and `replay` where
    that is not in the learner's process; a script may add nodes of its own. All actors together make
    `max_num_actor_steps` (with N environments in each, at most N - 1 more per actor).

    Args:
        experiment: what to run. Its functions are pickled (by value where they stand in a script).
        num_actors: processes that act, at least 1.
        variable_update_period_seconds: from one fetch of the policy to the next, in each acting process (longer where a
            fetch takes long, see `acting.VariableClient`); what actors do meanwhile is done by an older policy.
        replay_in_learner: whether the Reverb server runs in the learner's process, or in a node of its own.

    Raises:
        ValueError: an argument is out of its range, or the agent cannot act in the environment.
    """
    _check_arguments(num_actors, variable_update_period_seconds, replay_in_learner)
    num_actors = int(num_actors)  # NumPy's would not go into `config.json`
    environment = parts.make_environment(experiment, 1, experiment.seed)
    try:
        spec, described = specs.make_environment_spec(environment), identity.describe_environment(environment)
    finally:
        environment.close()
    program = nodes.ProgramSettings(
        experiment, spec, described, num_actors, variable_update_period_seconds, nodes.WATCHDOG_SECONDS
    )
    with _little_memory_of_accelerators():
        program.plan()  # an agent that cannot act there fails here, and not in five processes
    made = lp.Program(f"{identity.agent_name(experiment)}-{described['name'].replace('/', '-')}")
    with made.group("counter"):
        counter = made.add_node(_make_node(coordination.Coordinator, experiment.max_num_actor_steps))
    reverb_address = lp.Address("reverb")
    server = None
    if not replay_in_learner:
        with made.group("replay"):
            node = _make_node(nodes.ReplayService, program, reverb_address, counter, imports=_REVERB)
            node.allocate_address(reverb_address)
            server = made.add_node(node)
    with made.group("learner"):
        node = _make_node(nodes.Learner, program, reverb_address, server, counter, imports=_REVERB)
        if replay_in_learner:
            node.allocate_address(reverb_address)
        learner = made.add_node(node)
    with made.group("actor"):
        for index in range(num_actors):
            made.add_node(_make_node(nodes.Actor, program, index, reverb_address, learner, counter, imports=_REVERB))
    if experiment.evaluation is not None:
        with made.group("evaluator"):
            made.add_node(_make_node(nodes.Evaluator, program, experiment.evaluation, learner, counter))
    return made


def _check_arguments(num_actors: int, variable_update_period_seconds: float, replay_in_learner: bool) -> None:
    if isinstance(num_actors, bool) or not isinstance(num_actors, numbers.Integral) or num_actors < 1:
        raise ValueError(f"num_actors must be a whole number of at least 1, got {num_actors!r}.")
    seconds = variable_update_period_seconds
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real) or not 0 <= seconds < math.inf:
        raise ValueError(f"variable_update_period_seconds must be a finite number of at least 0, got {seconds!r}.")
    if not isinstance(replay_in_learner, bool):
        raise ValueError(f"replay_in_learner must be True or False, got {replay_in_learner!r}.")


@contextlib.contextmanager
def _little_memory_of_accelerators() -> Iterator[None]:
    """Has JAX, if it begins to compute within, take an accelerator's memory as it needs it; the learner will want it.

    By default the first computation takes three quarters of it, which stay taken as long as the program runs.
    """
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]


def _make_node(*arguments: Any, imports: Sequence[str] = ()) -> Any:
    """Returns a node whose callers wait for it as long as for a limiter."""
    options = launching.CallOptions(timeout_seconds=nodes.PATIENCE_SECONDS)
    return launching.CallNode(*arguments, call_options=options, imports=imports)
