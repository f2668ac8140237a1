"""Golden cases: HTTP requests with the responses that a model must give.

They are part of the model and are stored at the start of its layer. A release can therefore be
checked again from the registry alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO, Any

from deploy.clients.http import Endpoint, HttpClient, NoResponse, Request
from deploy.errors import ManifestInvalid
from deploy.image import layer
from deploy.model import headers
from deploy.model.manifest import (
    MAX_MANIFEST_BYTES,
    ExpectedResponse,
    ExpectedValue,
    GoldenCase,
    ModelFile,
    ModelManifest,
)
from deploy.model.reading import parse_model_manifest
from deploy.records import CaseResult, Model, Verdict
from deploy.variables import NO_VARIABLES, Variables

MAX_RESPONSE_BYTES = 1 << 20
GRACE_SECONDS = 5.0
_MAX_SHOWN = 200
_MAX_PROBLEM = 1000
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class _Nothing:
    """The result of a JSON pointer that finds no value; null is a value."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()


@dataclass(frozen=True)
class GoldenSet:
    """The golden cases of one model.

    Attributes:
        cases: the cases.
        bodies: the bodies of their requests, by file path.
        variables: those that the headers of their requests may name, and that no result shows.
    """

    cases: tuple[GoldenCase, ...]
    bodies: Mapping[str, bytes]
    variables: Variables = NO_VARIABLES

    def with_variables(self, variables: Variables, tables: str) -> GoldenSet:
        """Return the same cases, whose headers get the values of variables when they are played.

        Args:
            variables: the variables.
            tables: the tables of the settings that have them.

        Raises:
            SettingsInvalid: a header names another variable, or would get a value that no header
                can have.
        """
        for case in self.cases:
            headers.fill(case, variables, tables)
        return replace(self, variables=variables)


Play = Callable[[GoldenSet, Endpoint], Verdict]
Hide = Callable[[str], str]


def read_golden_set(model: Model, stream: IO[bytes]) -> GoldenSet:
    """Read a model's golden cases from its layer, and no more of the stream than necessary.

    Raises:
        ManifestInvalid: the layer does not start with the model manifest of that model, or has
            other request bodies than its manifest says.
    """
    try:
        return _read_golden_set(model, layer.read_layer(stream))
    except (tarfile.TarError, StopIteration) as error:
        raise _damaged_layer_error(model) from error


def read_layer_manifest(model: Model, stream: IO[bytes]) -> ModelManifest:
    """Read the manifest of a model from the start of its layer.

    Raises:
        ManifestInvalid: the layer does not start with the model manifest of that model.
    """
    try:
        return _read_manifest(model, *next(layer.read_layer(stream)))
    except (tarfile.TarError, StopIteration) as error:
        raise _damaged_layer_error(model) from error


def _damaged_layer_error(model: Model) -> ManifestInvalid:
    return ManifestInvalid(
        "the layer ends before its golden cases, or is damaged",
        on=str(model),
        next="fetch the model again from its store",
    )


def _read_golden_set(model: Model, files: Iterator[tuple[PurePosixPath, IO[bytes]]]) -> GoldenSet:
    path, content = next(files)
    manifest = _read_manifest(model, path, content)
    paths = {case.request.body for case in manifest.golden}
    expected = {file.path: file for file in manifest.files if file.path in paths}
    bodies: dict[str, bytes] = {}
    while expected.keys() - bodies.keys():
        file, content = next(files)
        name = str(file).removeprefix(f"{path.parent}/")
        if name in expected:
            bodies[name] = _read_body(expected[name], content, model)
    return GoldenSet(manifest.golden, bodies)


def _read_manifest(model: Model, path: PurePosixPath, content: IO[bytes]) -> ModelManifest:
    manifest = parse_model_manifest(content.read(MAX_MANIFEST_BYTES + 1), on=str(path))
    if manifest.model != model:
        actual = f"{manifest.model} ({manifest.model.digest})"
        raise ManifestInvalid(
            f"the layer has the model {actual}, not {model} ({model.digest})",
            on=str(path),
            next="fetch the model again from its store",
        )
    return manifest


def _read_body(file: ModelFile, content: IO[bytes], model: Model) -> bytes:
    # One byte more than expected shows that a file is too long; the rest need not be read.
    data = content.read(file.size + 1)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ManifestInvalid(
            "a request body in the layer is not the one in the model manifest",
            on=f"{model}, {file.path}",
            next="fetch the model again from its store",
        )
    return data


def play(golden_set: GoldenSet, endpoint: Endpoint) -> Verdict:
    """Send each golden case to a server and compare the responses.

    A wrong or missing response is part of the verdict and not an error.

    Args:
        golden_set: the golden cases of a model.
        endpoint: the address of the server.

    Raises:
        ClusterError: the cluster did not let the requests through to the application.
    """
    with HttpClient(endpoint) as client:
        return Verdict(
            url=endpoint.url,
            cases=tuple(_play_case(client, case, golden_set) for case in golden_set.cases),
        )


def _play_case(client: HttpClient, case: GoldenCase, golden_set: GoldenSet) -> CaseResult:
    expected = case.expect
    try:
        response = client.send(_create_request(case, golden_set))
    except NoResponse as error:
        return _create_result(case, error.seconds, "", f"no response: {error}")
    milliseconds = response.seconds * 1000
    # A golden case can ask for what repeats the secrets of the application.
    hide = golden_set.variables.hide
    text, problem = compare_response(expected, response.status, response.content, hide)
    if problem and response.location:
        problem = f"{problem} (Location: {_shorten(hide(response.location))})"
    if not problem and milliseconds > expected.within_ms:
        problem = (
            f"expected a response within {expected.within_ms:.0f} ms, it took {milliseconds:.0f} ms"
        )
    return _create_result(case, response.seconds, text, problem)


def _create_request(case: GoldenCase, golden_set: GoldenSet) -> Request:
    request = case.request
    timeout = case.expect.within_ms / 1000 + GRACE_SECONDS
    body = golden_set.bodies[request.body] if request.body else None
    filled = headers.fill(case, golden_set.variables)
    return Request(request.path, timeout, MAX_RESPONSE_BYTES, request.method, filled, body)


def _create_result(case: GoldenCase, seconds: float, text: str, problem: str) -> CaseResult:
    return CaseResult(
        name=case.name, milliseconds=round(seconds * 1000, 1), answer=text, problem=problem
    )


def compare_response(
    expected: ExpectedResponse, status: int, content: bytes, hide: Hide = str
) -> tuple[str, str]:
    """Return the response in short, and how it differs from the expected one, if it does.

    Args:
        expected: the expected response.
        status: the HTTP status.
        content: the body.
        hide: returns text of the response without what must not be shown.
    """
    text = _show(content, hide)
    if status != expected.status:
        shown = f": {text}" if text else ""
        return text, f"expected status {expected.status}, got {status}{shown}"
    if expected.contains.encode() not in content:
        return text, f"expected {_shorten(repr(expected.contains))} in the response, got: {text}"
    return _compare_json(expected, content, hide) if expected.json_ else (text, "")


def _show(content: bytes, hide: Hide) -> str:
    """Return the head of a body; nothing of what is hidden may be left of what the head ends in."""
    return hide(content.decode("utf-8", "replace"))[:_MAX_SHOWN]


def _compare_json(expected: ExpectedResponse, content: bytes, hide: Hide) -> tuple[str, str]:
    try:
        document = json.loads(content)
        values = [value_at(document, item.at) for item in expected.json_]
        # A value that could just be read may be nested too deeply to be written.
        text = _shorten(hide(", ".join(map(str, values))))
        differences = (
            _describe_difference(item, value, hide)
            for item, value in zip(expected.json_, values, strict=True)
        )
        return text, _shorten("; ".join(filter(None, differences)), _MAX_PROBLEM)
    except (ValueError, RecursionError):
        return (text := _show(content, hide)), f"expected JSON, got: {text}"


def _describe_difference(expected: ExpectedValue, value: object, hide: Hide) -> str:
    if expected.near is None:
        is_expected = value == expected.equals and type(value) is type(expected.equals)
        text = _shorten(repr(expected.equals))
    else:
        is_expected = _is_near(value, expected.near, expected.tolerance)
        text = f"{expected.near} within {expected.tolerance}"
    at = _shorten(expected.at)
    return "" if is_expected else f"{at}: expected {text}, got {_shorten(hide(repr(value)))}"


def _is_near(value: object, near: float, tolerance: float) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return abs(value - near) <= tolerance
    except OverflowError:
        return False


def _shorten(text: str, limit: int = _MAX_SHOWN) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def value_at(document: Any, pointer: str) -> Any:  # noqa: ANN401 - JSON
    """Return the value at a JSON pointer, or NOTHING if there is none (RFC 6901, sections 4, 5)."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(key, NOTHING)
        elif isinstance(document, list) and _INDEX.fullmatch(key) and int(key) < len(document):
            document = document[int(key)]
        else:
            return NOTHING
    return document
