"""Audio files that are in memory already, decoded by libsndfile from there.

libsndfile reads an MP3 by two system calls for each of its frames, 2,300 for a clip of 30 s: a twentieth of what an
extraction takes. soundfile can read from Python objects, at more than that for each call. Here the calls go to compiled
functions, through the part of libsndfile's interface that soundfile itself uses for such objects (`sf_open_virtual`).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import soundfile
from numba import types
from numba.extending import intrinsic

from mgc.pipeline.dsp.kernels import callback

#: int64 `(3,)`: address of the bytes, how many they are, and which is read next.
_STATE = types.CPointer(types.int64)


class ResidentFile(soundfile.SoundFile):
    """Opened for reading.

    Args:
        data: the whole file.
        name: for messages.

    Raises:
        soundfile.LibsndfileError: it is nothing that libsndfile can read.
    """

    def __init__(self, data: bytes, name: object) -> None:
        self._data = data  # to be kept for as long as its address is in use
        self._state = np.array([np.frombuffer(data, np.uint8).ctypes.data, len(data), 0], np.int64)
        super().__init__(name)

    def _open(self, file: Any, mode_int: int, closefd: bool) -> Any:
        """What `SoundFile` opens a path with."""
        snd, ffi = soundfile._snd, soundfile._ffi
        self._calls = ffi.new(
            "SF_VIRTUAL_IO*",
            {
                "get_filelen": ffi.cast("sf_vio_get_filelen", _length.address),
                "seek": ffi.cast("sf_vio_seek", _seek.address),
                "read": ffi.cast("sf_vio_read", _read.address),
                "tell": ffi.cast("sf_vio_tell", _tell.address),
            },
        )
        state = ffi.cast("void*", self._state.ctypes.data)
        opened = snd.sf_open_virtual(self._calls, mode_int, self._info, state)
        if opened == ffi.NULL:
            raise soundfile.LibsndfileError(snd.sf_error(opened), prefix=f"Error opening {self.name!r}: ")
        return opened


@intrinsic
def _bytes_at(context, address):  # type: ignore[no-untyped-def]
    """A pointer to the bytes at an address."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(types.uint8)))

    return types.CPointer(types.uint8)(types.int64), generate


@callback(types.int64(_STATE))
def _length(state):  # type: ignore[no-untyped-def]
    return state[1]


@callback(types.int64(_STATE))
def _tell(state):  # type: ignore[no-untyped-def]
    return state[2]


@callback(types.int64(types.int64, types.int32, _STATE))
def _seek(offset, whence, state):  # type: ignore[no-untyped-def]
    """Like `fseek`: from the start, from here, from the end; nowhere beyond either end."""
    start = 0 if whence == 0 else state[2] if whence == 1 else state[1]
    state[2] = min(max(start + offset, 0), state[1])
    return state[2]


@callback(types.int64(types.CPointer(types.uint8), types.int64, _STATE))
def _read(target, count, state):  # type: ignore[no-untyped-def]
    """Like `fread`: how many bytes there were."""
    there = max(0, min(count, state[1] - state[2]))
    numba.carray(target, there)[:] = numba.carray(_bytes_at(state[0] + state[2]), there)  # type: ignore[call-arg]
    state[2] += there
    return there
