"""Whether the tables of a Reverb server, or of its checkpoint, are those that were declared."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from acme_lite import _runtime
from acme_lite.replay import rate_limiters, tables
from acme_lite.replay.reverb_layout import Layout
from acme_lite.replay.reverb_server import SLACK_ITEMS, drawn_by, limits

_ADVICE = "declare the same tables on both sides."


def of_table(table: tables.Table, layout: Layout) -> dict[str, Any]:
    """Returns what a server has of a declaration, field by field."""
    return {
        "columns of bytes": layout.columns(table.items),
        "dtypes and shapes (their hash)": layout.fingerprint(table.items),
        "sampler": drawn_by(table.sampler),
        "max_size": table.max_size,
        "max_times_sampled": table.max_times_sampled,
        "remover": tables.Fifo(),
        "limiter": limits(table.limiter),
    }


def of_server(info: Any) -> dict[str, Any]:
    """Returns the same of a server's `TableInfo`."""
    return _found(info, info.sampler_options, info.remover_options, info.rate_limiter_info)


def of_checkpoint(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the same of each table of a checkpoint, by its name."""
    from reverb.cc.checkpointing import checkpoint_pb2

    tensorflow = _runtime.import_extra("tensorflow", "distributed", "A Reverb replay")
    records = tensorflow.data.TFRecordDataset(str(path / "tables.tfrecord"), compression_type="ZLIB")
    found = [checkpoint_pb2.PriorityTableCheckpoint.FromString(record) for record in records.as_numpy_iterator()]
    return {table.table_name: _found(table, table.sampler, table.remover, table.rate_limiter) for table in found}


def check(declared: Sequence[tables.Table], layout: Layout, found: Mapping[str, dict[str, Any]], where: str) -> None:
    """Checks that what was found is what was declared.

    Args:
        declared: the declarations.
        layout: their layout.
        found: name -> fields of the tables that there are.
        where: what holds them, for the message.

    Raises:
        ValueError: it is not; names the table, the field, and both values.
    """
    for table in declared:
        if table.name not in found:
            raise ValueError(f"{where} must hold a table {table.name!r}, got {sorted(found)}: {_ADVICE}")
        for field, value in of_table(table, layout).items():
            got = found[table.name][field]
            if got not in (value, ""):  # a server of an earlier version has no hash
                words = (table.limiter, _limiter(*got)) if field == "limiter" else (value, got)
                raise ValueError(
                    f"{where} must hold a table {table.name!r} with {field} {words[0]}, got {words[1]}: {_ADVICE}"
                )


def _found(table: Any, sampler: Any, remover: Any, limiter: Any) -> dict[str, Any]:
    columns = [one.tensor_spec_value for one in table.signature.tuple_value.values]
    return {
        "columns of bytes": [tuple(dim.size for dim in column.shape.dim) for column in columns],
        "dtypes and shapes (their hash)": next((column.name for column in columns), ""),
        "sampler": _selector(sampler),
        "max_size": table.max_size,
        "max_times_sampled": table.max_times_sampled,
        "remover": _selector(remover),
        "limiter": (limiter.samples_per_insert, limiter.min_size_to_sample, limiter.min_diff, limiter.max_diff),
    }


def _selector(options: Any) -> tables.Sampler | str:
    kind = options.WhichOneof("distribution")
    if kind == "prioritized":
        return tables.Prioritized(options.prioritized.priority_exponent)
    plain: dict[str, tables.Sampler] = {"uniform": tables.Uniform(), "fifo": tables.Fifo(), "lifo": tables.Lifo()}
    return plain.get(kind, str(kind))


def _limiter(samples_per_insert: float, min_size: int, low: float, high: float) -> rate_limiters.Limiter | str:
    """Returns a server's limiter as it is declared; its numbers where nothing is declared so."""
    middle, buffer = min_size * samples_per_insert, round((high - low) / 2 - SLACK_ITEMS, 6)
    if high == sys.float_info.max:
        return rate_limiters.MinSize(min_size)
    if low == 0:
        return rate_limiters.Queue(int(high))
    return f"SampleToInsertRatio({samples_per_insert=}, {min_size=}, error_buffer={buffer}) around {middle}"
