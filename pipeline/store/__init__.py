"""What is on disk, and slices: windows over it."""
