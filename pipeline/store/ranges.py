"""What a summary says of the range of the stored values and of the range of frequencies in the files."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.features import FeatureSpec, Spectral


def count_above(ok: pa.Table) -> int | None:
    """Count the values above the range of the dtype; None if some track does not tell them from those below it.

    Args:
        ok: manifest rows of the tracks in use.
    """
    unknown = pc.and_(pc.is_null(ok["saturated_above"]), pc.greater(pc.fill_null(ok["saturated"], 0), 0))
    return None if pc.any(unknown).as_py() else pc.sum(ok["saturated_above"]).as_py() or 0


def low_rate(spec: FeatureSpec, ok: pa.Table) -> dict[str, int] | None:
    """Describe files that lack the highest frequencies of a feature, if most of the tracks in use are such files.

    Args:
        spec: the feature.
        ok: manifest rows of the tracks in use.

    Returns:
        `tracks`, the number of files with such a sample rate, and `sr`, the most frequent one of these rates in Hz;
        None if they are half of the tracks or fewer.
    """
    top = getattr(spec, "fmax", None) or spec.sr / 2
    counts = ok["sample_rate"].drop_null().value_counts().to_pylist()
    rates = Counter({row["values"]: row["counts"] for row in counts if row["values"] < 2 * top})
    if 2 * rates.total() <= len(ok):
        return None
    return {"tracks": rates.total(), "sr": rates.most_common(1)[0][0]}


def rate_lines(report: dict[str, Any], spec: FeatureSpec) -> list[str]:
    """Say that most files have a lower sample rate than the feature, and which rate fits.

    Args:
        report: result of `summary.summarise`.
        spec: feature of the store.
    """
    if report["low_rate"] is None:
        return []
    tracks, rate = report["low_rate"]["tracks"], report["low_rate"]["sr"]
    share = f"{tracks:,} of {report['ok']:,} tracks ({100 * tracks / report['ok']:.0f} %)"
    what = f"have less than the feature's {spec.sr:,} Hz, typically {rate:,} Hz"
    top = f"{rate // 2:,} Hz"
    empty = f"the bins above {top} are empty" if isinstance(spec, Spectral) else f"nothing is above {top}"
    return [f"  rate      {share} {what}: {empty}; --sr {rate} fits"]


def range_lines(report: dict[str, Any], spec: FeatureSpec, values: int) -> list[str]:
    """Say how many values were clipped: those below the floor, where levels are silence, and those above the top.

    Args:
        report: result of `summary.summarise`.
        spec: feature of the store.
        values: number of all values in the store.
    """
    total, above = report["saturated"], report["saturated_above"]
    if not spec.quantised or not total or not values:
        return []
    if above is None:
        share = _share(total, values)
        return [f"  range     {share} of the values lie outside the {spec.dtype} range and were clipped to it"]
    lines = []
    if total > above:
        share = _share(total - above, values)
        lines.append(f"  range     {share} of the values lie below the floor (silence, harmless)")
    if above:
        floats = " or ".join(dtype for dtype in spec.dtypes if dtype.startswith("float"))
        what = f"{_share(above, values)} of the values lie above the top and were clipped (distortion)"
        lines.append(f"  warning   {what}; --dtype {floats} keeps them")
    return lines


def _share(count: int, total: int) -> str:
    """Format a share with three digits, such as `12.3 %` and `0.0042 %`."""
    percent = 100 * count / total
    return f"{percent:.3g} %" if percent >= 1e-4 else "less than 0.0001 %"
