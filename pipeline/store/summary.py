"""Summary of a store: counts of tracks, slices, genres and bytes, as a dict for `--json` and as text."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.audio import notes
from mgc.pipeline.datasets.tracks import LEFT_OUT_REASONS, SPLITS
from mgc.pipeline.errors import MgcError, SpecError
from mgc.pipeline.escaping import visible
from mgc.pipeline.store import last_audit, ranges
from mgc.pipeline.store.cuts import Cut
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store
from mgc.pipeline.wrapping import WIDTH, wrap

#: Number of dropped tracks that the text lists; `--json` and the manifest list all of them.
MAX_LISTED = 8

#: Manifest columns that a summary reads.
_COLUMNS = [
    "track_id", "path", "genre", "artist_id", "split", "status", "reason", "detail", "duration_s", "sample_rate",
    "saturated", "saturated_above", "variants",
]  # fmt: skip


def summarise(store: Store) -> dict[str, Any]:
    """Count the tracks, slices, genres and bytes of a store.

    Returns:
        Values that `json.dumps` accepts; `mgc info --json` prints them. `bytes` is the size of all shards, `seconds`
        the decoded audio of the tracks in use, `saturated` the number of stored values that were clipped to the range
        of the dtype, `saturated_above` how many of them lay above it (see `ranges.count_above`), `low_rate` describes
        files with a lower sample rate than the feature's (see `ranges.low_rate`), `rescued` is the number of tracks in
        use of which damage cost some audio, and `by_ffmpeg` of those that libsndfile could not open, or not decode to
        their end, `cancelled` of those whose channels cancel in their mix, so that one channel stands for them, and
        `partly_cancelled` of those whose mix is 6 dB below the channels. `audit` is the verdict of the last audit, see
        `last_audit.Record.verdict`; None if there is none of these splits.

    Raises:
        StoreError: the store is unfinished or damaged.
    """
    store.require_finished()
    tracks = store.read_tracks(_COLUMNS)
    ok = tracks.filter(pc.equal(tracks["status"], "ok"))
    dropped = tracks.filter(pc.equal(tracks["status"], "dropped"))
    slices_by_split: Counter[str] = Counter()
    slices_by_variant: Counter[str] = Counter()
    for slices in store.read_slices(map(int, store.shard_files()), ["split", "variant"]):
        slices_by_split += _count(slices["split"].filter(pc.is_null(slices["variant"])))
        slices_by_variant += _count(slices["variant"].drop_null())
    by_split, by_genre = _count(ok["split"]), _count(ok["genre"])
    return {
        "store": str(store.path),
        "spec": store.spec.as_dict(),
        "dataset": store.dataset["name"],
        "root": store.dataset["root"],
        "tracks": len(tracks),
        "ok": len(ok),
        "rescued": _count_remarks(ok, "damaged"),
        "by_ffmpeg": _count_remarks(ok, "by_ffmpeg"),
        "cancelled": _count_remarks(ok, "cancelled"),
        "partly_cancelled": _count_remarks(ok, "partly_cancelled"),
        "dropped": dict(sorted(_count(dropped["reason"]).items())),
        "dropped_tracks": dropped.select(["track_id", "path", "reason", "detail"]).to_pylist(),
        "seconds": pc.sum(ok["duration_s"]).as_py() or 0.0,
        "slicing": store.slicing.as_dict(),
        "slices": slices_by_split.total(),
        "cuts": [_describe_cut(store, cut) for cut in store.cuts],
        "splits": {split: {"tracks": by_split[split], "slices": slices_by_split[split]} for split in SPLITS},
        "genres": {genre: by_genre[genre] for genre in store.genres},
        "artists": {"known": pc.count_distinct(ok["artist_id"]).as_py(), "unknown_tracks": ok["artist_id"].null_count},
        "variants": _variants(store, ok, slices_by_variant),
        "saturated": pc.sum(ok["saturated"]).as_py() or 0,
        "saturated_above": ranges.count_above(ok),
        "low_rate": ranges.low_rate(store.spec, ok),
        "bytes": sum(size for shard in store.shard_files().values() for size, _ in shard.values()),
        "audit": audit.verdict() if (audit := last_audit.read(store)) is not None else None,
        "versions": store.versions,
    }


def _describe_cut(store: Store, cut: Cut) -> dict[str, Any]:
    """Return a cut as a dict: name, slicing, numbers of slices and tracks, and who asked for it."""
    n_slices = n_tracks = 0
    for slices in store.read_slices(map(int, store.shard_files()), ["track_id", "variant"], cut):
        own = slices["track_id"].filter(pc.is_null(slices["variant"]))
        n_slices += len(own)
        n_tracks += pc.count_distinct(own).as_py()  # all slices of a track are in one row group
    return {
        "name": cut.name,
        "default": cut.default,
        "slicing": cut.slicing.as_dict(),
        "slices": n_slices,
        "tracks": n_tracks,
        "for": list(cut.systems),
    }


def _variants(store: Store, ok: pa.Table, slices: Counter[str]) -> dict[str, dict[str, Any]]:
    """Count, for each augmentation variant, the tracks and slices that have it and the reasons why others do not.

    Args:
        store: the store.
        ok: manifest rows of the tracks in use, with the columns `split` and `variants`.
        slices: number of slices by variant.

    Returns:
        `{variant: {tracks, slices, dropped: {reason: count}, absent}}` of the training tracks. `absent` counts the
        tracks that joined the training split after they were decoded.
    """
    training = ok["variants"].filter(pc.equal(ok["split"], "training")).combine_chunks()
    records = pc.list_flatten(training)
    name, reason = pc.struct_field(records, "variant"), pc.struct_field(records, "reason")
    present = Counter(name.filter(pc.is_null(reason)).to_pylist())
    dropped = Counter(zip(name.to_pylist(), reason.to_pylist(), strict=True))
    return {
        text: {
            "tracks": present[text],
            "slices": slices[text],
            "dropped": {why: n for (variant, why), n in sorted(dropped.items(), key=str) if variant == text and why},
            "absent": training.null_count,
        }
        for text in map(str, store.variants)
    }


def _count_remarks(ok: pa.Table, kind: str) -> int:
    """Count the tracks whose `detail` holds a remark of a kind (`notes.KINDS`)."""
    return pc.sum(pc.match_substring_regex(ok["detail"], notes.KINDS[kind])).as_py() or 0


def _count(column: pa.ChunkedArray) -> Counter[str]:
    """Count how often each value of a column occurs."""
    return Counter({row["values"]: row["counts"] for row in column.value_counts().to_pylist()})


def render(report: dict[str, Any], store: Store, width: int = WIDTH) -> str:
    """Format a summary as text.

    Args:
        report: result of `summarise`.
        store: the same store.
        width: columns of the terminal; only a path may be longer.
    """
    tracks, ok = report["tracks"], report["ok"]
    values = (pc.sum(store.read_tracks(["n_frames"])["n_frames"]).as_py() or 0) * store.spec.bins
    lines = [
        f"{report['store']}",
        f"  feature   {store.spec}",
        f"  tracks    {ok:,} of {tracks:,} in use, {report['seconds'] / 3600:.2f} h, {report['bytes'] / 1e6:,.1f} MB",
        f"  slices    {report['slices']:,} ({Slicing.from_dict(report['slicing'])})",
        f"  splits    {_splits(report)}",
        f"  genres    {', '.join(f'{genre} {count:,}' for genre, count in report['genres'].items())}",
    ]
    if unknown := report["artists"]["unknown_tracks"]:
        whose = "none is known" if unknown == ok else f"unknown of {unknown:,} of {ok:,} tracks"
        lines.append(f"  artists   {whose}: an artist may be in training and test, which flatters accuracies")
    if report["audit"]:
        lines.append(f"  audit     {report['audit']['line']}")
    lines += _cut_lines(report["cuts"])
    lines += _variant_lines(report["variants"])
    if report["rescued"]:
        lines.append(f"  damaged   {report['rescued']:,} tracks in use lost audio: see `detail` in the manifest")
    if report["by_ffmpeg"]:
        lines.append(f"  decoder   {report['by_ffmpeg']:,} tracks in use were decoded by FFmpeg, not by libsndfile")
    if report["cancelled"]:
        count = report["cancelled"]
        lines.append(f"  phase     {count:,} tracks in use cancel when mixed to mono: their loudest channel was taken")
    if report["partly_cancelled"]:
        count = report["partly_cancelled"]
        lines.append(f"  phase     {count:,} tracks in use cancel partly: their mix is 6 dB or more below the channels")
    lines += ranges.rate_lines(report, store.spec)
    lines += ranges.range_lines(report, store.spec, values)
    if report["dropped"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report["dropped"].items())
        lines.append(f"  dropped   {tracks - ok:,}: {reasons}")
        lines += [
            f"            {row['reason']:<11} {_dropped_line(row)}" for row in report["dropped_tracks"][:MAX_LISTED]
        ]
        if len(report["dropped_tracks"]) > MAX_LISTED:
            lines.append(f"            ... and {len(report['dropped_tracks']) - MAX_LISTED:,} more (`mgc info --json`)")
    return _layout(lines, width)


def _layout(lines: list[str], width: int) -> str:
    """Join lines; long ones are wrapped below their second column, those of dropped tracks below the path."""
    head, *rows = map(visible, lines)
    wrapped = (wrap(row, width, indent=24 if row.startswith(" " * 12) else 12) for row in rows)
    return "\n".join([head, *(part for parts in wrapped for part in parts)])


def _cut_lines(cuts: list[dict[str, Any]]) -> list[str]:
    """Format the `cuts` entry of a summary, one string per line; empty if there is only the default."""
    if len(cuts) < 2:
        return []
    rows = []
    for cut in cuts:
        remark = " (default)" if cut["default"] else f" (for {', '.join(cut['for'])})" if cut["for"] else ""
        rows.append((cut["name"], f"{cut['slices']:,}", f"{Slicing.from_dict(cut['slicing']).brief}{remark}"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    heads = ["cuts", *[""] * (len(rows) - 1)]
    return [
        f"  {head:<8}  {name:<{widths[0]}}  {slices:>{widths[1]}} slices  {text}"
        for head, (name, slices, text) in zip(heads, rows, strict=True)
    ]


def _variant_lines(variants: dict[str, dict[str, Any]]) -> list[str]:
    """Format the `variants` entry of a summary, one string per line."""
    if not variants:
        return []
    counts = ", ".join(f"{name} {n['tracks']:,} ({n['slices']:,} slices)" for name, n in variants.items())
    lines = [f"  variants  of training tracks: {counts}"]
    for name, n in variants.items():
        if n["dropped"]:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in n["dropped"].items())
            lines.append(f"            {name} dropped, its track kept: {reasons}")
    if absent := max(n["absent"] for n in variants.values()):
        lines.append(f"            {absent:,} training tracks have no variants yet: run the same `mgc extract` again")
    return lines


def render_splits(report: dict[str, Any], width: int = WIDTH) -> str:
    """Format the store's path, the `splits` entry of a summary, and an audit that found these unclean."""
    lines = [report["store"], f"  splits    {_splits(report)}"]
    if report["audit"] and not report["audit"]["clean"]:
        lines.append(f"  audit     {report['audit']['line']}")
    return _layout(lines, width)


def _splits(report: dict[str, Any]) -> str:
    return ", ".join(f"{split} {n['tracks']:,} ({n['slices']:,} slices)" for split, n in report["splits"].items())


def _dropped_line(row: dict[str, Any]) -> str:
    name = row["path"].encode("unicode_escape").decode() if not row["path"].isprintable() else row["path"]
    return f"{name}: {row['detail']}" if row["detail"] else name


def parse_limit(text: str | None) -> tuple[float, bool] | None:
    """Parse the value of `--max-dropped`: a number of tracks, or a percentage such as `5%`.

    Returns:
        The number, and whether it is a percentage; None if `text` is None.

    Raises:
        SpecError: `text` is neither.
    """
    if text is None:
        return None
    try:
        share = text.endswith("%")
        number = float(text.removesuffix("%"))
        if not 0 <= number < math.inf:
            raise ValueError
    except ValueError:
        raise SpecError(f"--max-dropped {text}", "it must be a number of tracks, or a share like 5%") from None
    return number, share


def require_usable_tracks(report: dict[str, Any], limit: tuple[float, bool] | None) -> None:
    """Require that tracks are left, and that not too many were dropped.

    Args:
        report: result of `summarise`.
        limit: result of `parse_limit`; None allows any number of dropped tracks. Those that the user asked to leave out
            do not count.

    Raises:
        MgcError: no track is in use, or more tracks than `limit` were dropped.
    """
    tracks = report["tracks"] - sum(report["dropped"].get(reason, 0) for reason in LEFT_OUT_REASONS)
    dropped = tracks - report["ok"]
    if not report["ok"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report["dropped"].items()) or "it is empty"
        remedy = "see the reasons above"
        if set(report["dropped"]) == {"too-short"}:
            remedy = f"choose a shorter slice: `mgc slice {report['store']} --slice SECONDS`"
        raise MgcError(f"{report['store']}: no usable track is left ({reasons})", remedy)
    if limit is not None:
        number, share = limit
        if dropped > (tracks * number / 100 if share else number):
            allowed = f"{number:g}%" if share else f"{number:g}"
            problem = f"{report['store']}: {dropped} of {tracks} tracks were dropped, more than --max-dropped {allowed}"
            raise MgcError(problem, "see `mgc info` for the reasons")
