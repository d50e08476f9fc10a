"""Names of genres that tables must find room for."""

#: The 16 top-level genres of FMA.
FMA = (
    "Blues", "Classical", "Country", "Easy Listening", "Electronic", "Experimental", "Folk", "Hip-Hop", "Instrumental",
    "International", "Jazz", "Old-Time / Historic", "Pop", "Rock", "Soul-RnB", "Spoken",
)  # fmt: skip

#: 16 names of 60 characters that differ in their last two.
LONG_GENRES = tuple(f"Traditional music of the villages by a sea, collection no {number}" for number in range(10, 26))
