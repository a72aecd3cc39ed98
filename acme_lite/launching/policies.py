"""What the supervisor does with the nodes of a group."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Literal

from acme_lite import checks

_ONE_BLAS_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


@dataclasses.dataclass(frozen=True)
class NodePolicy:
    """What happens to each node of a group.

    Attributes:
        max_restarts: how often a node that dies is started again, at the same address, before the program fails. A
            node that has run for ten minutes begins to count anew.
        ends_program: whether the program ends once all nodes of this group have finished.
        stop_stage: nodes of a lower stage are stopped, and have ended, before those of a higher one.
        cores: which cores its processes run on: "single" gives each the next core in turn, None leaves all.
        environment: environment variables of its processes. A forked process has imported its libraries already, and
            of the variables that they read then only JAX_PLATFORMS is put right; where others matter, use "spawn".
        start: "fork" from a process that has imported everything, or "spawn" a fresh Python.
    """

    max_restarts: int = 0
    ends_program: bool = False
    stop_stage: int = 1
    cores: Literal["single"] | tuple[int, ...] | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    start: Literal["fork", "spawn"] = "fork"

    def __post_init__(self) -> None:
        checks.at_least(self, 0, "max_restarts", "stop_stage")
        checks.booleans(self, "ends_program")
        if self.start not in ("fork", "spawn"):
            raise ValueError(f"NodePolicy.start must be 'fork' or 'spawn', got {self.start!r}")
        allowed = os.sched_getaffinity(0)
        if isinstance(self.cores, tuple) and not (self.cores and set(self.cores) <= allowed):
            raise ValueError(f"NodePolicy.cores must be at least one of {sorted(allowed)}, got {self.cores!r}")
        if not isinstance(self.cores, tuple) and self.cores not in ("single", None):
            raise ValueError(f"NodePolicy.cores must be 'single', a tuple of cores or None, got {self.cores!r}")
        variables = self.environment
        if not (
            isinstance(variables, Mapping) and all(isinstance(text, str) for item in variables.items() for text in item)
        ):
            raise ValueError(f"NodePolicy.environment must map names to strings, got {variables!r}")


_ACTING = NodePolicy(
    max_restarts=5,
    stop_stage=0,
    cores="single",  # an actor of batch size 1 acts two to three times as fast on a core of its own
    environment={"JAX_PLATFORMS": "cpu", **_ONE_BLAS_THREAD},
)
_STORING = NodePolicy(max_restarts=3, stop_stage=2, environment={"JAX_PLATFORMS": "cpu"})

DEFAULT_POLICIES: Mapping[str, NodePolicy] = {
    "actor": _ACTING,
    "counter": NodePolicy(stop_stage=3, environment={"JAX_PLATFORMS": "cpu"}),  # whom all others tell what they did
    "evaluator": _ACTING,
    "learner": NodePolicy(ends_program=True),
    "replay": _STORING,
    "reverb": _STORING,
}
