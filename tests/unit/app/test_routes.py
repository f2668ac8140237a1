from __future__ import annotations

import asyncio
import json
import threading
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app import application
from app.bundle import ModelError
from app.service import Service
from app.settings import Settings

DIGITS = Path(__file__).parents[2] / "models" / "digits"
CASES = tomllib.loads((DIGITS / "model.toml").read_text("utf-8"))["golden"]
PATHS = ("/", "/score", "/version", "/healthz", "/readyz", "/metrics", "/openapi.json")
Score = Callable[[object], Any]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_cases_hold(client: TestClient, case: dict[str, Any]) -> None:
    """The model's own proof holds in process."""
    wanted = case["request"]
    body = (DIGITS / wanted["body"]).read_bytes()
    response = client.request(
        wanted["method"], wanted["path"], headers=wanted["headers"], content=body
    )
    assert response.status_code == case["expect"]["status"]
    for check in case["expect"]["json"]:
        value: Any = response.json()
        for key in check["at"].split("/")[1:]:
            value = value[int(key)] if isinstance(value, list) else value[key]
        assert value == check.get("equals", value)
        assert value == pytest.approx(check.get("near", value), abs=check.get("tolerance"))


def test_each_picture_gets_its_guesses(score: Score, picture: Callable[..., str]) -> None:
    """There are as many answers as pictures, each with its top three."""
    response = score({"input": [picture(), picture(mode="L", colour=200), "b'" + picture() + "'"]})
    ranked, words = response.json()["result"]
    assert [len(guesses) for guesses in ranked] == [3, 3, 3]
    assert ranked[0] == ranked[2]
    assert words.startswith("Computed in ")


def test_root_says_healthy(client: TestClient) -> None:
    """The root answers as the tutorial's service does."""
    assert client.get("/").text == "Healthy"


def test_version_tells_code_and_model(client: TestClient) -> None:
    """What is not known says so."""
    found = client.get("/version").json()
    assert (found["commit"], found["model"]["name"], found["model"]["version"]) == (
        "c0ffee",
        "digits",
        "1",
    )
    assert found["image"] == {"app": "unknown", "model": "unknown"}


def test_readiness_ends_with_a_stop(service: Service, client: TestClient) -> None:
    """A replica that was asked to stop is alive and still scores, but is not ready."""
    assert client.get("/readyz").status_code == 200
    service.stopping = True
    response = client.get("/readyz")
    assert (response.status_code, response.headers["Content-Type"]) == (
        503,
        "application/problem+json",
    )
    assert client.get("/healthz").status_code == 200
    assert client.get("/healthz").headers["Connection"] == "close"


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_every_answer_names_the_model(client: TestClient, path: str) -> None:
    """Answers and errors alike carry the digest of the model that serves."""
    digest = client.get("/version").json()["model"]["digest"]
    assert client.get(path).headers["X-Model-Digest"] == digest


@pytest.mark.parametrize(
    "path", ["/nowhere", "/a//score", "/score/", "/%00", "/%ff", "/" + "x" * 3000]
)
def test_unknown_paths_are_problems(client: TestClient, path: str) -> None:
    """A path is served as it is written, or is a 404 with a problem."""
    response = client.get(path)
    assert (response.status_code, response.headers["Content-Type"]) == (
        404,
        "application/problem+json",
    )


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_problems(client: TestClient, method: str) -> None:
    """Another method is a 405 that lists what is allowed."""
    response = client.request(method, "/score")
    assert (response.status_code, response.headers["Content-Type"], response.headers["Allow"]) == (
        405,
        "application/problem+json",
        "POST",
    )


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "json",
    ],
)
def test_other_media_types_are_problems(client: TestClient, kind: str | None) -> None:
    """Anything but JSON is a 415."""
    response = client.post(
        "/score", content=b"{}", headers={} if kind is None else {"Content-Type": kind}
    )
    assert (response.status_code, response.json()["title"]) == (415, "Unsupported Media Type")


def test_encoded_body_is_a_problem(client: TestClient) -> None:
    """A compressed body is refused by its header, not unfolded."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = client.post("/score", content=b"\x1f\x8b", headers=headers)
    assert response.status_code == 415


def test_parameters_of_the_media_type_are_allowed(
    client: TestClient, picture: Callable[..., str]
) -> None:
    """A charset after the media type does not matter."""
    body = json.dumps({"input": [picture()]}).encode()
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/score", content=body, headers=headers).status_code == 200


def test_large_body_is_a_problem(score: Score, settings: Settings) -> None:
    """A body over the limit is a 413 and not read."""
    assert score(b" " * (settings.max_body_bytes + 1)).status_code == 413


def test_body_at_the_limit_is_read(score: Score, settings: Settings) -> None:
    """The limit itself is allowed: what is wrong then is the content."""
    assert score(b" " * settings.max_body_bytes).status_code == 400


def test_bodies_that_take_too_much_memory_may_come_again(
    settings: Settings, picture: Callable[..., str]
) -> None:
    """Where other bodies fill the room, the client learns when to try again."""
    service = application.load(replace(settings, max_held_bytes=100_000))
    client = TestClient(application.create_app(service))
    headers = {"Content-Type": "application/json"}
    for _ in range(3):
        response = client.post("/score", content=b" " * 100_001, headers=headers)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert response.headers["Content-Type"] == "application/problem+json"
    for _ in range(3):
        assert client.post("/score", content=b" " * 100_000, headers=headers).status_code == 400
        assert client.post("/score", json={"input": [picture()]}).status_code == 200
    assert service.room.left == 100_000


def test_a_request_for_which_there_is_no_place_may_come_again(
    settings: Settings, picture: Callable[..., str]
) -> None:
    """Where as many requests wait as may, the next is refused; when they are done, it is scored."""
    service = application.load(replace(settings, slots=1, max_waiting=0))
    client = TestClient(application.create_app(service))
    begun = threading.Event()
    end = threading.Event()

    def work() -> None:
        begun.set()
        end.wait(30)

    with ThreadPoolExecutor(1) as other:
        busy = other.submit(lambda: asyncio.run(service.workers.run(work, asyncio.Event().wait)))
        assert begun.wait(30)
        response = client.post("/score", json={"input": [picture()]})
        end.set()
        busy.result()
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert client.post("/score", json={"input": [picture()]}).status_code == 200


def test_a_body_without_a_length_is_read_to_its_end(
    client: TestClient, picture: Callable[..., str], settings: Settings
) -> None:
    """A body in chunks ends where the server says, and has the same limit."""
    whole = json.dumps({"input": [picture()]}).encode()
    headers = {"Content-Type": "application/json"}
    for body, status in ((whole, 200), (whole.ljust(settings.max_body_bytes + 1), 413), (b"", 400)):
        assert client.post("/score", content=_pieces(body), headers=headers).status_code == status


def _pieces(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), 1000):
        yield body[at : at + 1000]


def test_too_many_pictures_are_a_problem(
    score: Score, picture: Callable[..., str], settings: Settings
) -> None:
    """One picture more than allowed is a 413 that names the list."""
    response = score({"input": [picture()] * (settings.max_pictures + 1)})
    assert (response.status_code, response.json()["field"]) == (413, "input")


def test_too_many_pixels_are_a_problem(score: Score, picture: Callable[..., str]) -> None:
    """Pixels are counted over the whole request; the picture that goes over is named."""
    response = score({"input": [picture((80, 80)), picture((80, 80))]})
    assert (response.status_code, response.json()["field"]) == (413, "input/1")


@pytest.mark.parametrize("text", ["%%%", "aGVsbG8=", "b''", "iVBORw0KGgo="])
def test_bad_picture_is_named(score: Score, picture: Callable[..., str], text: str) -> None:
    """A picture that cannot be read is a 400 that names it."""
    response = score({"input": [picture(), text]})
    assert (response.status_code, response.headers["Content-Type"]) == (
        400,
        "application/problem+json",
    )
    assert response.json()["field"] == "input/1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("iVBORw0KGgo="),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.just("input"), inner, max_size=4)
    ),
    max_leaves=8,
)
bodies = (
    st.binary(max_size=300)
    | json_values.map(lambda value: json.dumps(value).encode())
    | json_values.map(lambda value: json.dumps({"input": value}).encode())
    | json_values.map(lambda value: json.dumps({"input": json.dumps(value)}).encode())
)


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300
)
@given(body=bodies)
def test_no_body_is_a_server_error(score: Score, body: bytes) -> None:
    """Whatever is posted, the answer is a score or a problem of the caller's."""
    response = score(body)
    assert response.status_code in (200, 400, 413)
    if response.status_code != 200:
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem.keys() <= {"type", "title", "status", "detail", "field"}


def test_unforeseen_error_is_a_problem_without_details(
    client: TestClient,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of the application is a 500 that says nothing of the inside; the log does."""

    def fail() -> bytes:
        raise RuntimeError("secret path")

    monkeypatch.setattr(service.telemetry, "text", fail)
    response = client.get("/metrics")
    assert (response.status_code, response.headers["Content-Type"]) == (
        500,
        "application/problem+json",
    )
    assert response.headers["X-Model-Digest"] == service.bundle.digest
    assert "secret" not in response.text
    assert "secret path" in caplog.text


def test_metrics_count_requests_and_pictures(
    client: TestClient, score: Score, picture: Callable[..., str]
) -> None:
    """Prometheus sees what was answered, with unknown paths and methods in one series."""
    score({"input": [picture()] * 2})
    client.get("/one")
    client.request("BREW", "/two")
    text = client.get("/metrics").text
    assert 'app_requests_total{method="POST",path="/score",status="200"} 1.0' in text
    assert 'app_requests_total{method="GET",path="other",status="404"} 1.0' in text
    assert 'app_requests_total{method="other",path="other",status="404"} 1.0' in text
    assert "app_pictures_total 2.0" in text
    assert "app_requests_running 1.0" in text
    assert 'app_model_info{digest="sha256:' in text


def test_access_log_is_a_line_of_json(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """If configured, each request writes one line, whatever its path holds."""
    service = application.load(replace(settings, access_log=True))
    TestClient(application.create_app(service)).get('/a"%0ab')
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["status"] == 404
    assert json.loads(line)["path"] == '/a"\nb'


def test_bad_model_raises(tmp_path: Path) -> None:
    """A caller in Python gets the error itself."""
    with pytest.raises(ModelError):
        application.load(Settings(model_dir=tmp_path))
