"""How fast are Stable-Baselines3 and SBX at PPO on CartPole-v1, and how soon do they reach a return of 475?

Workload C of `ppo_overhead.py`: 8 environments x 128 steps, 10 epochs of minibatches of 256, MLP 64-64 tanh, Adam 1e-3.
They need an environment of their own, beside that of this library:

    uv venv /tmp/peers --python 3.10
    uv pip install --python /tmp/peers/bin/python stable-baselines3 sbx-rl
    /tmp/peers/bin/python benchmarks/peers_ppo.py sb3
    /tmp/peers/bin/python benchmarks/peers_ppo.py sbx

It prints environment steps per second after the first update, and the steps and seconds since the start of the process
at which the mean of the last 20 training episodes reached 475.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import time
from typing import Any


def seconds_since_process_start() -> float:
    """Returns the age of this process, imports and all (Linux)."""
    started = int(pathlib.Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(pathlib.Path("/proc/uptime").read_text().split()[0]) - started


def make_model(peer: str, seed: int) -> Any:
    """Returns the peer's agent."""
    from stable_baselines3.common.env_util import make_vec_env

    environment = make_vec_env("CartPole-v1", n_envs=8, seed=seed)
    settings: dict[str, Any] = {
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 10,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "max_grad_norm": 0.5,
        "seed": seed,
    }
    if peer == "sb3":
        import stable_baselines3
        import torch

        policy = {"net_arch": [64, 64], "activation_fn": torch.nn.Tanh}
        return stable_baselines3.PPO("MlpPolicy", environment, policy_kwargs=policy, device="cpu", **settings)
    import flax.linen as nn
    import sbx

    policy = {"net_arch": [64, 64], "activation_fn": nn.tanh}
    return sbx.PPO("MlpPolicy", environment, policy_kwargs=policy, **settings)


def run(peer: str, steps: int, seed: int) -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    model = make_model(peer, seed)

    class Watch(BaseCallback):
        def __init__(self):
            super().__init__()
            self.returns: list[float] = []
            self.solved: tuple[int, float] | None = None
            self.started = 0.0
            self.steps_at_start = 0

        def _on_step(self) -> bool:
            self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            if self.solved is None and len(self.returns) >= 20 and statistics.mean(self.returns[-20:]) >= 475:
                self.solved = (self.num_timesteps, seconds_since_process_start())
            return True

        def _on_rollout_start(self) -> None:
            if self.num_timesteps and not self.started:
                self.started, self.steps_at_start = time.perf_counter(), self.num_timesteps

    watch = Watch()
    model.learn(steps, callback=watch)
    rate = (model.num_timesteps - watch.steps_at_start) / (time.perf_counter() - watch.started)
    reached = "not reached" if watch.solved is None else "{:,} steps, {:.1f} s".format(*watch.solved)
    print(f"{peer} seed {seed}: {rate:,.0f} environment steps per second; 475: {reached}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["sb3", "sbx"])
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run(arguments.peer, arguments.steps, arguments.seed)
