"""Golden cases: HTTP requests with the answers a model promises, and playing them against whatever serves.

They travel with the model, at the head of its layer, so that any release can be proven again from the registry alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from deploy.clients.http import Endpoint, HttpClient, NoResponse, Request
from deploy.errors import ManifestInvalid
from deploy.image import layer
from deploy.model import manifest
from deploy.model.manifest import ExpectedValue, GoldenCase, ModelFile
from deploy.records import Case, Model, Verdict

MAX_ANSWER = 1 << 20
GRACE_SECONDS = 5.0
_ANSWER_SHOWN = 200
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class _Nothing:
    """What is found where a JSON pointer leads nowhere; not null, which is a value."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()


@dataclass(frozen=True)
class GoldenSet:
    """The golden cases of one model, with the bodies of their requests by file path."""

    cases: tuple[GoldenCase, ...]
    bodies: Mapping[str, bytes]


Play = Callable[[GoldenSet, Endpoint], Verdict]


def read_golden_set(model: Model, stream: IO[bytes]) -> GoldenSet:
    """Reads a model's golden cases from its layer; no more of the stream is read than that takes.

    Raises:
        ManifestInvalid: the layer does not start with the manifest of that model, or holds other requests than that describes.
    """
    try:
        return _proof(model, layer.read(stream))
    except (tarfile.TarError, StopIteration) as error:
        raise ManifestInvalid(
            "the layer ends before its golden cases, or is damaged",
            on=str(model),
            next="fetch the model again from its store",
        ) from error


def _proof(model: Model, files: Iterator[tuple[PurePosixPath, IO[bytes]]]) -> GoldenSet:
    path, content = next(files)
    text = content.read(manifest.MAX_BYTES + 1)
    found = manifest.parse_manifest(text, on=str(path))
    if found.model != model:
        raise ManifestInvalid(
            f"the layer holds {found.model} ({found.model.digest}), not {model} ({model.digest})",
            on=str(path),
            next="fetch the model again from its store",
        )
    wanted = {case.request.body for case in found.golden}
    listed = {file.path: file for file in found.files if file.path in wanted}
    bodies: dict[str, bytes] = {}
    while listed.keys() - bodies.keys():
        file, content = next(files)
        name = str(file).removeprefix(f"{path.parent}/")
        if name in listed:
            bodies[name] = _body(listed[name], content, model)
    return GoldenSet(found.golden, bodies)


def _body(listed: ModelFile, content: IO[bytes], model: Model) -> bytes:
    """A request's bytes; of a file that is longer than it should be, one byte more is read than that."""
    data = content.read(listed.size + 1)
    if hashlib.sha256(data).hexdigest() != listed.sha256:
        raise ManifestInvalid(
            "a request in the layer is not the one that its manifest describes",
            on=f"{model}, {listed.path}",
            next="fetch the model again from its store",
        )
    return data


def play(proof: GoldenSet, endpoint: Endpoint) -> Verdict:
    """Sends every golden case to a server and compares the answers; a wrong or missing one is part of the verdict.

    Args:
        proof: the cases.
        endpoint: where they are sent.

    Raises:
        ClusterError: the application was not reached, for a reason of the cluster's.
    """
    with HttpClient(endpoint) as visit:
        return Verdict(
            url=endpoint.url,
            cases=tuple(_played(visit, case, proof.bodies) for case in proof.cases),
        )


def _played(visit: HttpClient, case: GoldenCase, bodies: Mapping[str, bytes]) -> Case:
    request = case.request
    expect = case.expect
    body = bodies[request.body] if request.body else None
    patience = expect.within_ms / 1000 + GRACE_SECONDS
    try:
        reply = visit.send(
            Request(request.path, patience, MAX_ANSWER, request.method, request.headers, body)
        )
    except NoResponse as silence:
        return _case(case, silence.seconds, "", f"no answer: {silence}")
    answer, problem = _judged(case, reply.status, reply.content)
    if not problem and reply.seconds * 1000 > expect.within_ms:
        problem = f"expected an answer within {expect.within_ms:.0f} ms, it took {reply.seconds * 1000:.0f} ms"
    return _case(case, reply.seconds, answer, problem)


def _case(case: GoldenCase, seconds: float, answer: str, problem: str) -> Case:
    return Case(
        name=case.name, milliseconds=round(seconds * 1000, 1), answer=answer, problem=problem
    )


def _judged(case: GoldenCase, status: int, content: bytes) -> tuple[str, str]:
    """The answer in short, and what is wrong with it (empty if nothing is)."""
    shown = content[:_ANSWER_SHOWN].decode("utf-8", "replace")
    if status != case.expect.status:
        return shown, f"expected status {case.expect.status}, got {status}: {shown}"
    if case.expect.contains.encode() not in content:
        return shown, f"expected {case.expect.contains!r} in the answer, got: {shown}"
    if not case.expect.json_:
        return shown, ""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return shown, f"expected JSON, got: {shown}"
    values = [(expected, value_at(document, expected.at)) for expected in case.expect.json_]
    problems = [problem for expected, value in values if (problem := _difference(expected, value))]
    return _short(", ".join(str(value) for _, value in values)), "; ".join(problems)


def _difference(expected: ExpectedValue, value: object) -> str:
    if expected.near is None:
        hit = value == expected.equals and type(value) is type(expected.equals)
        promised = repr(expected.equals)
    else:
        hit = _is_near(value, expected.near, expected.tolerance)
        promised = f"{expected.near} within {expected.tolerance}"
    return "" if hit else f"{expected.at}: expected {promised}, got {_short(repr(value))}"


def _is_near(value: object, near: float, tolerance: float) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return abs(value - near) <= tolerance
    except OverflowError:
        return False


def _short(text: str) -> str:
    return text if len(text) <= _ANSWER_SHOWN else f"{text[:_ANSWER_SHOWN]}..."


def value_at(document: Any, pointer: str) -> Any:  # noqa: ANN401 - JSON
    """What a JSON pointer leads to, or NOTHING where it leads nowhere (RFC 6901, sections 4 and 5)."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(key, NOTHING)
        elif isinstance(document, list) and _INDEX.fullmatch(key) and int(key) < len(document):
            document = document[int(key)]
        else:
            return NOTHING
    return document
