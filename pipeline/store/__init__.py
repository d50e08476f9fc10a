"""Feature stores: their files, the manifest of tracks, and the slices that tracks are cut into."""
