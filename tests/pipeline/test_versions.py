"""Versions of libraries, as stores and runs record them."""

from importlib.metadata import version

from mgc.pipeline.versions import versions


def test_versions_are_those_of_the_installed_distributions():
    assert versions(["mgc", "numpy"]) == {"mgc": version("mgc-music"), "numpy": version("numpy")}


def test_a_library_that_is_not_installed_is_unknown():
    assert versions(["no-such-library"]) == {"no-such-library": "unknown"}
