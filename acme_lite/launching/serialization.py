"""Messages between nodes: pickles of protocol 5 whose large buffers travel beside them and are copied once a side.

Functions and classes of `__main__` and closures travel by value (cloudpickle). JAX arrays arrive as NumPy arrays, so
that no receiver puts them on a device that it did not choose. Writable arrays arrive writable.

Layout of a message: the number of buffers and the length of the pickle, the length of each buffer (all unsigned 64-bit,
little-endian), the pickle, the buffers.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import cloudpickle
import jax
import numpy as np

_LARGE_BUFFER_BYTES = 4096  # below it, a place of its own costs more than a copy


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, jax.Array):
            return super().reducer_override(obj)
        if jax.dtypes.issubdtype(obj.dtype, jax.dtypes.prng_key):
            return _wrap_key, (np.asarray(jax.random.key_data(obj)), str(jax.random.key_impl(obj)))
        return np.asarray(obj).__reduce_ex__(5)


def _wrap_key(data: np.ndarray, impl: str) -> jax.Array:
    return jax.random.wrap_key_data(jax.numpy.asarray(data), impl=impl)


def dumps(obj: Any) -> bytes:
    """Returns an object as a message."""
    buffers: list[memoryview] = []

    def keep_small_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _LARGE_BUFFER_BYTES:
            return True
        buffers.append(raw)
        return False

    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=keep_small_inside).dump(obj)
    body = file.getbuffer()
    header = struct.pack(f"<{2 + len(buffers)}Q", len(buffers), body.nbytes, *(b.nbytes for b in buffers))
    return b"".join([header, body, *buffers])


def loads(message: bytes) -> Any:
    """Returns the object of a message. Whoever wrote it can run code here: check first where it comes from."""
    num_buffers, num_body = struct.unpack_from("<2Q", message)
    sizes = struct.unpack_from(f"<{num_buffers}Q", message, 16)
    view = memoryview(message)
    start = 16 + 8 * num_buffers
    body = view[start : start + num_body]
    start += num_body
    buffers = []
    for size in sizes:
        # A copy is writable and aligned; NumPy asks for huge pages, and faults on fewer of them than a bytearray.
        buffers.append(np.frombuffer(view, np.uint8, size, start).copy())
        start += size
    return pickle.loads(body, buffers=buffers)
