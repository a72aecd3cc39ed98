"""Checkpoints: trees of arrays on a disk, written so that a crash leaves the old one or the new one."""

from acme_lite.checkpointing.checkpoints import CheckpointError, Checkpoints, DiskFullError, disk_full
from acme_lite.checkpointing.trees import Leaves, check, flatten, unflatten

__all__ = ["CheckpointError", "Checkpoints", "DiskFullError", "Leaves", "check", "disk_full", "flatten", "unflatten"]
