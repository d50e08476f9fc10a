"""Search for music that resembles a track or a file."""
