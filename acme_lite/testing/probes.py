"""Probe environments: each isolates one fault of an agent and has a known answer.

They take seconds, and the first one that an agent gets wrong says where to look: each needs what the ones before it
need, and one thing more. Observations are one number, `[1]` float32 in [-1, 1]. Actions are one of two (int32), or with
`continuous=True` one number in [-1, 1] (`[1]` float32).

>>> probe = discount_probe(seed=0)
>>> probe.answers(discount=0.9)[0].value
0.9
>>> check_values(lambda observation: [0.9, 1.0], probe, discount=0.9)

After Jones, Debugging Reinforcement Learning Systems (2021), who proposed the first five.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dm_env
import numpy as np

from acme_lite import specs, types


class Answer(NamedTuple):
    """What an agent should have learned about one observation.

    Attributes:
        observation: `[1]` float32.
        value: the expected discounted return of the best policy from there on, in units of reward.
        action: the best action, an integer or a float; None if the action does not matter.
        before: the observations, each `[1]` float32, that the episode began with, and which an agent with a memory has
            seen when it gives its answer.
    """

    observation: np.ndarray
    value: float
    action: float | None = None
    before: tuple[np.ndarray, ...] = ()


class Probe(dm_env.Environment):
    """An environment of short episodes with known answers; the functions of this module make them.

    Each episode draws a cue, -1 or 1, and has a fixed number of steps.

    Attributes:
        name: of the function that made it.

    Args:
        name: as above.
        seed: of the cues.
        answers: `(discount) -> answers`.
        reward: `(step, cue, action) -> reward` of the action at this step, from 0.
        observe: `(step, cue) -> observation` in [-1, 1], of each step and (step = `length`) of the last one.
        length: steps of an episode.
        last_discount: `(cue) -> discount` of the last step: 0 terminates, 1 truncates.
        continuous: whether actions are one number instead of one of two.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        *,
        answers: Callable[[float], Sequence[Answer]],
        reward: Callable[[int, int, float], float],
        observe: Callable[[int, int], float] = lambda step, cue: 0.0,
        length: int = 1,
        last_discount: Callable[[int], float] = lambda cue: 0.0,
        continuous: bool = False,
    ):
        self.name = name
        self._answers = answers
        self._reward = reward
        self._observe = observe
        self._length = length
        self._last_discount = last_discount
        self._continuous = continuous
        self._step = 0
        self._cue = 1
        self.reseed(seed)

    def answers(self, discount: float) -> list[Answer]:
        """Returns what should have been learned, for a discount factor in [0, 1)."""
        return list(self._answers(discount))

    def reseed(self, seed: int) -> None:
        """Sets the seed from which the cues are drawn."""
        self._rng = np.random.default_rng(seed)

    def reset(self) -> dm_env.TimeStep:
        self._step = 0
        self._cue = 2 * int(self._rng.integers(2)) - 1
        return dm_env.restart(self._observation())

    def step(self, action: Any) -> dm_env.TimeStep:
        reward = np.float32(self._reward(self._step, self._cue, float(np.reshape(action, ()))))
        self._step += 1
        if self._step < self._length:
            return dm_env.transition(reward, self._observation(), np.float32(1))
        discount = np.float32(self._last_discount(self._cue))
        return dm_env.TimeStep(dm_env.StepType.LAST, reward, discount, self._observation())

    def _observation(self) -> np.ndarray:
        return np.array([self._observe(self._step, self._cue)], np.float32)

    def observation_spec(self) -> specs.BoundedArray:
        return specs.BoundedArray((1,), np.float32, -1, 1, name="observation")

    def action_spec(self) -> specs.BoundedArray:
        if self._continuous:
            return specs.BoundedArray((1,), np.float32, -1, 1, name="action")
        return specs.DiscreteArray(2, name="action")

    def reward_spec(self) -> specs.Array:
        return specs.Array((), np.float32, name="reward")

    def discount_spec(self) -> specs.BoundedArray:
        return specs.BoundedArray((), np.float32, 0, 1, name="discount")


def _answer(observation: float, value: float, action: float | None = None, before: Sequence[float] = ()) -> Answer:
    return Answer(
        np.array([observation], np.float32), value, action, tuple(np.array([each], np.float32) for each in before)
    )


def value_probe(seed: int = 0, *, continuous: bool = False) -> Probe:
    """One step, whose reward is always 1: the value is 1.

    A wrong answer means that the value is not learned at all: the value head, its loss or the optimiser is broken, or
    rewards do not reach the learner. A value of 1 / (1 - discount) means that termination is ignored.
    """
    return Probe(
        "value_probe",
        seed,
        answers=lambda discount: [_answer(0, 1.0)],
        reward=lambda step, cue, action: 1.0,
        continuous=continuous,
    )


def observation_probe(seed: int = 0, *, continuous: bool = False) -> Probe:
    """One step, whose reward is the observation, -1 or 1: so is its value.

    A wrong answer (0 for both, if `value_probe` is right) means that the observation does not reach the value: it is
    lost on the way through the adder, replay and torso, or stored beside another step's reward.
    """
    return Probe(
        "observation_probe",
        seed,
        answers=lambda discount: [_answer(-1, -1.0), _answer(1, 1.0)],
        reward=lambda step, cue, action: cue,
        observe=lambda step, cue: cue,
        continuous=continuous,
    )


def discount_probe(seed: int = 0, *, continuous: bool = False) -> Probe:
    """Two steps, with observations 0 and 1 and rewards 0 and 1: the values are the discount factor and 1.

    A wrong answer at observation 0 means that bootstrapping is wrong: 0 is no bootstrap at all, 1 a discount factor
    that is left out, its square one that is applied twice (by the adder and by the learner).
    """
    return Probe(
        "discount_probe",
        seed,
        answers=lambda discount: [_answer(0, discount), _answer(1, 1.0, before=[0])],
        reward=lambda step, cue, action: step,
        observe=lambda step, cue: float(step == 1),
        length=2,
        continuous=continuous,
    )


def truncation_probe(seed: int = 0, *, continuous: bool = False) -> Probe:
    """Rewards of 1 for ever, cut off by a time limit after two steps: the value is 1 / (1 - discount).

    A smaller value means that a time limit is taken for a termination: the last step of a truncated episode keeps its
    discount of 1 and must bootstrap. A value below 2 never bootstraps.
    """
    return Probe(
        "truncation_probe",
        seed,
        answers=lambda discount: [_answer(0, 1 / (1 - discount))],
        reward=lambda step, cue, action: 1.0,
        length=2,
        last_discount=lambda cue: 1.0,
        continuous=continuous,
    )


def last_observation_probe(seed: int = 0, *, continuous: bool = False) -> Probe:
    """Two kinds of episodes of one step: 0 leads to 1 and is cut off there, without reward; 1 is rewarded and ends.

    So the value of observation 1 is 1, and that of observation 0 the discount factor. A wrong answer at observation 0
    (if `truncation_probe` is right) means that the bootstrap after a time limit looks at another observation than the
    episode's last one: at the first one of the next episode, or at the one before.
    """
    return Probe(
        "last_observation_probe",
        seed,
        answers=lambda discount: [_answer(0, discount), _answer(1, 1.0)],
        reward=lambda step, cue, action: float(cue == 1),
        observe=lambda step, cue: float((cue == 1) == (step == 0)),
        last_discount=lambda cue: float(cue == -1),
        continuous=continuous,
    )


def policy_probe(seed: int = 0, *, continuous: bool = False) -> Probe:
    """One step, whose reward depends on the action: the best action is 1 (continuous: 0.5), and its value 1.

    The reward of action 0 is 0; with continuous actions it is 1 - (action - 0.5)^2. A wrong action means that the
    policy does not follow what is learned: the sign of its loss, the pairing of actions with rewards, the scaling of
    actions, or exploration that never tries the better one.
    """
    return Probe(
        "policy_probe",
        seed,
        answers=lambda discount: [_answer(0, 1.0, 0.5 if continuous else 1)],
        reward=lambda step, cue, action: 1 - (action - 0.5) ** 2 if continuous else action,
        continuous=continuous,
    )


def observation_policy_probe(seed: int = 0, *, continuous: bool = False) -> Probe:
    """One step, whose best action depends on the observation: 0 at -1 and 1 at 1 (continuous: -0.5 and 0.5).

    The reward is 1 for the best action and -1 for the other; with continuous actions it is
    1 - (action - observation / 2)^2. One action for both observations (if `policy_probe` is right) means that the
    policy does not see the observation, or that rows of a batch are mixed up.
    """

    def reward(step: int, cue: int, action: float) -> float:
        return 1 - (action - cue / 2) ** 2 if continuous else (2 * action - 1) * cue

    return Probe(
        "observation_policy_probe",
        seed,
        answers=lambda discount: [_answer(cue, 1.0, cue / 2 if continuous else (cue + 1) // 2) for cue in (-1, 1)],
        reward=reward,
        observe=lambda step, cue: cue,
        continuous=continuous,
    )


def memory_probe(seed: int = 0, *, continuous: bool = False) -> Probe:
    """Two steps: the first shows -1 or 1, and the best action of the second depends on that, where 0 is shown.

    It is 0 after -1 and 1 after 1 (continuous: -0.5 and 0.5), rewarded as in `observation_policy_probe`; the first
    action does not matter. So the values of -1 and 1 are the discount factor, and that of 0 after either of them is 1.
    An agent without a memory believes in 0 everywhere (continuous: 0.75 and its discount), and is wrong here alone. For
    one with a memory a wrong answer (if `discount_probe` and `observation_policy_probe` are right) means that the
    recurrent state is lost between two steps, or that the learner unrolls from another state than the actor had.
    """

    def reward(step: int, cue: int, action: float) -> float:
        right = 1 - (action - cue / 2) ** 2 if continuous else (2 * action - 1) * cue
        return step * right

    def answers(discount: float) -> list[Answer]:
        first = [_answer(cue, discount) for cue in (-1, 1)]
        return first + [_answer(0, 1.0, cue / 2 if continuous else (cue + 1) // 2, before=[cue]) for cue in (-1, 1)]

    return Probe(
        "memory_probe",
        seed,
        answers=answers,
        reward=reward,
        observe=lambda step, cue: float(cue * (step == 0)),
        length=2,
        continuous=continuous,
    )


PROBES: tuple[Callable[..., Probe], ...] = (
    value_probe,
    observation_probe,
    discount_probe,
    truncation_probe,
    last_observation_probe,
    policy_probe,
    observation_policy_probe,
    memory_probe,
)
"""All of them, in the order in which to try them, the last one for agents with a memory alone.

Each is called `(seed=0, *, continuous=False)`.
"""


def check_values(
    value_fn: Callable[[np.ndarray], types.ArrayTree],
    probe: Probe,
    *,
    discount: float,
    tolerance: float = 0.1,
    recurrent: bool = False,
) -> None:
    """Checks the values that an agent has learned in a probe.

    Args:
        value_fn: `(observation [B, 1]) -> [B]` values.
        probe: what they were learned in.
        discount: the agent's discount factor, in [0, 1).
        tolerance: largest difference, in units of reward.
        recurrent: whether the agent has a memory: `value_fn` is `(observation [B, T, 1]) -> [B]` then, from the first T
            observations of an episode to the value of the last of them. `truncation_probe` and `last_observation_probe`
            do not suit it: they bootstrap from a last observation, and no step ever begins behind the same past.

    Raises:
        AssertionError: a value is wrong; says at which observation.
    """
    answers = probe.answers(discount)
    if recurrent:
        episodes = [np.stack([[*answer.before, answer.observation]]) for answer in answers]
        values = np.concatenate([np.asarray(value_fn(episode)) for episode in episodes])
    else:
        values = np.asarray(value_fn(np.stack([answer.observation for answer in answers])))
    assert values.shape == (len(answers),), f"value_fn must return [{len(answers)}] values, got {values.shape}."
    for answer, value in zip(answers, values, strict=True):
        assert abs(value - answer.value) <= tolerance, (
            f"{probe.name}: the value of {_in_words(answer)} is {value:.3f} where "
            f"{answer.value:.3f} is right; the docstring of acme_lite.testing.{probe.name} says what that means."
        )


def check_actions(policy: Callable[[np.ndarray], types.ArrayTree], probe: Probe, *, tolerance: float = 0.1) -> None:
    """Checks the actions that an agent has learned in a probe.

    Args:
        policy: `(observation [1]) -> action`, such as `experiments.load_policy` gives; it is called with all
            observations of an episode in turn, and its `reset()`, if it has one, before the first of them.
        probe: what it was learned in; where its actions do not matter, nothing is checked.
        tolerance: largest difference of a continuous action.

    Raises:
        AssertionError: an action is wrong; says at which observation.
    """
    for answer in probe.answers(discount=0.5):
        if hasattr(policy, "reset"):
            policy.reset()
        for observation in (*answer.before, answer.observation):
            chosen = policy(observation)
        action = float(np.reshape(chosen, ()))
        assert answer.action is None or abs(action - answer.action) <= tolerance, (
            f"{probe.name}: the action at {_in_words(answer)} is {action:g} where "
            f"{answer.action:g} is best; the docstring of acme_lite.testing.{probe.name} says what that means."
        )


def _in_words(answer: Answer) -> str:
    after = "".join(f" after {observation.item():g}" for observation in reversed(answer.before))
    return f"observation {answer.observation.item():g}{after}"
