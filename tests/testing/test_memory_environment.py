"""The task that only a memory solves: where its cue and its reward are, and that every observation fits its spec."""

import jax

from acme_lite import specs, testing

SPEC = specs.make_environment_spec(testing.MemoryEnvironment())


def test_the_environment_rewards_the_cue_at_the_query_alone():
    environment = testing.MemoryEnvironment(seed=1)
    lengths, cues = set(), set()
    for episode in range(60):
        timestep = environment.reset()
        cue, length, queries = int(timestep.observation["cue"][0]), 0, 0
        right = episode % 2 == 0
        while not timestep.last():
            for spec, leaf in zip(
                jax.tree.leaves(SPEC.observation), jax.tree.leaves(timestep.observation), strict=True
            ):
                spec.validate(leaf)
            queries += int(timestep.observation["query"])
            timestep = environment.step(int(cue == 1) if right else int(cue == -1))
            assert timestep.observation["cue"] == 0
            assert timestep.last() or timestep.reward == 0
            length += 1
        assert queries == 1 and timestep.reward == (1 if right else -1) and timestep.discount == 0
        lengths.add(length)
        cues.add(cue)
    assert lengths == {2, 3, 4, 5, 6} and cues == {-1, 1}
