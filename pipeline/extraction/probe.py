"""Durations of a few of a dataset's files, from their headers: do slices fit into them, and how long are the others?"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mgc.pipeline.audio import inspection
from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.tracks import unescape
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.extraction.batches import estimated_seconds
from mgc.pipeline.extraction.cluster import silence_stderr
from mgc.pipeline.extraction.options import Options
from mgc.pipeline.extraction.signatures import file_signatures
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.cuts import requested_cuts

#: Number of files whose durations are read.
N_FILES = 20
#: Number of files whose sizes are compared to choose the longest of them.
N_SIZES = 1000
#: Size in bytes beyond which a file is not read: its duration counts as unknown.
MAX_BYTES = 50_000_000
#: Seconds by which a header may understate a duration.
TOLERANCE_S = 0.1


def longest_candidates(dataset: Dataset) -> pa.Table:
    """Choose up to `N_FILES` tracks that are likely to be the longest, by the sizes of `N_SIZES` all over the table.

    Args:
        dataset: a dataset on this machine.

    Returns:
        Rows of the dataset's track table.
    """
    rows = np.unique(np.linspace(0, len(dataset.tracks) - 1, min(N_SIZES, len(dataset.tracks))).astype(np.int64))
    sample = dataset.tracks.take(pa.array(rows))
    sizes, _ = file_signatures(dataset, sample)
    order = np.argsort(-estimated_seconds(sample, sizes), kind="stable")
    return sample.take(pa.array(order[:N_FILES]))


def durations(dataset: Dataset, tracks: pa.Table) -> list[float | None]:
    """Read the durations of some tracks from their headers or frames, without decoding them.

    Args:
        dataset: a dataset on this machine.
        tracks: rows of its track table.

    Returns:
        Seconds of each file; None if they are not known without decoding; 0 for a file that is missing or empty.
    """
    root = os.fsencode(str(dataset.root)) + b"/"
    seconds: list[float | None] = []
    for path in tracks["path"].to_pylist():
        try:
            seconds.append(_duration(root + unescape(path)))
        except inspection.UnusableAudio:  # the extraction will say so
            seconds.append(0)
    return seconds


def length_correction(dataset: Dataset, tracks: pa.Table, rows: np.ndarray) -> float:
    """Compare the durations of some files with those that their sizes suggest.

    Args:
        dataset: the dataset.
        tracks: its track table, with `size` of the files.
        rows: the tracks in question, int64, ascending.

    Returns:
        Sum of the durations of up to `N_FILES` of these tracks, evenly spaced, over that of `estimated_seconds`; 1 if
        no duration is known, and for a dataset at a URL.
    """
    if not isinstance(dataset.root, Path) or not len(rows):
        return 1
    spaced = np.unique(np.linspace(0, len(rows) - 1, min(N_FILES, len(rows))).astype(np.int64))
    sample = tracks.take(pa.array(rows[spaced]))
    measured = np.array([value or 0 for value in durations(dataset, sample)])
    expected = estimated_seconds(sample, sample["size"].combine_chunks())
    usable = (measured > 0) & (expected > 0)
    return measured[usable].sum() / expected[usable].sum() if usable.any() else 1


def _duration(path: bytes) -> float | None:
    """Return the duration of a file in seconds; None if it is not known without decoding.

    Raises:
        UnusableAudio: the file is missing, unreadable or empty.
    """
    import soundfile

    if inspection.stat_file(path).st_size > MAX_BYTES:
        return None
    file = inspection.inspect(path)
    for seconds in (file.mpeg_seconds, file.held_s):
        if seconds is not None:
            return seconds
    try:
        with _quiet():
            header = soundfile.info(os.fsdecode(path))
    except (soundfile.LibsndfileError, ValueError, TypeError):
        return None
    return header.frames / header.samplerate if header.frames > 0 and header.samplerate > 0 else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Redirect stderr to the null device meanwhile: mpg123 prints notes on damaged files there, as in the workers."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        silence_stderr()
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def require_room(dataset: Dataset, specs: Sequence[FeatureSpec], options: Options) -> None:
    """Require that some track of a dataset holds a slice of a new store, as far as a look at the headers tells.

    Nothing is required of a dataset at a URL, nor if the duration of one of the files is not known.

    Args:
        dataset: the dataset.
        specs: features of the new stores.
        options: settings of the extraction.

    Raises:
        DatasetError: all files that were looked at are too short for one slice.
    """
    slicings = [requested_cuts((), spec, options.slicing, options.study)[0].slicing for spec in specs]
    needs = [slicing.length_s(spec) + slicing.offset for slicing, spec in zip(slicings, specs, strict=True)]
    if not isinstance(dataset.root, Path) or not needs or min(needs) <= TOLERANCE_S:
        return
    seconds = durations(dataset, longest_candidates(dataset))
    known = [value for value in seconds if value]
    if not known or None in seconds or max(known) + TOLERANCE_S >= min(needs):
        return
    longest, slicing = max(known), slicings[needs.index(min(needs))]
    n_tracks = len(dataset.tracks)
    looked = f"the longest of {len(known)} files looked at" if len(known) < n_tracks else "the longest file"
    room = math.floor(longest) if longest >= 1 else math.floor(longest * 100) / 100
    advice = "shorten --offset" if slicing.offset else f"take --slice {room:g} or --whole" if room else "take --whole"
    raise DatasetError(f"no track holds one slice ({slicing}): {looked} has {longest:.3g} s", advice)
