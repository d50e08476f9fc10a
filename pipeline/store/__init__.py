"""Feature stores: their files, the manifest of tracks, and the slices that tracks are cut into."""

from mgc.pipeline.store.store import Store

__all__ = ["Store"]
