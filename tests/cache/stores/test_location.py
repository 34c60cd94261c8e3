"""Which locations are accepted, and that their secrets are not shown."""

import pytest

from haechi.cache.location import scheme_of, without_secrets
from haechi.cache.stores.location import Location, LocationError


@pytest.mark.parametrize(
    ("text", "container", "key"),
    [
        ("s3://bucket/a b/한국 #1%20.mp4", "bucket", "a b/한국 #1%20.mp4"),
        ("S3://bucket/a.mp4", "bucket", "a.mp4"),
        ("gs://bucket", "bucket", ""),
        ("az://container/folder/", "container", "folder/"),
        ("hf://datasets/name/set@v1/videos/a.mp4", "datasets/name/set@v1", "videos/a.mp4"),
        ("hf://name/model/a.mp4", "name/model", "a.mp4"),
    ],
)
def test_parts(text: str, container: str, key: str) -> None:
    location = Location.parse(text)
    assert (location.container, location.key, location.query) == (container, key, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ftp://host/a.mp4", "'ftp://host/a.mp4': the scheme ftp:// is not read"),
        ("http://host/a.mp4?signature=SECRET", "'http://host/a.mp4': the scheme http:// is not read"),
        ("https://host/a.mp4?signature=SECRET", "'https://host/a.mp4': files of web servers are read only with"),
        ("s3://KEY:SECRET@bucket/a.mp4", "'s3://bucket/a.mp4' has a user or password before '@'"),
        ("s3://bucket/a.mp4?X-Amz-Signature=SECRET", "'s3://bucket/a.mp4' has a query after '?'"),
        ("s3:///a.mp4", "names no bucket"),
        ("hf://datasets/name", "names no repository"),
        ("s3://bucket/a//b.mp4", "has an empty part"),
        ("s3://bucket/../b.mp4", "has an empty part"),
    ],
)
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(LocationError) as caught:
        Location.parse(text)
    assert problem in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_presigned_url_is_shown_without_its_signature() -> None:
    location = Location.parse("https://host:8443/a%20b.mp4?X-Amz-Signature=SECRET#part", allow_https=True)
    assert str(location) == "https://host:8443/a%20b.mp4"
    assert "SECRET" not in repr(location)
    assert location.query == "X-Amz-Signature=SECRET"


@pytest.mark.parametrize(
    ("text", "scheme", "shown"),
    [
        ("clips/a.mp4", "", "clips/a.mp4"),
        ("/data/s3://b?c", "", "/data/s3://b?c"),
        ("concat:a.mp4|b.mp4", "", "concat:a.mp4|b.mp4"),
        ("HTTPS://user:word@host/a?b#c", "https", "https://host/a"),
        ("s3://b/a#1@2.mp4", "s3", "s3://b/a#1@2.mp4"),
    ],
)
def test_text_without_secrets(text: str, scheme: str, shown: str) -> None:
    assert (scheme_of(text), without_secrets(text)) == (scheme, shown)
