"""Remarks on a track's decoding in the manifest's `detail` column, and the kinds by which summaries count them."""

from __future__ import annotations

#: Remark on a file that libsndfile could not open, or not decode to its end. By itself it is no damage.
BY_FFMPEG = "decoded by FFmpeg"
#: Remark on a file whose mix of channels cancels, so that one channel stands for it, and on one whose mix partly does.
CANCELLED, PARTLY_CANCELLED = "mono", "channels partly cancel"

#: Regular expression that finds the remarks of each kind in `detail`, for manifests of earlier versions too. Damaged is
#: a file of which audio was lost.
KINDS = {
    "damaged": r"(^|; )(decoding stopped: |damaged: |\d+ damaged packets|\d+ gaps of non-finite)",
    "by_ffmpeg": r"(^|; )(decoded by FFmpeg|libsndfile could not open it|libsndfile stopped at )",
    "cancelled": r"(^|; )mono: ",
    "partly_cancelled": r"(^|; )channels partly cancel: ",
}
