"""The probe environments: what they give, that the stated values follow from it, and that wrong answers are found."""

import dm_env
import numpy as np
import pytest

from acme_lite import specs, testing

PROBES = {probe.__name__: probe for probe in testing.PROBES}
DISCOUNT = 0.8


def state(probe, *observations):
    """Returns all that the future depends on, from the observations of an episode so far."""
    return tuple(each.item() for each in (observations if probe.name == "memory_probe" else observations[-1:]))


def value_iteration(probe, num_episodes=400):
    """Returns state -> value of the best of a grid of actions, from sampled steps alone."""
    actions = np.linspace(-1, 1, 9)[:, None] if probe.action_spec().shape else np.arange(2)
    outcomes = {}  # (state, action) -> [(reward, discount, next state)]
    for episode in range(num_episodes):
        timestep = probe.reset()
        seen = [timestep.observation]
        while not timestep.last():
            index = episode % len(actions)
            before = state(probe, *seen)
            timestep = probe.step(actions[index].astype(np.float32))
            seen.append(timestep.observation)
            outcome = (float(timestep.reward), float(timestep.discount), state(probe, *seen))
            outcomes.setdefault((before, index), []).append(outcome)
    values = {}
    for _ in range(60):
        targets = {
            key: np.mean([reward + DISCOUNT * discount * values.get(after, 0.0) for reward, discount, after in found])
            for key, found in outcomes.items()
        }
        values = {before: max(targets[key] for key in targets if key[0] == before) for before, _ in targets}
    return values, {before: [targets[before, index] for index in range(len(actions))] for before in values}, actions


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("make_probe", PROBES.values(), ids=PROBES.keys())
def test_stated_answers_follow_from_the_steps(make_probe, continuous):
    probe = make_probe(seed=3, continuous=continuous)
    values, action_values, actions = value_iteration(probe)
    answers = probe.answers(DISCOUNT)
    by_state = {state(probe, *answer.before, answer.observation): answer for answer in answers}
    assert set(by_state) == set(values) and len(by_state) == len(answers)
    for where, answer in by_state.items():
        np.testing.assert_allclose(answer.value, values[where], atol=0.01)
        if answer.action is None:
            np.testing.assert_allclose(action_values[where], values[where], atol=0.01)
        else:
            best = float(np.reshape(actions[np.argmax(action_values[where])], ()))
            assert abs(best - answer.action) <= 0.25  # the grid's width
            assert min(action_values[where]) < answer.value - 0.5


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("make_probe", PROBES.values(), ids=PROBES.keys())
def test_steps_obey_their_specs_and_repeat_by_seed(make_probe, continuous):
    def record(seed):
        probe = make_probe(seed=seed, continuous=continuous)
        spec = specs.make_environment_spec(probe)
        steps = []
        for _ in range(20):
            timestep = probe.reset()
            assert timestep.step_type == dm_env.StepType.FIRST
            spec.observation.validate(timestep.observation)
            while not timestep.last():
                timestep = probe.step(specs.zeros(spec.action))
                spec.observation.validate(timestep.observation)
                spec.reward.validate(timestep.reward)
                spec.discount.validate(timestep.discount)
                steps.append((timestep.observation.item(), timestep.reward.item(), timestep.discount.item()))
        return steps

    assert record(0) == record(0)
    if make_probe in (testing.observation_probe, testing.observation_policy_probe, testing.last_observation_probe):
        assert record(0) != record(1)


@pytest.mark.parametrize("make_probe", PROBES.values(), ids=PROBES.keys())
def test_right_answers_pass_and_each_wrong_one_is_named(make_probe):
    probe = make_probe()
    answers = probe.answers(DISCOUNT)
    right = np.array([answer.value for answer in answers])
    testing.check_values(lambda observation: right, probe, discount=DISCOUNT)
    for row, answer in enumerate(answers):
        wrong = right + 0.2 * (np.arange(len(right)) == row)
        after = f" after {answer.before[0].item():g}" if answer.before else ""
        match = rf"{probe.name}: the value of observation {answer.observation[0]:g}{after} is"
        with pytest.raises(AssertionError, match=match):
            testing.check_values(lambda observation, wrong=wrong: wrong, probe, discount=DISCOUNT)
    with pytest.raises(AssertionError, match=r"value_fn must return \[\d\] values, got \(\)"):
        testing.check_values(lambda observation: 1.0, probe, discount=DISCOUNT)


@pytest.mark.parametrize("make_probe", [testing.policy_probe, testing.observation_policy_probe])
@pytest.mark.parametrize("continuous", [False, True])
def test_wrong_actions_are_named(make_probe, continuous):
    probe = make_probe(continuous=continuous)
    best = {float(answer.observation[0]): answer.action for answer in probe.answers(DISCOUNT)}
    testing.check_actions(lambda observation: best[float(observation[0])], probe)
    with pytest.raises(AssertionError, match=rf"{probe.name}: the action at observation .* where .* is best"):
        testing.check_actions(lambda observation: best[float(observation[0])] - 0.5, probe)


@pytest.mark.parametrize("continuous", [False, True])
def test_answers_that_need_a_memory_are_asked_for_with_all_observations_of_the_episode(continuous):
    class Remembering:
        def reset(self):
            self.cue = 0.0

        def __call__(self, observation):
            self.cue = self.cue or float(observation[0])
            return self.cue / 2 if continuous else max(self.cue, 0)

    probe = testing.memory_probe(continuous=continuous)
    testing.check_actions(Remembering(), probe)
    with pytest.raises(AssertionError, match=r"memory_probe: the action at observation 0 after -1 is .* is best"):
        testing.check_actions(lambda observation: 1.0, probe)

    def value_fn(observation):
        assert observation.shape in {(1, 1, 1), (1, 2, 1)} and abs(observation[0, 0, 0]) == 1
        return [DISCOUNT if observation.shape[1] == 1 else 1.0]

    testing.check_values(value_fn, probe, discount=DISCOUNT, recurrent=True)
    with pytest.raises(AssertionError, match="the value of observation -1 is 1"):
        testing.check_values(lambda observation: [1.0], probe, discount=DISCOUNT, recurrent=True)


def test_actions_that_do_not_matter_are_not_judged():
    testing.check_actions(lambda observation: np.int32(0), testing.value_probe())


def test_faults_give_the_values_that_the_docstrings_say():
    # What a learner without a bootstrap after time limits believes: v = 1 + discount * v / 2, half of the steps.
    wrong = 1 / (1 - DISCOUNT / 2)
    with pytest.raises(AssertionError, match=r"is 1\.667 where 5\.000 is right"):
        testing.check_values(lambda observation: [wrong], testing.truncation_probe(), discount=DISCOUNT)
    # What one believes that bootstraps from the next episode's first observation: v = discount * (v + 1) / 2.
    wrong = DISCOUNT / 2 / (1 - DISCOUNT / 2)
    with pytest.raises(AssertionError, match=r"observation 0 is 0\.667 where 0\.800 is right"):
        testing.check_values(lambda observation: [wrong, 1.0], testing.last_observation_probe(), discount=DISCOUNT)
