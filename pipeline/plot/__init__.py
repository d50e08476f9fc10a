"""Pictures of the frames in a store: spectrograms of tracks and mean spectra of genres."""
