"""Environments by name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import dm_env

from acme_lite import _runtime
from acme_lite.environments import adapters, seeding, sync_vector, vector, wrappers

_EXTRA = "envs"
_MAX_LISTED = 10


def make(name: str, *, seed: int = 0, **kwargs: Any) -> dm_env.Environment:
    """Returns an environment in single precision, reseeded; it has `reseed(seed)`, and its task as `name`.

    Its `settings`, a part of what a run follows from, are the whole name and the other arguments.

    Args:
        name: `gym:CartPole-v1` (any id of Gymnasium), `dm_control:cartpole:swingup`, `bsuite:catch/0` or `atari:Pong`.
        seed: in [0, 2^32); decides what a task of `dm_control` draws when it is built, too.
        **kwargs: for `gym` those of `gymnasium.make`, for `dm_control` those of `suite.load`, none for `bsuite`. For
            `atari`: `sticky_actions` (True: each frame repeats the last action with probability 0.25),
            `clip_rewards` (False; to [-1, 1]), `num_frames` (4, stacked), and those of Gymnasium's
            `AtariPreprocessing` (frame skip 4 and 84 x 84 grey unless given).

    Raises:
        ValueError: there is no such suite or task; says which there are.
        ImportError: the suite is not installed; says what to install.
    """
    suite, _, task = name.partition(":")
    if suite not in _SUITES or not task:
        raise ValueError(f"name must be '<suite>:<task>' with a suite out of {sorted(_SUITES)}, got {name!r}.")
    settings = {"name": name, **kwargs}
    if suite == "dm_control":
        # Some tasks draw their physics when they are built, which `reseed` comes too late for.
        kwargs["task_kwargs"] = {"random": seeding.check_seed(seed, 32), **(kwargs.get("task_kwargs") or {})}
    environment = _SUITES[suite](task, **kwargs)
    environment.name, environment.settings = task, settings
    environment.reseed(seed)
    return environment


def make_vector(name: str, num_envs: int, seed: int = 0, **kwargs: Any) -> vector.VectorEnvironment:
    """Returns N environments of one name that are stepped together.

    Args:
        name: as in `make`.
        num_envs: N, at least 1.
        seed: in [0, 2^63).
        **kwargs: as in `make`.

    Raises:
        ValueError: as in `make`, or `num_envs` is less than 1.
        ImportError: as in `make`.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
    seeding.check_seed(seed, 63)
    members = [make(name, seed=seeding.episode_seed(seed, member, 0), **kwargs) for member in range(num_envs)]
    return sync_vector.SyncVectorEnvironment(members, seed=seed)


def _make_gym(task: str, **kwargs: Any) -> Any:
    import gymnasium

    from acme_lite.environments import gymnasium_environments

    # The adapter resets before the first step; that there was a reset is not checked at every one.
    registered = dataclasses.replace(_registered(task), order_enforce=False)
    try:
        # Gymnasium's checker costs a call per step and looks at the first one only.
        environment = gymnasium.make(registered, **{"disable_env_checker": True, **kwargs})
    except gymnasium.error.DependencyNotInstalled as error:
        if getattr(error.__cause__, "name", None) == "mujoco":
            _runtime.import_extra("mujoco", _EXTRA, f"'gym:{task}'")  # fails again, and says what to install
        raise ImportError(f"'gym:{task}' needs more packages: {error}") from error
    return gymnasium_environments.GymnasiumEnvironment(environment)


def _registered(task: str) -> Any:
    """Returns what Gymnasium has registered as `Name-v0` or `Name` (the latest version).

    Of `module:Name-v0` the module is imported before, which registers it.
    """
    import gymnasium
    from gymnasium.envs import registration

    module, _, name = task.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        namespace, plain_name, version = registration.parse_env_id(name)
        if version is None:
            version = registration.find_highest_version(namespace, plain_name)
        return gymnasium.spec(registration.get_env_id(namespace, plain_name, version))
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # the module is there, and lacks another one
            raise
        raise _unknown("gym", task, list(gymnasium.registry)) from error
    except gymnasium.error.Error as error:
        raise _unknown("gym", task, list(gymnasium.registry)) from error


def _make_dm_control(task: str, **kwargs: Any) -> Any:
    # Whoever wants to render sets this first; physics alone must not look for a display.
    os.environ.setdefault("MUJOCO_GL", "disabled")
    suite = _runtime.import_extra("dm_control.suite", _EXTRA, f"'dm_control:{task}'")
    names = [f"{domain}:{task}" for domain, task in suite.ALL_TASKS]
    if task not in names:
        raise _unknown("dm_control", task, names)
    environment = suite.load(*task.split(":"), **kwargs)
    return wrappers.SinglePrecision(adapters.DMControlEnvironment(environment))


def _make_bsuite(task: str) -> Any:
    bsuite = _runtime.import_extra("bsuite.bsuite", _EXTRA, f"'bsuite:{task}'")
    sweep = _runtime.import_extra("bsuite.sweep", _EXTRA, f"'bsuite:{task}'")
    if task not in sweep.SETTINGS:
        raise _unknown("bsuite", task, list(sweep.SETTINGS))
    # Not `load_from_id`, which prints.
    environment = bsuite.load(task.split("/", maxsplit=1)[0], sweep.SETTINGS[task])
    return wrappers.SinglePrecision(adapters.BsuiteEnvironment(environment))


def _make_atari(task: str, **kwargs: Any) -> Any:
    _runtime.import_extra("ale_py", _EXTRA, f"'atari:{task}'")
    _runtime.import_extra("cv2", _EXTRA, f"'atari:{task}'")
    from acme_lite.environments import atari

    games = atari.games()
    if task not in games:
        raise _unknown("atari", task, games)
    return atari.make_atari(task, **kwargs)


_SUITES: dict[str, Callable[..., Any]] = {
    "atari": _make_atari,
    "bsuite": _make_bsuite,
    "dm_control": _make_dm_control,
    "gym": _make_gym,
}


def _unknown(suite: str, task: str, tasks: Sequence[str]) -> ValueError:
    """Returns the error for an unknown task, which lists the closest ones first."""
    closest = sorted(
        tasks,
        key=lambda other: difflib.SequenceMatcher(None, task.lower(), other.lower()).ratio(),
        reverse=True,
    )
    listed = ", ".join(f"'{suite}:{other}'" for other in closest[:_MAX_LISTED])
    more = f" and {len(closest) - _MAX_LISTED} more" if len(closest) > _MAX_LISTED else ""
    return ValueError(f"There is no task '{suite}:{task}'. There are {listed}{more}.")
