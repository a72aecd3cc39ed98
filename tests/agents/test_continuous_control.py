"""What the agents for continuous control have in common: the specs they refuse, actions within bounds, a probe."""

import dataclasses

import jax
import numpy as np
import pytest

from acme_lite import agents, environments, experiments, loggers, networks, replay, specs, testing, types
from acme_lite.agents import d4pg, mpo, sac, td3
from tests.environments import episodes

SPEC = specs.EnvironmentSpec(
    observation={"a": specs.Array((2,), np.float64), "b": (specs.Array((), np.float32),)},
    action=specs.BoundedArray((3,), np.float64, [-1, 0, 0.1], [1, 5, 0.3]),
    reward=specs.Array((), np.float32),
    discount=specs.BoundedArray((), np.float32, 0, 1),
)
_LAYERS = dict(policy_hidden_sizes=(8, 8), critic_hidden_sizes=(8, 8))
BUILDERS = {
    "D4PG": d4pg.D4PGBuilder(d4pg.D4PGConfig(noise_std=3.0, **_LAYERS)),
    "MPO": mpo.MPOBuilder(mpo.MPOConfig(**_LAYERS)),
    "SAC": sac.SACBuilder(sac.SACConfig(hidden_sizes=(8,))),
    "TD3": td3.TD3Builder(td3.TD3Config(hidden_sizes=(8,), exploration_noise=3.0)),
}


@pytest.mark.parametrize(
    ("agent", "variants"),
    [("d4pg", ["acme", "ddpg", "lillicrap"]), ("mpo", ["acme", "dmpo"]), ("sac", ["acme"]), ("td3", ["acme", "paper"])],
)
def test_variants_are_offered_by_name(agent, variants):
    configs = agents.named_configs(agent)
    assert list(configs) == [agent, *(f"{agent}:{variant}" for variant in variants)]
    for name, config in configs.items():
        # In the papers one learner step follows on each environment step, in Acme's D4PG and MPO on each eighth.
        period = 1 if agent in ("sac", "td3") or name == "d4pg:lillicrap" else 8
        assert config.batch_size / config.samples_per_insert == period
        assert config.max_replay_size == 1_000_000
        if agent in ("d4pg", "mpo"):
            assert {dataclasses.replace(config, critic=one).critic for one in ("scalar", "distributional")}


@pytest.mark.parametrize("agent", BUILDERS)
def test_other_specs_are_refused_with_what_to_use(agent):
    builder = BUILDERS[agent]
    with pytest.raises(ValueError, match=f"{agent} needs actions .* use dqn, r2d2, ppo or impala"):
        builder.make_networks(SPEC._replace(action=specs.DiscreteArray(2)))
    with pytest.raises(ValueError, match=f"{agent} needs actions .* or use ppo"):
        builder.make_networks(SPEC._replace(action=specs.Array((1,), np.float32)))
    image = specs.BoundedArray((48, 48, 3), np.uint8, 0, 255)
    with pytest.raises(ValueError, match=f"{agent}'s own networks take vectors"):
        builder.make_networks(SPEC._replace(observation=image))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("agent", BUILDERS)
def test_actions_stay_within_uneven_bounds_in_double_precision(agent, wrapped):
    builder = BUILDERS[agent]
    environment = environments.SinglePrecision(episodes.scripted(action_spec=SPEC.action))
    spec = SPEC._replace(action=environment.action_spec()) if wrapped else SPEC
    nets = builder.make_networks(spec)
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.jit(lambda key: builder.init_variables(nets, spec, key)["policy"])(keys[0])
    wild = jax.tree.map(lambda leaf: 100 * leaf if np.issubdtype(leaf.dtype, np.floating) else leaf + 1, params)
    observation = jax.tree.map(
        lambda leaf: 1e3 * jax.random.normal(keys[1], (200, *leaf.shape), leaf.dtype), SPEC.observation
    )
    for evaluation in (False, True):
        select_action = jax.jit(builder.make_policy(nets, spec, evaluation=evaluation).select_action)
        for own in (params, wild):
            actions, _, _ = select_action(own, observation, (), keys[2])
            for action in np.asarray(actions, np.float64):
                SPEC.action.validate(action)


def make_sample():
    observation, action, reward, discount = specs.zeros(SPEC, (5,))
    transition = types.Transition(observation, action, reward, discount, observation)
    return replay.Sample(transition, replay.SampleInfo((), np.ones(5, np.float32), np.int32(5)))


@pytest.mark.parametrize("agent", BUILDERS)
def test_critics_whose_values_have_an_axis_too_many_are_refused(agent):
    builder = BUILDERS[agent]
    if agent in ("D4PG", "MPO"):
        builder = dataclasses.replace(builder, config=dataclasses.replace(builder.config, critic="scalar"))
    nets = builder.make_networks(SPEC)
    critic = networks.Critic(nets.critic.init, lambda *arguments: nets.critic.apply(*arguments)[..., None])
    core = builder.make_core(nets._replace(critic=critic), SPEC)
    with pytest.raises(ValueError, match=rf"{agent} needs critics?'s? values of shape \(.*5\), got \(.*5, 1\)"):
        jax.eval_shape(core.update, jax.eval_shape(core.init, jax.random.key(0)), make_sample())


@pytest.mark.parametrize("agent", BUILDERS)
def test_keys_may_be_of_another_generator(agent):
    core = BUILDERS[agent].make_core(BUILDERS[agent].make_networks(SPEC), SPEC)
    state = jax.eval_shape(core.init, jax.random.key(0, impl="rbg"))
    assert jax.eval_shape(core.update, state, make_sample())[0] == state


_SMALL = dict(
    discount=0.6,
    hidden_sizes=(16,),
    learning_rate=5e-3,
    target_update_rate=0.05,
    batch_size=32,
    samples_per_insert=32.0,
    min_replay_size=64,
    max_replay_size=1_000,
    num_steps_per_call=4,
    overlap=False,
)
_LARGER = dict(
    n_step=1,
    critic_learning_rate=3e-3,
    policy_hidden_sizes=(32, 32),
    critic_hidden_sizes=(32, 32),
    batch_size=64,
    min_replay_size=200,
    num_steps_per_call=4,
    overlap=False,
)
_MPO = dict(
    num_samples=10,
    policy_learning_rate=3e-3,
    epsilon_mean=0.1,
    epsilon_std=1e-3,
    initial_log_temperature=0.0,
    initial_log_alpha_mean=0.0,
    initial_log_alpha_std=10.0,
    initial_std=0.5,
    **_LARGER,
)
_RETURNS = dict(num_atoms=21, v_min=-2.0, v_max=2.0)
PROBED = {
    "D4PG": (d4pg.D4PGBuilder(d4pg.D4PGConfig(policy_learning_rate=1e-3, **_RETURNS, **_LARGER)), 2_000),
    "DDPG": (d4pg.D4PGBuilder(d4pg.D4PGConfig(critic="scalar", policy_learning_rate=1e-3, **_LARGER)), 4_000),
    "DMPO": (mpo.MPOBuilder(mpo.MPOConfig(critic="distributional", **_RETURNS, **_MPO)), 2_500),
    "MPO": (mpo.MPOBuilder(mpo.MPOConfig(**_MPO)), 4_000),
    "SAC": (sac.SACBuilder(sac.SACConfig(temperature=0.01, **_SMALL)), 600),
    "TD3": (td3.TD3Builder(td3.TD3Config(exploration_noise=0.3, **_SMALL)), 1_000),
}


# DDPG and MPO are settings of the agents whose distributional critics are tried here.
SLOW = {"DDPG", "MPO"}


@pytest.mark.parametrize("agent", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PROBED])
def test_the_policy_follows_the_observation(agent, tmp_path):
    builder, num_steps = PROBED[agent]
    experiments.run_experiment(
        experiments.ExperimentConfig(
            builder,
            lambda seed: testing.observation_policy_probe(seed, continuous=True),
            max_num_actor_steps=num_steps,
            evaluation=None,
            checkpointing=None,
            directory=tmp_path / "run",
            logger_factory=lambda label: loggers.InMemoryLogger(),
        ),
        quiet=True,
    )
    policy = experiments.load_policy(tmp_path / "run")
    testing.check_actions(policy, testing.observation_policy_probe(continuous=True), tolerance=0.15)


def test_a_torso_of_ones_own_takes_images():
    image = specs.BoundedArray((48, 48, 3), np.uint8, 0, 255)
    nets = sac.make_networks(
        SPEC._replace(observation=image), hidden_sizes=(8,), torso=networks.atari_torso(image, hidden_size=8)
    )

    def values(key):
        return nets.critic.apply(nets.critic.init(key), np.zeros((3, 48, 48, 3), np.uint8), np.zeros((3, 3)))

    assert jax.eval_shape(values, jax.random.key(0)).shape == (2, 3)
