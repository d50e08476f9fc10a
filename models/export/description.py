"""What an exported file says of itself: its metadata, as texts by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mgc.models.export.graph import Origin, Window
from mgc.models.runs.run import Run
from mgc.pipeline.features import Waveform
from mgc.pipeline.versions import versions


def describe(run: Run, origin: Origin, window: Window | None, extra: dict[str, Any]) -> dict[str, str]:
    """Describe an exported file.

    Args:
        run: its run.
        origin: what it reads.
        window: window of samples; None with the origin `features`.
        extra: further values, such as the result of the check.

    Returns:
        Texts by key; lists and objects are JSON. All times are in samples or frames, so that nobody has to round.
    """
    spec, slicing = run.spec, run.slicing
    values: dict[str, Any] = {
        "mgc_version": versions(["mgc"])["mgc"],
        "model": run.model,
        "run": Path(run.path).resolve().name,
        "input": origin,
        "labels": list(run.classes),
        "output": "probabilities",
        "features": [source.spec.as_dict() for source in run.sources],
        "frames": [source.frames for source in run.sources],
        "slicing": slicing.as_dict(),
        "sample_rate": spec.sr,
        "channels": "1, the mean of all",
        "resampler": "soxr HQ",
    }
    if spec.frame_rate and not slicing.whole:
        length = slicing.length_s(spec)
        step = length * (1 - slicing.overlap)
        if slicing.frames is not None:
            step = max(1, round(slicing.frames * (1 - slicing.overlap))) / spec.frame_rate
        values |= {"slice_seconds": length, "slice_hop_seconds": step, "slice_offset_seconds": slicing.offset}
        values |= {"slice_frames": slicing.n_frames(spec), "hop_length": spec.hop_length}
    if window is not None:
        values |= {
            "window_samples": window.length,
            "window_margin_samples": window.margin,
            "window_skip_frames": window.skip,
        }
    elif isinstance(spec, Waveform):
        values["values"] = "samples, full scale 1"
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in (values | extra).items()}
