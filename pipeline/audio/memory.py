"""Audio files that are in memory already, decoded by libsndfile from there.

libsndfile reads an MP3 by two system calls for each of its frames, 2,300 for a clip of 30 s: a twentieth of what an
extraction takes. soundfile can read from Python objects, at more than that for each call. Here the calls go to compiled
functions, through the part of libsndfile's interface that soundfile itself uses for such objects (`sf_open_virtual`).

libsndfile's interface is public, but the names by which soundfile holds it are private (`_snd`, `_ffi`, `_info`,
`_open`). No other module uses them. A version of soundfile that has other names reads from a Python object after all:
the same samples in 12 % more time (30 s of MP3: 21.7 instead of 19.4 ms). From disk it would be 20.2 ms, but there
libsndfile also goes by a file's suffix, and takes an MP3 behind junk that it refuses in memory.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numba
import numpy as np
import soundfile
from numba import types
from numba.extending import intrinsic

from mgc.pipeline.dsp.kernels import callback

#: int64 `(3,)`: address of the bytes, how many they are, and which is read next.
_STATE = types.CPointer(types.int64)


def open_resident(data: bytes, name: object) -> soundfile.SoundFile:
    """Open a file in memory for reading.

    Args:
        data: the whole file.
        name: for messages.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read it.
    """
    return ResidentFile(data, name) if has_binding() else soundfile.SoundFile(NamedBytes(data, name))


class NamedBytes(io.BytesIO):
    """A file in memory, read by soundfile's public means, with the limits that `ResidentFile` has.

    Args:
        data: the whole file.
        name: for messages.
    """

    def __init__(self, data: bytes, name: object) -> None:
        super().__init__(data)
        self.name = name

    def __repr__(self) -> str:  # what soundfile calls it in messages
        return repr(self.name)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Like `fseek`, but nowhere beyond either end."""
        size = len(self.getbuffer())
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: size}[whence]
        return super().seek(min(max(start + offset, 0), size))


@functools.cache
def has_binding() -> bool:
    """Whether `ResidentFile` works with the installed soundfile. Tried once per process, on a short WAV file."""
    ramp = np.arange(-500, 500, dtype=np.int16)
    file = io.BytesIO()
    soundfile.write(file, ramp, 8000, format="WAV", subtype="PCM_16")
    try:
        with ResidentFile(file.getvalue(), "no file") as sound:
            return np.array_equal(sound.read(dtype="int16"), ramp)
    except Exception:  # whatever a missing or changed name leads to
        return False


class ResidentFile(soundfile.SoundFile):
    """A file in memory, opened for reading. Only where `has_binding()`.

    Args:
        data: the whole file.
        name: for messages.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read it.
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
