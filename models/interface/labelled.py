"""A store as one labelled array of xarray."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.errors import MgcError
from mgc.pipeline.features import Chroma, FeatureSpec, Mel, Mfcc, Stats, Waveform
from mgc.pipeline.features.spectral import LinearFrequency
from mgc.pipeline.store.store import Store

if TYPE_CHECKING:
    from xarray import DataArray

#: Most frames of a block: 33 MB of 128 bands as float32. A track of ten hours makes 25 blocks of each track.
_BLOCK_FRAMES = 65_536
_TRACK_LABELS = ["genre", "artist_id", "split"]


def labelled(store: Store) -> DataArray:
    """Return the frames of all tracks as an array `(track, time, bin)` of Dask blocks, float32.

    A feature of one frame per track has no dimension `time`.

    A block is read when its values are computed. Time is that of the frame's first sample in waveforms, and else of its
    centre, in seconds. Dropped tracks are left out.

    Args:
        store: a finished store.

    Raises:
        MgcError: xarray is not installed, or no track has frames.
    """
    try:
        import xarray
    except ModuleNotFoundError:
        raise MgcError("xarray is not installed", 'install it: pip install "mgc-music[xarray]"') from None
    import dask.array

    tracks = store.tracks.filter(pc.equal(store.tracks["status"], "ok"))
    if not len(tracks):
        raise MgcError(f"{store.path}: no track is in use", "`mgc info` shows why")
    lengths = tracks["n_frames"].to_numpy()
    longest, spec = int(lengths.max()), store.spec
    reader = _BlockReader(store, tracks["shard"].to_numpy(), tracks["first_frame"].to_numpy(), lengths)
    blocks = [min(_BLOCK_FRAMES, longest - first) for first in range(0, longest, _BLOCK_FRAMES)]
    values = dask.array.map_blocks(
        reader,
        chunks=((1,) * len(tracks), tuple(blocks), (spec.bins,)),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
        name=f"{spec.name}-{store.manifest_digest}",
    )
    bin_name, bin_labels, bin_attributes = _bins(spec)
    times = np.arange(longest) / (spec.frame_rate or 1)
    coordinates: dict[Hashable, Any] = {
        "track": ("track", _texts(tracks["track_id"])),
        "time": ("time", times, {"units": "s"}),
        bin_name: (bin_name, bin_labels, bin_attributes),
        "frames": ("track", lengths, {"long_name": "frames of the track; NaN after them"}),
    }
    coordinates |= {name: ("track", _texts(tracks[name])) for name in _TRACK_LABELS}
    attributes = {"store": str(store.path), **_parameters(spec)}
    array = xarray.DataArray(values, coordinates, ("track", "time", bin_name), spec.name, attributes)
    return array if spec.frame_rate else array.isel(time=0, drop=True)  # one frame per track has no time


@dataclass(frozen=True)
class _BlockReader:
    """Reads a block of the array: frames of one track, float32 `(1, frames, bins)`, NaN after its end.

    Attributes:
        store: the store.
        shards, first, lengths: shard, first frame in it and number of frames of each track, `(tracks,)`.
    """

    store: Store
    shards: np.ndarray
    first: np.ndarray
    lengths: np.ndarray

    def __call__(self, block_info: dict[Any, Any]) -> np.ndarray:
        (track, _), (begin, end), (_, bins) = block_info[None]["array-location"]
        values = np.full((1, end - begin, bins), np.nan, np.float32)
        stop = min(end, int(self.lengths[track]))
        if begin < stop:
            first = int(self.first[track])
            stored = self.store.read(int(self.shards[track]), first + begin, first + stop)
            values[0, : stop - begin] = self.store.spec.decode(stored)
        return values


def _bins(spec: FeatureSpec) -> tuple[str, np.ndarray, dict[str, str]]:
    """Return the name of a feature's last dimension, the label of each bin, and attributes of the labels."""
    numbers = np.arange(spec.bins)
    if isinstance(spec, Mfcc):
        return "coefficient", numbers, {}
    if isinstance(spec, Mel):
        import librosa

        centres = librosa.mel_frequencies(spec.n_mels + 2, fmin=spec.fmin, fmax=spec.fmax or spec.sr / 2)[1:-1]
        return "frequency", centres, {"units": "Hz", "long_name": "centre of the mel band"}
    if isinstance(spec, LinearFrequency):
        return "frequency", numbers * (spec.sr / spec.n_fft), {"units": "Hz"}
    if isinstance(spec, Chroma):
        return "pitch_class", numbers, {"long_name": f"pitch class, {spec.bins} to the octave, from C up"}
    if isinstance(spec, Stats):
        return "statistic", np.array([".".join(column) for column in spec.columns]), {}
    if isinstance(spec, Waveform):
        return "sample", numbers, {"long_name": "sample of the frame"}
    return "bin", numbers, {}


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    """Convert a column of text to NumPy; unknown values become empty."""
    return np.array(column.fill_null("").to_pylist(), dtype=str)


def _parameters(spec: FeatureSpec) -> dict[str, Any]:
    """Return the parameters of a feature that have a value, as netCDF files have none without; and its unit."""
    # Features that are never quantised are not levels.
    has_unit = any(np.dtype(dtype).kind in "iu" for dtype in spec.dtypes)
    parameters = {name: value for name, value in spec.as_dict().items() if value is not None}
    return parameters | ({"units": spec.units} if has_unit else {})
