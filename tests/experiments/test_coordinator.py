"""What the nodes of a program are told about each other."""

from __future__ import annotations

import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import checkpointing  # noqa: E402  # after the check for Launchpad
from acme_lite.experiments import coordination  # noqa: E402


@pytest.fixture
def coordinator():
    made = coordination.Coordinator(100)
    made.start("runs/x", None)
    return made


def training(coordinator):
    steps, returns = coordinator.save()["training"]
    return steps.tolist(), returns.tolist()


def test_a_report_brings_counts_and_episodes_together(coordinator):
    assert coordinator.lease(0, 100) == 100
    progress = coordinator.report({"actor_steps": 40, "actor_episodes": 2}, [(20, 1.0), (40, 0.5)], actor=0)
    assert progress == ("acting", {"actor_steps": 40, "actor_episodes": 2})
    assert training(coordinator) == ([20, 40], [1.0, 0.5])
    assert coordinator.report({"learner_steps": 3}).counts["learner_steps"] == 3
    assert coordinator.report({"actor_steps": 60}, actor=0).phase == "learning"
    assert coordinator.lease(0, 100) is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda lost: lost.lease(0, 10),
        lambda lost: lost.report({"actor_steps": 3}, actor=0),
        lambda lost: lost.ask_for_last_evaluation(),
        lambda lost: lost.add_evaluation(10, (1.0,), last=True),
        lambda lost: lost.save(),
    ],
    ids=["lease", "report", "ask_for_last_evaluation", "add_evaluation", "save"],
)
def test_a_counter_that_was_started_again_ends_the_run_that_it_has_lost(ask):
    lost = coordination.Coordinator(100)
    with pytest.raises(RuntimeError, match="the counter was started again and has lost its counts"):
        ask(lost)
    assert lost.phase() == "starting" and lost.get_counts() == {}


def test_what_an_actor_has_reported_of_its_lease_is_not_kept_back(coordinator):
    assert coordinator.lease(0, 80) == 80
    coordinator.report({"actor_steps": 50}, actor=0)
    assert coordinator.lease(1, 80) == 20


def test_counts_and_episodes_arrive_together(coordinator):
    counts = coordination.Counts(coordinator, actor=0)
    counts.counter.increment(actor_steps=5, actor_episodes=1)
    counts.episodes.append((counts.actor_steps, 2.5))
    coordinator.report({"actor_steps": 7})
    assert counts.synchronise() == "acting"
    assert counts.actor_steps == 12 and counts.episodes == []
    counts.synchronise()
    assert coordinator.get_counts() == {"actor_steps": 12, "actor_episodes": 1}
    assert training(coordinator) == ([5], [2.5])


def test_a_node_that_writes_before_an_actor_has_told_of_its_steps_knows_of_none(coordinator):
    assert coordination.Counts(coordinator).counter.increment(learner_steps=1) == {"actor_steps": 0, "learner_steps": 1}
    resumed = coordination.Coordinator(100)
    resumed.start("runs/x", coordinator.save() | {"counts": {"learner_steps": 6}})  # as it was written once
    assert resumed.get_counts() == {"actor_steps": 0, "learner_steps": 6}


def test_the_last_evaluation_is_made_once_however_often_the_learner_asks(coordinator):
    coordinator.report({"actor_steps": 100})
    coordinator.ask_for_last_evaluation()
    assert coordinator.phase() == "evaluating"
    coordinator.add_evaluation(100, (1.0,), last=True)
    coordinator.ask_for_last_evaluation()  # a learner that has died after it, and comes back
    assert coordinator.phase() == "evaluated"
    coordinator.finish()
    coordinator.ask_for_last_evaluation()
    assert coordinator.phase() == "done"


def test_a_million_episodes_are_saved_as_two_arrays(coordinator):
    coordinator.report({"actor_steps": 10}, [(5, 1.5), (7, 2.0)])
    coordinator.add_evaluation(10, (1.0, 0.5))
    few, _ = checkpointing.flatten(coordinator.save())
    for _ in range(10):
        coordinator.report({}, [(9, 0.25)] * 100_000)
    saved = coordinator.save()
    many, leaves = checkpointing.flatten(saved)
    assert many == few and max(array.size for array in leaves.arrays) == 1_000_002
    again = coordination.Coordinator(100)
    again.start("runs/x", saved)
    again.report({}, [(11, 3.0)])
    assert [column[:2] + column[-2:] for column in training(again)] == [[5, 7, 9, 11], [1.5, 2.0, 0.25, 3.0]]
    ((steps, returns),) = again.save()["evaluations"]
    assert steps == 10 and returns.tolist() == [1.0, 0.5]


def test_an_evaluation_counts_once_it_has_been_made(coordinator):
    assert coordinator.evaluated_steps() == 0
    coordinator.add_evaluation(40, (1.0, 0.0))
    assert coordinator.evaluated_steps() == 40 and coordinator.phase() == "acting"


def test_a_program_that_goes_on_knows_who_was_started_and_where_logs_end(coordinator):
    for _ in range(2):
        assert coordinator.register("actor_0").log_end is None
    coordinator.report({"actor_steps": 40})
    again = coordination.Coordinator(100)
    assert again.register("actor_0") is None
    again.start("runs/x", coordinator.save())
    assert again.register("actor_0") == ("runs/x", 2, 40)
    assert again.register("actor_1") == ("runs/x", 0, 40)
    assert again.register("actor_0") == ("runs/x", 3, None)  # it died, and its log goes on
