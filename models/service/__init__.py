"""The HTTP service of a run: genres of files that clients send, and a page for people."""
