from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import RemoteError
from mixstream.streams.remote.urls import Root, is_url, join_path, parse_url, redact, url_of

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("url", "root", "path"),
    [
        ("s3://bucket/a/b", Root("s3", "bucket"), "a/b"),
        ("s3://bucket", Root("s3", "bucket"), ""),
        ("s3://bucket/a%20b/", Root("s3", "bucket"), "a%20b"),
        ("gs://bucket/a", Root("gs", "bucket"), "a"),
        ("az://container/a", Root("az", "container"), "a"),
        ("https://acc.blob.core.windows.net/container/a/b", Root("az", "container", "acc"), "a/b"),
        ("https://host.example:8443/a%20b", Root("https", "host.example:8443"), "a b"),
        ("http://127.0.0.1:80/x", Root("http", "127.0.0.1:80"), "x"),
        ("http://[::1]:80/x", Root("http", "[::1]:80"), "x"),
        ("file:///data/a%20b", Root("file", ""), "data/a b"),
        ("sftp://me@host:2222/data", Root("sftp", "me@host:2222"), "data"),
        ("oci://bucket@space/data", Root("oci", "bucket@space"), "data"),
        ("hf://datasets/org/name", Root("hf", "datasets"), "org/name"),
        ("dbfs:/Volumes/a", Root("dbfs", ""), "Volumes/a"),
    ],
)
def test_what_a_url_names(url, root, path):
    assert is_url(url)
    assert parse_url(url, {}) == (root, path)
    assert parse_url(url_of(root, path), {}) == (root, path)


@given(
    st.sampled_from(
        [Root("s3", "b"), Root("az", "c", "acc"), Root("https", "h:1"), Root("file", ""), Root("dbfs", "")]
    ),
    st.lists(st.text(string.printable[:94].replace("/", "").replace("\\", "") + " éß語", min_size=1), min_size=1),
)
def test_urls_and_paths_go_both_ways(root, parts):
    """Whatever a key is called, as far as a URL can hold it."""
    path = "/".join(parts)
    try:
        assert join_path("", path) == path
        url = url_of(root, path)
        assert parse_url(url, {}) == (root, path)
    except RemoteError as problem:
        assert {".", ".."} & set(parts) or "query" in str(problem) or "no name once" in str(problem)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{SECRET}@bucket/x",
        f"https://me:{SECRET}@host/x",
        f"https://{SECRET}@host/x",
        f"https://me:{SECRET[:5]}/{SECRET}@host/x",
        f"sftp://me:{SECRET}@host/x",
        f"https://acc.blob.core.windows.net/c/x?sig={SECRET}",
        f"s3://bucket/x?X-Amz-Signature={SECRET}",
        f"https://host/x#{SECRET}",
        f"ftp://me:{SECRET}@host/x",
    ],
)
def test_urls_that_may_hold_a_secret_are_refused_without_repeating_it(url):
    with pytest.raises(RemoteError) as refused:
        parse_url(url, {})
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("htps://bucket/x", r"scheme htps: is not known; did you mean 'https'\?; known are s3, gs, az"),
        ("/data/x", "scheme none is not known"),
        ("s3://bucket/x?versionId=3", "query or a fragment"),
        ("https://me:pw@host/x", "user:password@.*into the environment"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("az://../x", "names no bucket"),
        ("https:///x", "names no server"),
        ("https://host:port/x", "names no server"),
        ("https://acc.blob.core.windows.net", "names no container"),
        ("file://host/x", "names another machine"),
        ("http://example.org/x", "without encryption.*MIXSTREAM_ALLOW_HTTP=1"),
        ("s3://bucket/a/../b", r"part '\.\.' could lead out"),
        ("s3://bucket/a//b", "part '' could lead out"),
        ("https://host/a/%2e%2e/b", r"part '\.\.' could lead out"),
        ("https://host/a%2Fb", "no name once %XX is undone"),
        ("https://host/%00", "could lead out"),
        ("s3://bucket/a\\..\\b", "backslash"),
        ("s3://bucket/a\n", "control character"),
    ],
)
def test_refused_urls(url, told):
    with pytest.raises(RemoteError, match=told):
        parse_url(url, {})


def test_plain_http_to_another_machine_can_be_allowed():
    assert parse_url("http://example.org/x", {"MIXSTREAM_ALLOW_HTTP": "1"})[0] == Root("http", "example.org")


@pytest.mark.parametrize("name", ["..", "a/../b", "/a", "a/", "a//b", ".", "a\\b", "a\0b", "a\nb"])
def test_names_never_climb(name):
    with pytest.raises(RemoteError, match="could lead out of it"):
        join_path("x", name)


def test_an_empty_name_is_no_name_below():
    with pytest.raises(RemoteError, match="could lead out"):
        join_path("x", "")


def test_redaction():
    environ = {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-south-2", "HF_TOKEN": "short"}
    text = f"GET https://me:pass@host/x?sig=abc&se=1 failed:\n <X>{SECRET}</X> in eu-south-2, short"
    assert redact(text, environ) == "GET https://***@host/x?*** failed: <X>***</X> in eu-south-2, short"
