"""A writer that keeps everything in plain lists and checks its contract, and streams of steps to feed adders with."""

import dataclasses

import dm_env
import jax
import numpy as np

from acme_lite import specs

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)

SPEC = specs.EnvironmentSpec(
    observation={"id": specs.Array((3,), np.float32), "flag": specs.Array((), np.int32)},
    action=specs.BoundedArray((2,), np.float32, minimum=-100, maximum=100),
    reward=specs.Array((), np.float64),
    discount=specs.BoundedArray((), np.float64, minimum=0.0, maximum=1.0),
)
EXTRAS_SPEC = {"log_prob": specs.Array((), np.float32)}


class RecordingWriter:
    """Rows and items of N streams, as lists."""

    def __init__(self, num_streams, window):
        self.num_streams = num_streams
        self.window = window
        self.observations = []
        self.fields = []
        self.ends = []  # [N] bool per row: the row is the last of its episode
        self.items = []  # (stream, start, length, value leaves)
        self.table = None

    def append(self, observation, fields=None):
        if fields is not None:
            self.complete(fields)
        if self.fields and self.fields[-1] is None:
            assert self.ends[-1].all(), "the open row was not completed"
        self.observations.append(jax.tree.map(np.array, observation))
        self.fields.append(None)
        self.ends.append(np.zeros(self.num_streams, bool))
        return len(self.observations) - 1

    def complete(self, fields):
        assert self.fields[-1] is None, "the row was completed twice"
        self.fields[-1] = jax.tree.map(np.array, fields)
        for leaf in jax.tree.leaves(fields):
            assert leaf.shape[0] == self.num_streams
            assert not leaf[self.ends[-1]].any(), "the fields of an episode's last row must be zero"

    def end_episode(self, mask):
        assert mask.shape == (self.num_streams,)
        assert mask.dtype == bool
        self.ends[-1] |= mask

    def create_items(self, table, streams, starts, lengths, *, priorities=None, values=()):
        assert priorities is None
        assert len(streams) == len(starts) == len(lengths) > 0
        assert all(value.shape == (len(streams),) for value in values)
        assert (lengths >= 1).all()
        assert (starts >= 0).all()
        assert (starts >= len(self.observations) - self.window).all(), "the rows are out of the window"
        self.table = table
        for i in range(len(streams)):
            item = (int(streams[i]), int(starts[i]), int(lengths[i]), tuple(float(value[i]) for value in values))
            self.items.append(item)

    def create_item_in_each(self, table, start, length, *, values=()):
        streams = np.arange(self.num_streams)
        ones = np.ones(self.num_streams, np.int64)
        self.create_items(table, streams, start * ones, length * ones, values=values)

    def flush(self, timeout_seconds=None):
        pass

    def close(self):
        pass

    def observation(self, stream, row):
        """The name (stream, episode, step) of an observation."""
        return tuple(self.observations[row]["id"][stream].astype(int).tolist())

    def field(self, stream, row, name):
        """One field of one row; zero where the row is the last of an episode and still open."""
        if self.fields[row] is None:
            assert self.ends[row][stream]
            return 0.0
        return float(np.ravel(self.fields[row][name][stream])[0])

    def items_of(self, stream):
        return [item[1:] for item in self.items if item[0] == stream]


@dataclasses.dataclass
class Episode:
    """T steps: step t goes from observation t with actions[t] to rewards[t], discounts[t] and observation t + 1."""

    actions: list
    rewards: list
    discounts: list

    def __len__(self):
        return len(self.rewards)


def random_episode(rng, num_steps):
    """An episode that terminates or, half of the time, is truncated."""
    discounts = rng.uniform(0.1, 1.0, num_steps).tolist()
    discounts[-1] = float(rng.integers(2))
    return Episode(rng.uniform(1, 9, num_steps).tolist(), rng.normal(size=num_steps).tolist(), discounts)


class Member:
    """One member of a vector environment that plays given episodes, each begun by the step after a LAST."""

    def __init__(self, stream, episodes):
        self.stream = stream
        self.episodes = episodes
        self.episode, self.step = 0, 0

    def first(self):
        return FIRST, 0.0, 1.0, (self.stream, self.episode, self.step)

    def action(self):
        steps = self.episodes[self.episode]
        return steps.actions[self.step] if self.step < len(steps) else -1.0  # ignored after LAST

    def next(self):
        steps = self.episodes[self.episode]
        if self.step == len(steps):
            self.episode, self.step = self.episode + 1, 0
            return self.first()
        self.step += 1
        step_type = LAST if self.step == len(steps) else MID
        t = self.step - 1
        return step_type, steps.rewards[t], steps.discounts[t], (self.stream, self.episode, self.step)

    def seen(self):
        """The episodes so far: each a pair of its steps seen and whether it has ended."""
        finished = [(steps, True) for steps in self.episodes[: self.episode]]
        steps, t = self.episodes[self.episode], self.step
        rest = Episode(steps.actions[:t], steps.rewards[:t], steps.discounts[:t])
        return [*finished, (rest, t == len(steps))]


def timestep(steps):
    step_type, reward, discount, name = (list(column) for column in zip(*steps, strict=True))
    observation = {"id": np.array(name, np.float32), "flag": np.arange(len(steps), dtype=np.int32)}
    return dm_env.TimeStep(np.array(step_type), np.array(reward), np.array(discount), observation)


def drive(adder, members, num_steps, extras_fn=lambda members: {}):
    """Feeds the adder with the members' first and so many further steps; extras are the action doubled, and more."""
    adder.add_first(timestep([member.first() for member in members]))
    for _ in range(num_steps):
        step(adder, members, extras_fn)


def step(adder, members, extras_fn=lambda members: {}):
    action = np.array([[member.action()] * 2 for member in members], np.float32)
    extras = {"log_prob": 2 * action[:, 0], **extras_fn(members)}
    adder.add(action, timestep([member.next() for member in members]), extras)


def random_members(rng, num_streams, lengths, num_steps):
    """Members that play episodes of all these lengths, each member in an order of its own, for so many steps."""
    members = []
    for stream in range(num_streams):
        episodes: list = []
        while sum(len(episode) + 1 for episode in episodes) <= num_steps:
            episodes += [random_episode(rng, int(length)) for length in rng.permutation(lengths)]
        members.append(Member(stream, episodes))
    return members
