from __future__ import annotations

import pytest

from mixstream.errors import RemoteError
from mixstream.streams.remote.credentials import s3_credentials
from mixstream.streams.remote.environment import Place, client_options, place_of
from mixstream.streams.remote.urls import Root

S3 = Root("s3", "bucket")


def never(url):
    return False


def always(url):
    return True


def test_without_an_endpoint_it_is_amazon_encrypted():
    place = place_of(S3, {})
    assert "endpoint" not in place.config
    options = client_options(place, 15.0, {}, never)
    assert options["allow_http"] is False
    assert options["proxy_excludes"].split(",")[:2] == ["amazonaws.com", "amazonaws.com.cn"]
    assert "169.254.169.254" in options["proxy_excludes"]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "S3_ENDPOINT_URL"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_endpoint_decides_whether_it_is_encrypted(name, scheme):
    place = place_of(S3, {name: f"{scheme}://minio.example:9000/"})
    assert place.config["endpoint"] == place.config["aws_endpoint_url_s3"] == f"{scheme}://minio.example:9000"
    assert place.hosts[0] == "minio.example"
    assert client_options(place, 15.0, {}, never)["allow_http"] is (scheme == "http")


def test_the_endpoint_of_s3_goes_before_that_of_all_of_aws():
    environ = {"AWS_ENDPOINT_URL": "https://all.example", "AWS_ENDPOINT_URL_S3": "https://s3.example"}
    assert place_of(S3, environ).hosts[0] == "s3.example"


def test_virtual_hosts():
    """obstore wants the bucket in the endpoint then; users write the server's."""
    environ = {"AWS_ENDPOINT_URL": "https://oss.example", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}
    assert place_of(S3, environ).config["endpoint"] == "https://bucket.oss.example"
    environ["AWS_ENDPOINT_URL"] = "https://bucket.oss.example"
    assert place_of(S3, environ).config["endpoint"] == "https://bucket.oss.example"


def test_the_region():
    assert place_of(S3, {"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}).config["region"] == "a"
    assert place_of(S3, {"AWS_DEFAULT_REGION": "b"}).config["region"] == "b"


@pytest.mark.parametrize("endpoint", ["minio:9000", "ftp://x", "https://", "https://me:pw@host", "https://host:x"])
def test_an_endpoint_that_is_no_url_is_refused_without_repeating_it(endpoint):
    with pytest.raises(RemoteError, match="AWS_ENDPOINT_URL is no URL of a server") as refused:
        place_of(S3, {"AWS_ENDPOINT_URL": endpoint})
    assert "pw" not in str(refused.value)


def test_google():
    assert place_of(Root("gs", "b"), {}).hosts[0] == "storage.googleapis.com"
    assert place_of(Root("gs", "b"), {"GOOGLE_BASE_URL": "http://127.0.0.1:1"}).endpoint == "http://127.0.0.1:1"


def test_azure_needs_an_account():
    with pytest.raises(RemoteError, match="which account.*AZURE_STORAGE_ACCOUNT_NAME"):
        place_of(Root("az", "c"), {})
    assert place_of(Root("az", "c"), {"AZURE_STORAGE_ACCOUNT_NAME": "me"}).hosts[0] == "me.blob.core.windows.net"
    named = place_of(Root("az", "c", "you"), {"AZURE_STORAGE_ACCOUNT_NAME": "me"})
    assert named.config == {"account_name": "you"}
    assert named.hosts[0] == "you.blob.core.windows.net"
    assert place_of(Root("az", "c"), {"AZURE_STORAGE_USE_EMULATOR": "true"}).hosts[0] == "127.0.0.1"


def test_redirects_through_a_proxy_cannot_be_refused_so_that_it_is_asked_for():
    place = place_of(S3, {"AWS_ENDPOINT_URL": "https://minio.example"})
    with pytest.raises(RemoteError, match=r"minio.example: .*MIXSTREAM_ALLOW_REDIRECTS=1.*NO_PROXY"):
        client_options(place, 15.0, {}, always)
    assert "proxy_url" not in client_options(place, 15.0, {"MIXSTREAM_ALLOW_REDIRECTS": "1"}, always)
    loopback = Place({}, "http://127.0.0.1:1", ("127.0.0.1",))
    assert client_options(loopback, 15.0, {}, always)["proxy_excludes"] == "127.0.0.1"


@pytest.fixture
def no_aws(monkeypatch, tmp_path):
    pytest.importorskip("obstore", reason="obstore is not installed; it needs Python 3.11")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    environ = {"AWS_SHARED_CREDENTIALS_FILE": tmp_path / "credentials", "AWS_CONFIG_FILE": tmp_path / "config"}
    for name, path in environ.items():
        monkeypatch.setenv(name, str(path))
    return tmp_path


def test_credentials_of_the_environment_go_before_profiles():
    assert s3_credentials({"AWS_ACCESS_KEY_ID": "x", "AWS_PROFILE": "y"}) is None
    assert s3_credentials({"AWS_SKIP_SIGNATURE": "true"}) is None


def test_profiles_are_read(no_aws, monkeypatch):
    (no_aws / "credentials").write_text(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = s\n"
        "[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = s\n"
    )
    (no_aws / "config").write_text("[profile other]\nregion = eu-south-2\n")
    assert s3_credentials({})()["access_key_id"] == "AKIADEFAULT"
    monkeypatch.setenv("AWS_PROFILE", "other")
    provider = s3_credentials({})
    assert provider()["access_key_id"] == "AKIAOTHER"
    assert provider.config == {"region": "eu-south-2"}
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(RemoteError, match="the profile cannot be used .*nobody.*AWS_PROFILE"):
        s3_credentials({})


def test_no_credentials_at_all_are_told(no_aws):
    with pytest.raises(RemoteError, match=r"no credentials in the environment.*AWS_SKIP_SIGNATURE=true"):
        s3_credentials({})
