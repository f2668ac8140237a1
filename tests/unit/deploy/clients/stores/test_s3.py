"""The login of S3, and what its refusals mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.clients.stores.protocol import open_store
from deploy.clients.stores.s3 import explain, is_plain, is_s3_location, require_usable
from deploy.errors import SettingsInvalid

KEYS = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "hunter2"}


@pytest.mark.parametrize(
    "location",
    [
        "s3://bucket/prefix",
        "s3a://bucket",
        "https://s3.eu-west-1.amazonaws.com/bucket",
        "https://bucket.s3.eu-west-1.amazonaws.com/prefix",
        "https://account.r2.cloudflarestorage.com/bucket",
    ],
)
def test_locations_in_s3(location: str) -> None:
    """Also the URLs that a console shows."""
    assert is_s3_location(location)


@pytest.mark.parametrize(
    "location", ["gs://bucket", "az://box", "https://amazonaws.com.example/bucket", "models"]
)
def test_locations_elsewhere(location: str) -> None:
    """A similar name is another host."""
    assert not is_s3_location(location)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        KEYS,
        {**KEYS, "AWS_PROFILE": "work"},
        {"AWS_PROFILE": "work", "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token"},
        {"AWS_PROFILE": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1"},
    ],
)
def test_logins_that_the_library_finds(environ: dict[str, str]) -> None:
    """Keys come first; without any it asks for the identity of the instance."""
    require_usable("s3://bucket", environ)


def refusal_of(environ: dict[str, str]) -> SettingsInvalid:
    """Return the error of variables; it shows none of their values."""
    with pytest.raises(SettingsInvalid) as caught:
        require_usable("s3://bucket", environ)
    assert "hunter2" not in f"{caught.value}{caught.value.next}"
    return caught.value


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_a_key_that_is_missing_is_told(missing: str) -> None:
    """Half a login is none."""
    error = refusal_of({name: key for name, key in KEYS.items() if name != missing})
    assert error.what == f"the environment variable {missing} is not set"


@pytest.mark.parametrize("name", [*KEYS, "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize(
    ("value", "words"), [("", "is empty"), ("hunter2\n", "line break"), ("schlüssel", "alphabet")]
)
def test_a_value_that_cannot_be_sent_is_told(name: str, value: str, words: str) -> None:
    """A CI system sets the variable of a missing secret to nothing; a file has a line break."""
    error = refusal_of({**KEYS, name: value})
    assert name in error.what
    assert words in error.what


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
@pytest.mark.parametrize("value", ["minio:9000", "minio", "https://", "https://minio:99999"])
def test_an_endpoint_that_is_no_url_is_told(name: str, value: str) -> None:
    """The library ends the process there."""
    error = refusal_of({**KEYS, name: value})
    assert error.what == f"the environment variable {name} is no URL"
    assert "https://HOST:PORT" in error.next


def test_a_profile_is_told_to_become_keys() -> None:
    """The library reads none; without this it would ask for another identity."""
    error = refusal_of({"AWS_PROFILE": "work"})
    assert "AWS_PROFILE" in error.what
    assert "aws configure export-credentials --profile work --format env" in error.next


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"AWS_ENDPOINT_URL": "https://minio.example"}, False),
        ({"AWS_ENDPOINT_URL": "HTTP://127.0.0.1:9000"}, True),
        ({"AWS_ENDPOINT_URL_S3": "https://a", "AWS_ENDPOINT_URL": "http://b"}, False),
        ({"AWS_ENDPOINT": "http://b"}, True),
    ],
)
def test_a_plain_endpoint_is_one_that_says_so(environ: dict[str, str], expected: bool) -> None:
    """Connections are without TLS for no other reason."""
    assert is_plain(environ) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("status code: 403 Forbidden: <Code>AccessDenied</Code>", "s3:ListBucket"),
        ("status code: 403 Forbidden:", "s3:ListBucket"),
        ("status code: 400: <Code>ExpiredToken</Code>", "AWS_SESSION_TOKEN has expired"),
        ("status code: 403: <Code>RequestTimeTooSkewed</Code>", "clock"),
        ("status code: 403: <Code>InvalidAccessKeyId</Code>", "AWS_ACCESS_KEY_ID"),
        (
            "403: <Code>AccessDenied</Code> to perform: sts:AssumeRoleWithWebIdentity",
            "AWS_ROLE_ARN",
        ),
        ("Received redirect without LOCATION, this normally indicates", "AWS_REGION"),
        ("Error performing PUT http://169.254.169.254/latest/api/token in 1s", "set AWS_ACCESS"),
    ],
)
def test_what_refusals_mean(text: str, words: str) -> None:
    """By the service's code where there is one."""
    found = explain(OSError(text))
    assert found is not None
    assert words in found.next


def test_a_failing_service_is_not_explained() -> None:
    """It may work again soon."""
    assert explain(OSError("status code: 500 Internal Server Error: <Code>SlowDown</Code>")) is None


def test_half_a_login_is_refused_before_a_store_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is on the store, without what its URL may have."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ada")
    with pytest.raises(SettingsInvalid, match="AWS_SECRET_ACCESS_KEY is not set") as caught:
        open_store("s3://bucket/prefix?x=hunter2", tmp_path)
    assert caught.value.on == "s3://bucket/prefix"
