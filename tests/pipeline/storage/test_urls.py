"""URLs: invalid ones, and the objects that paths name."""

from __future__ import annotations

import pytest

from mgc.pipeline.errors import SpecError
from mgc.pipeline.storage import urls


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftq://host/x", "unknown protocol"),
        ("s3://key:secret@bucket/x", "credentials in a URL would be stored"),
        ("https://host/x?X-Amz-Signature=secret", "a URL with a query"),
        ("s3:///", "without a bucket"),
        ("s3://bucket/a/../b", "with . or .. in it"),
    ],
)
def test_odd_urls(url: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        urls.parse_url(url)
    assert "secret" not in str(caught.value)


def test_escapes_in_names_are_names() -> None:
    root = urls.parse_url("http://host/my music")
    assert root.url == "http://host/my%20music"
    assert urls.object_at(root, b"%2e%2e/a?b#c.wav").url == "http://host/my%20music/%252e%252e/a%3Fb%23c.wav"
    with pytest.raises(FileNotFoundError):
        urls.object_at(root, b"a/../../b")
