"""Remarks on a track's decoding in the manifest's `detail` column, and the kinds by which summaries count them."""

from __future__ import annotations

#: Remark on a file that libsndfile could not open, or not decode to its end. By itself it is no damage.
BY_FFMPEG = "decoded by FFmpeg"

#: Regular expression that finds the remarks of each kind in `detail`, for manifests of earlier versions too. Damaged is
#: a file of which audio was lost.
KINDS = {
    "damaged": r"(^|; )(decoding stopped: |damaged: |\d+ damaged packets|\d+ gaps of non-finite)",
    "by_ffmpeg": r"(^|; )(decoded by FFmpeg|libsndfile could not open it|libsndfile stopped at )",
}
