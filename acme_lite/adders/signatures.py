"""What one row of a replay holds: the specs, and beside them the functions that make such rows."""

from __future__ import annotations

from collections.abc import Sequence

from acme_lite import specs, types
from acme_lite.replay import tables


def transition_signature(spec: specs.EnvironmentSpec, extras_spec: types.SpecTree = ()) -> tables.Signature:
    """Returns the signature of tables of transitions: fields `action`, and `extras` unless their spec is `()`.

    Args:
        spec: the specs of one member of the environment.
        extras_spec: spec tree of one row of what the policy gives beside the action.
    """
    return tables.Signature(observation=spec.observation, fields=transition_fields(spec.action, extras_spec))


def sequence_signature(spec: specs.EnvironmentSpec, extras_spec: types.SpecTree = ()) -> tables.Signature:
    """Returns the signature of tables of sequences.

    The fields are `action`, `reward`, `discount`, `mask`, and `extras` unless their spec is `()`.

    Args:
        spec: the specs of one member of the environment.
        extras_spec: spec tree of one row of what the policy gives beside the action.
    """
    mask = specs.Array((), bool, name="mask")
    fields = sequence_fields(spec.action, spec.reward, spec.discount, mask, extras_spec)
    return tables.Signature(observation=spec.observation, fields=fields)


def split_extras(extras: types.ArrayTree, names: Sequence[str]) -> tuple[types.ArrayTree, types.ArrayTree]:
    """Returns extras (or their specs) without some names, and the extras of these names; `()` for what is empty.

    Raises:
        ValueError: a name is not among the extras.
    """
    if not names:
        return extras, ()
    if not (isinstance(extras, dict) and set(names) <= set(extras)):
        known = sorted(extras) if isinstance(extras, dict) else []
        raise ValueError(f"start_extras must be some of the extras {known}, got {list(names)}.")
    rest = {name: value for name, value in extras.items() if name not in names}
    return rest or (), {name: extras[name] for name in names}


def transition_fields(action: types.ArrayTree, extras: types.ArrayTree) -> dict[str, types.ArrayTree]:
    """Returns the fields of a row (or their specs) in a table of transitions."""
    if isinstance(extras, tuple) and not extras:
        return {"action": action}
    return {"action": action, "extras": extras}


def sequence_fields(
    action: types.ArrayTree,
    reward: types.ArrayTree,
    discount: types.ArrayTree,
    mask: types.ArrayTree,
    extras: types.ArrayTree,
) -> dict[str, types.ArrayTree]:
    """Returns the fields of a row (or their specs) in a table of sequences."""
    fields = transition_fields(action, extras)
    fields["reward"], fields["discount"], fields["mask"] = reward, discount, mask
    return fields
