from __future__ import annotations

import io
import json
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app import create_app
from app.bundle import ModelError
from app.settings import Settings
from app.turns import Turns

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient

DIGITS = Path(__file__).parents[2] / "models" / "digits"
CASES = tomllib.loads((DIGITS / "model.toml").read_text("utf-8"))["golden"]
PATHS = ("/", "/score", "/version", "/healthz", "/readyz", "/metrics", "/openapi.json")
Score = Callable[[object], Any]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_cases_hold(client: FlaskClient, case: dict[str, Any]) -> None:
    """The model's own proof holds in process."""
    wanted = case["request"]
    response = client.open(
        wanted["path"],
        method=wanted["method"],
        headers=wanted["headers"],
        data=(DIGITS / wanted["body"]).read_bytes(),
    )
    assert response.status_code == case["expect"]["status"]
    for check in case["expect"]["json"]:
        value: Any = response.get_json()
        for key in check["at"].split("/")[1:]:
            value = value[int(key)] if isinstance(value, list) else value[key]
        assert value == check.get("equals", value)
        assert value == pytest.approx(check.get("near", value), abs=check.get("tolerance"))


def test_each_picture_gets_its_guesses(score: Score, picture: Callable[..., str]) -> None:
    """There are as many answers as pictures, each with its top three."""
    response = score({"input": [picture(), picture(mode="L", colour=200), "b'" + picture() + "'"]})
    ranked, words = response.get_json()["result"]
    assert [len(guesses) for guesses in ranked] == [3, 3, 3]
    assert ranked[0] == ranked[2]
    assert words.startswith("Computed in ")


def test_root_says_healthy(client: FlaskClient) -> None:
    """The root answers as the tutorial's service does."""
    assert client.get("/").text == "Healthy"


def test_version_tells_code_and_model(client: FlaskClient) -> None:
    """What is known is told, what is not says so."""
    told = client.get("/version").get_json()
    assert (told["commit"], told["model"]["name"], told["model"]["version"]) == (
        "c0ffee",
        "digits",
        "1",
    )
    assert told["image"] == {"app": "unknown", "model": "unknown"}


def test_readiness_ends_with_a_stop(application: Flask, client: FlaskClient) -> None:
    """A replica that was asked to stop is alive and still scores, but is not ready."""
    assert client.get("/readyz").status_code == 200
    application.extensions["service"].stopping.set()
    response = client.get("/readyz")
    assert (response.status_code, response.content_type) == (503, "application/problem+json")
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_every_answer_names_the_model(client: FlaskClient, path: str) -> None:
    """Answers and errors alike carry the digest of the model that serves."""
    digest = client.get("/version").get_json()["model"]["digest"]
    assert client.get(path).headers["X-Model-Digest"] == digest


@pytest.mark.parametrize(
    "path", ["/nowhere", "/a//score", "/score/", "/%00", "/%ff", "/a/../score", "/" + "x" * 3000]
)
def test_unknown_paths_are_problems(client: FlaskClient, path: str) -> None:
    """A path is served as it is written, or is a 404 with a problem."""
    response = client.get(path)
    assert (response.status_code, response.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_problems(client: FlaskClient, method: str) -> None:
    """Another method is a 405 that lists what is allowed."""
    response = client.open("/score", method=method)
    assert (response.status_code, response.content_type, response.headers["Allow"]) == (
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
def test_other_media_types_are_problems(client: FlaskClient, kind: str | None) -> None:
    """Anything but JSON is a 415."""
    response = client.post("/score", data=b"{}", content_type=kind)
    assert (response.status_code, response.get_json(force=True)["title"]) == (
        415,
        "Unsupported Media Type",
    )


def test_encoded_body_is_a_problem(client: FlaskClient) -> None:
    """A compressed body is refused by its header, not unfolded."""
    response = client.post(
        "/score",
        data=b"\x1f\x8b",
        content_type="application/json",
        headers={"Content-Encoding": "gzip"},
    )
    assert response.status_code == 415


def test_parameters_of_the_media_type_are_allowed(
    client: FlaskClient, picture: Callable[..., str]
) -> None:
    """A charset beside the media type does not matter."""
    body = json.dumps({"input": [picture()]})
    assert (
        client.post("/score", data=body, content_type="Application/JSON; charset=utf-8").status_code
        == 200
    )


def test_large_body_is_a_problem(score: Score, settings: Settings) -> None:
    """A body over the limit is a 413 and not read."""
    assert score(b" " * (settings.max_body_bytes + 1)).status_code == 413


def test_body_at_the_limit_is_read(score: Score, settings: Settings) -> None:
    """The limit itself is allowed: what is wrong then is the content."""
    assert score(b" " * settings.max_body_bytes).status_code == 400


def test_bodies_that_take_too_much_memory_may_come_again(
    settings: Settings, picture: Callable[..., str]
) -> None:
    """Where other bodies fill the room, one is told when to come again; its own room is free again at once."""
    application = create_app(replace(settings, max_held_bytes=100_000))
    client = application.test_client()
    for _ in range(3):
        response = client.post("/score", data=b" " * 100_001, content_type="application/json")
        assert (response.status_code, response.headers["Retry-After"], response.content_type) == (
            503,
            "1",
            "application/problem+json",
        )
    for _ in range(3):
        assert (
            client.post("/score", data=b" " * 100_000, content_type="application/json").status_code
            == 400
        )
        assert client.post("/score", json={"input": [picture()]}).status_code == 200
    with application.extensions["service"].room.share() as share:
        assert share.take(100_000)


@pytest.mark.parametrize(
    ("threads", "slots", "most"), [(1, 0, 1), (2, 4, 1), (8, 2, 4), (9, 64, 4)]
)
def test_only_half_of_the_threads_score_or_wait_to(
    settings: Settings, picture: Callable[..., str], threads: int, slots: int, most: int
) -> None:
    """A request that would keep one thread more from the others is told when to come again; when one is done, it is scored."""
    application = create_app(replace(settings, threads=threads, slots=slots))
    turns: Turns = application.extensions["service"].turns

    def post() -> Any:
        return application.test_client().post("/score", json={"input": [picture()]})

    with ThreadPoolExecutor(most) as others, ExitStack() as held:
        for _ in range(min(slots or 1, most)):
            held.enter_context(turns.turn(lambda: False))
        waiting = [others.submit(post) for _ in range(most - min(slots or 1, most))]
        deadline = time.monotonic() + 30
        while len(turns._waiting) < len(waiting):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # The other threads take their places a moment later.
        response = post()
        assert (response.status_code, response.headers["Retry-After"], response.content_type) == (
            503,
            "1",
            "application/problem+json",
        )
        held.close()
        assert all(each.result().status_code == 200 for each in waiting)
    assert post().status_code == 200


def test_a_body_without_a_length_is_read_to_its_end(
    client: FlaskClient, picture: Callable[..., str], settings: Settings
) -> None:
    """A body in chunks ends where the server says, and is held to the same limit."""
    whole = json.dumps({"input": [picture()]}).encode()
    for body, status in ((whole, 200), (whole.ljust(settings.max_body_bytes + 1), 413), (b"", 400)):
        stream = {
            "wsgi.input": io.BytesIO(body),
            "wsgi.input_terminated": True,
            "CONTENT_TYPE": "application/json",
        }
        assert (
            client.post("/score", environ_overrides=stream, content_length=None).status_code
            == status
        )


def test_too_many_pictures_are_a_problem(
    score: Score, picture: Callable[..., str], settings: Settings
) -> None:
    """One picture more than allowed is a 413 that names the list."""
    response = score({"input": [picture()] * (settings.max_pictures + 1)})
    assert (response.status_code, response.get_json(force=True)["field"]) == (413, "input")


def test_too_many_pixels_are_a_problem(score: Score, picture: Callable[..., str]) -> None:
    """Pixels are counted over the whole request; the picture that goes over is named."""
    response = score({"input": [picture((80, 80)), picture((80, 80))]})
    assert (response.status_code, response.get_json(force=True)["field"]) == (413, "input/1")


@pytest.mark.parametrize("text", ["%%%", "aGVsbG8=", "b''", "iVBORw0KGgo="])
def test_bad_picture_is_named(score: Score, picture: Callable[..., str], text: str) -> None:
    """A picture that cannot be read is a 400 that names it."""
    response = score({"input": [picture(), text]})
    assert (response.status_code, response.content_type) == (400, "application/problem+json")
    assert response.get_json(force=True)["field"] == "input/1"


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
        problem = response.get_json(force=True)
        assert problem["status"] == response.status_code
        assert problem.keys() <= {"type", "title", "status", "detail", "field"}


def test_unforeseen_error_is_a_problem_without_details(
    application: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is a 500 that says nothing of the inside; the log does."""

    def fail() -> str:
        raise RuntimeError("secret path")

    application.add_url_rule("/fails", view_func=fail)
    response = client.get("/fails")
    assert (response.status_code, response.content_type) == (500, "application/problem+json")
    assert "secret" not in response.text
    assert "secret path" in caplog.text


def test_metrics_count_requests_and_pictures(
    client: FlaskClient, score: Score, picture: Callable[..., str]
) -> None:
    """Prometheus sees what was answered, with unknown paths and methods in one series."""
    score({"input": [picture()] * 2})
    client.get("/one")
    client.open("/two", method="BREW")
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
    """If asked for, each request writes one line, whatever its path holds."""
    create_app(replace(settings, access_log=True)).test_client().get('/a"\n%0ab')
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["status"] == 404


def test_bad_model_raises_with_given_settings(tmp_path: Path) -> None:
    """A caller in Python gets the error itself."""
    with pytest.raises(ModelError):
        create_app(Settings(model_dir=tmp_path))


def test_bad_model_ends_the_process_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server gets an exit code of its own and one line for the log."""
    monkeypatch.setenv("APP_MODEL_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        create_app()
    assert caught.value.code == 3
    assert (
        capsys.readouterr().err
        == f"app: bad model: {tmp_path}/manifest.json: expected a file, found No such file or directory\n"
    )
