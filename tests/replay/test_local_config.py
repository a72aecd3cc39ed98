"""What `LocalReplay` computes and refuses when it is built, and wrong calls of its writer."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from acme_lite import replay, specs
from acme_lite.replay import store
from tests.replay import steps


def test_bytes_are_computed_and_logged(caplog):
    signature = replay.Signature(specs.FrameStack((4, 84, 84), np.uint8, 0, 255), {"action": specs.Array((), np.int64)})
    table = replay.Table("frames", 1000, signature, replay.Transitions(5), sampler=replay.Prioritized())
    with caplog.at_level(logging.INFO, logger="acme_lite.replay"):
        made = replay.LocalReplay([table])
    # 1,005 rows of one frame, 4 frame numbers and an action; 1,000 items of 16 bytes with 2 float64 in the sum tree.
    assert made.info().num_bytes == 1005 * (84 * 84 + 4 * 4 + 8) + 1000 * (16 + 16)
    assert len([record for record in caplog.records if "frames" in record.getMessage()]) == 1


def test_bytes_of_sequences():
    made = replay.LocalReplay([steps.sequence_table(100, length=10, period=4)])
    # 4 rows per item and 6 more, of 2 + 3 numbers and a bool; 10 row numbers per item.
    assert made.info().num_bytes == 406 * (5 * 4 + 1) + 100 * 40


def test_what_does_not_fit_into_memory_is_refused():
    signature = replay.Signature(specs.Array((1000, 1000), np.float64), {"action": steps.ACTION})
    table = replay.Table("huge", 10_000_000, signature, replay.Transitions())
    with pytest.raises(MemoryError, match=r"huge.*80,000,\d+,\d+,?\d* bytes.*lower max_size"):
        replay.LocalReplay([table])


def test_tables_must_fit_together():
    with pytest.raises(ValueError, match="at least one"):
        replay.LocalReplay([])
    with pytest.raises(ValueError, match="names of their own"):
        replay.LocalReplay([steps.transition_table(), steps.transition_table()])
    other = replay.Table("other", 5, steps.sequence_signature(), replay.Sequences(2, 1))
    with pytest.raises(ValueError, match=r"equal signatures.*'replay' and 'other'"):
        replay.LocalReplay([steps.transition_table(), other])
    with pytest.raises(ValueError, match=r"fields.*\['discount', 'mask', 'reward'\]"):
        replay.LocalReplay([replay.Table("bare", 5, steps.transition_signature(), replay.Sequences(2, 1))])


def test_wrong_arguments_are_named():
    made = replay.LocalReplay([steps.transition_table(5, max_times_sampled=2)])
    with pytest.raises(ValueError, match=r"num_streams.*0"):
        made.writer(0)
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        made.dataset("replay", 0)
    with pytest.raises(ValueError, match=r"num_batches.*0"):
        made.dataset("replay", 1, num_batches=0)
    with pytest.raises(ValueError, match=r"11 items.*5 \* 2"):
        made.dataset("replay", 11)
    with pytest.raises(ValueError, match="shape of the keys"):
        made.update_priorities("replay", np.zeros(3, np.int64), np.zeros(2))


def test_wrong_steps_are_named():
    made = replay.LocalReplay([steps.transition_table(5)])
    writer = made.writer(2)
    with pytest.raises(ValueError, match="append one first"):
        writer.complete({"action": np.zeros(2, np.int32)})
    with pytest.raises(ValueError, match="append one first"):
        writer.end_episode(np.array([True, True]))
    with pytest.raises(ValueError, match=r"observation.*\[2, ...\].*\(2,\)"):
        writer.append(np.zeros(2, np.float32))
    writer.append(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match=r"\['action'\].*\['act'\]"):
        writer.complete({"act": np.zeros(2, np.int32)})
    with pytest.raises(ValueError, match=r"action.*\(3,\)"):
        writer.complete({"action": np.zeros(3, np.int32)})
    with pytest.raises(ValueError, match=r"mask.*\[2\].*\(1,\)"):
        writer.end_episode(np.array([True]))


def test_structure_of_an_observation_is_checked():
    signature = replay.Signature({"a": steps.OBSERVATION, "b": steps.OBSERVATION}, {"action": steps.ACTION})
    writer = replay.LocalReplay([replay.Table("replay", 5, signature, replay.Transitions())]).writer(1)
    with pytest.raises(ValueError, match="observation has another structure"):
        writer.append({"a": np.zeros((1, 2), np.float32)})


def test_nothing_is_made_of_no_items():
    made = replay.LocalReplay([steps.transition_table(5)])
    stream = steps.Steps(made.writer(1))
    none = np.zeros(0, np.int64)
    stream.writer.create_items("replay", none, none, none, values=(np.zeros(0), np.zeros(0)))
    assert made.info().tables["replay"].num_inserts == 0


def test_lengths_of_items_must_agree():
    made = replay.LocalReplay([steps.transition_table(5, sampler=replay.Prioritized())])
    stream = steps.Steps(made.writer(2))
    stream.step()
    zeros, ones = np.zeros(2, np.int64), np.ones(2, np.int64)
    with pytest.raises(ValueError, match="same shape"):
        stream.writer.create_items("replay", zeros[:1], zeros, ones, values=(zeros, zeros))
    with pytest.raises(ValueError, match=r"shape \[2\], got shapes \(\(2,\), \(1,\)\)"):
        stream.writer.create_items("replay", ones, zeros, ones, values=(zeros, zeros[:1]))
    with pytest.raises(ValueError, match=r"priorities must have shape \[2\], got \(3,\)"):
        stream.writer.create_items("replay", ones, zeros, ones, values=(zeros, zeros), priorities=np.ones(3))
    assert made.info().tables["replay"].num_inserts == 0


def test_a_containers_limit_counts_without_the_files_that_give_way(tmp_path):
    def left(**files):
        for name, text in files.items():
            (tmp_path / f"memory.{name}").write_text(text)
        return store._container_memory(7, tmp_path)

    assert left() == 7  # there is no container
    assert left(max="max\n", current="300\n") == 7  # it has no limit
    assert left(max="1000\n") == 700
    assert left(stat="anon 100\ninactive_file 150\nactive_file 50\n") == 850
    assert left(current="2000\n") == 0


@pytest.mark.parametrize(
    ("num_streams", "changes", "message"),
    [
        (1, {"priorities": np.ones(3)}, r"priorities must have shape \[1\], got \(3,\)"),
        (1, {"streams": np.zeros(2, np.int64)}, "same shape"),
        (1, {"values": (np.zeros(2), np.zeros(2))}, r"values must be .*shape \[1\], got shapes \(\(2,\), \(2,\)\)"),
        (2, {"priorities": np.ones(3)}, r"priorities must have shape \[2\], got \(3,\)"),
    ],
)
def test_what_an_item_is_made_of_must_have_as_many_entries(num_streams, changes, message):
    made = replay.LocalReplay([steps.transition_table(5, sampler=replay.Prioritized())])
    stream = steps.Steps(made.writer(num_streams))
    stream.step()
    zeros, ones = np.zeros(num_streams, np.int64), np.ones(num_streams, np.int64)
    items = {"streams": np.arange(num_streams), "starts": zeros, "lengths": ones, "values": (zeros, zeros)} | changes
    with pytest.raises(ValueError, match=message):
        stream.writer.create_items("replay", **items)
    assert made.info().tables["replay"].num_inserts == 0


@pytest.mark.parametrize("num_streams", [1, 3])
def test_values_of_items_in_each_stream_must_have_as_many_entries(num_streams):
    made = replay.LocalReplay([steps.transition_table(5)])
    stream = steps.Steps(made.writer(num_streams))
    stream.step()
    for wrong in (num_streams + 1, 1 if num_streams > 1 else 2):
        with pytest.raises(ValueError, match=rf"values must be .*shape \[{num_streams}\], got .*{wrong}"):
            stream.writer.create_item_in_each("replay", 0, 1, values=(np.zeros(wrong), np.zeros(wrong)))
    assert made.info().tables["replay"].num_inserts == 0


def test_one_item_may_come_as_lists():
    made = replay.LocalReplay([steps.transition_table(5)])
    stream = steps.Steps(made.writer(1))
    stream.step()
    stream.writer.create_items("replay", [0], [0], [1], values=([3.0], [0.5]))
    assert steps.numbers(next(made.dataset("replay", 1))) == [3]


def test_floats_are_not_rounded_to_whole_numbers():
    writer = replay.LocalReplay([steps.transition_table(5)]).writer(1)
    writer.append(np.zeros((1, 2), np.float64))  # rounding to fewer bits is fine
    with pytest.raises(ValueError, match=r"action must have whole numbers for DiscreteArray.*got float64"):
        writer.complete({"action": np.array([1.5])})


def test_a_closed_replay_takes_nothing():
    made = replay.LocalReplay([steps.transition_table(5)])
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        made.can_insert(1)


def test_one_item_in_each_stream_may_come_as_lists():
    made = replay.LocalReplay([steps.transition_table(5)])
    stream = steps.Steps(made.writer(1))
    stream.step()
    stream.writer.create_item_in_each("replay", 0, 1, values=([3.0], (0.5,)))
    assert steps.numbers(next(made.dataset("replay", 1))) == [3]


@pytest.mark.parametrize("wrong", ["a", None], ids=repr)
def test_a_value_that_is_no_number_leaves_no_item(wrong):
    made = replay.LocalReplay([steps.transition_table(5)])
    stream = steps.Steps(made.writer(1))
    stream.step()
    with pytest.raises((TypeError, ValueError)):
        stream.writer.create_item_in_each("replay", 0, 1, values=(np.array([wrong]), np.ones(1)))
    assert made.info().tables["replay"].num_inserts == 0
