"""Golden cases: HTTP requests with the answers a model promises, and playing them against whatever serves.

They travel with the model, at the head of its layer, so that any release can be proven again from the registry alone.
"""

from __future__ import annotations

import json
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from deploy import layer, manifest
from deploy.entrance import Entrance
from deploy.errors import ManifestInvalid
from deploy.manifest import Expected, Golden
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
class Proof:
    """The golden cases of one model, with the bodies of their requests by file path."""

    cases: tuple[Golden, ...]
    bodies: Mapping[str, bytes]


Play = Callable[[Proof, Entrance], Verdict]


def proof(model: Model, stream: IO[bytes]) -> Proof:
    """Reads a model's golden cases from its layer; no more of the stream is read than that takes.

    Raises:
        ManifestInvalid: the layer does not start with the manifest of that model.
    """
    try:
        return _proof(model, layer.read(stream))
    except (tarfile.TarError, StopIteration) as error:
        raise ManifestInvalid(
            "the layer ends before its golden cases, or is damaged", on=str(model), next="fetch the model again from its store"
        ) from error


def _proof(model: Model, files: Iterator[tuple[PurePosixPath, IO[bytes]]]) -> Proof:
    path, content = next(files)
    text = content.read(manifest.MAX_BYTES + 1)
    found = manifest.published(text, on=str(path))
    if found.model != model:
        raise ManifestInvalid(
            f"the layer holds {found.model} ({found.model.digest}), not {model} ({model.digest})",
            on=str(path),
            next="fetch the model again from its store",
        )
    wanted = {case.request.body for case in found.golden if case.request.body}
    bodies: dict[str, bytes] = {}
    while wanted - bodies.keys():
        file, content = next(files)
        bodies[str(file).removeprefix(f"{path.parent}/")] = content.read()
    return Proof(found.golden, bodies)


def play(proof: Proof, entrance: Entrance) -> Verdict:
    """Sends every golden case to a server and compares the answers; never raises for a wrong or missing answer.

    Args:
        proof: the cases.
        entrance: where they are sent.
    """
    with entrance.session() as session:
        return Verdict(url=entrance.url, cases=tuple(_played(session, case, proof.bodies, entrance.url) for case in proof.cases))


def _played(session: Any, case: Golden, bodies: Mapping[str, bytes], url: str) -> Case:  # noqa: ANN401  requests is imported lazily
    import requests
    import urllib3

    request, expect = case.request, case.expect
    patience = expect.within_ms / 1000 + GRACE_SECONDS
    body = bodies[request.body] if request.body else None
    started = time.perf_counter()
    try:
        with session.request(
            request.method, url + request.path, headers=request.headers, data=body, timeout=patience, stream=True, allow_redirects=False
        ) as response:
            status, content = response.status_code, _content(response.raw, started + patience)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        return _case(case, started, "", f"no answer: {type(error).__name__}")
    answer, problem = _judged(case, status, content)
    taken = (time.perf_counter() - started) * 1000
    if not problem and taken > expect.within_ms:
        problem = f"expected an answer within {expect.within_ms:.0f} ms, it took {taken:.0f} ms"
    return _case(case, started, answer, problem)


def _content(raw: Any, deadline: float) -> bytes:  # noqa: ANN401  requests is imported lazily
    """The answer's bytes, the first MAX_ANSWER of them; a timeout for each read alone would let a trickle last for ever."""
    content = b""
    while len(content) < MAX_ANSWER and (piece := raw.read1(MAX_ANSWER - len(content), decode_content=True)):
        content += piece
        if time.perf_counter() > deadline:
            raise TimeoutError
    return content


def _case(case: Golden, started: float, answer: str, problem: str) -> Case:
    return Case(name=case.name, milliseconds=round((time.perf_counter() - started) * 1000, 1), answer=answer, problem=problem)


def _judged(case: Golden, status: int, content: bytes) -> tuple[str, str]:
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


def _difference(expected: Expected, value: object) -> str:
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


def value_at(document: Any, pointer: str) -> Any:  # noqa: ANN401  JSON
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
