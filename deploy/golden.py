"""Golden cases: HTTP requests with the answers a model promises, and playing them against whatever serves.

They travel with the model, at the head of its layer, so that any release can be proven again from the registry alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote

from deploy import layer, manifest
from deploy.errors import ManifestInvalid
from deploy.manifest import Expected, Golden
from deploy.records import Case, Model, Verdict

MAX_ANSWER = 1 << 20
_ANSWER_SHOWN = 200


@dataclass(frozen=True)
class Proof:
    """The golden cases of one model, with the bodies of their requests by file path."""

    cases: tuple[Golden, ...]
    bodies: Mapping[str, bytes]


def proof(model: Model, stream: IO[bytes]) -> Proof:
    """Reads a model's golden cases from its layer; no more of the stream is read than that takes.

    Raises:
        ManifestInvalid: the layer does not start with the manifest of that model.
    """
    files = layer.read(stream)
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
        path, content = next(files)
        bodies["/".join(path.parts[1:])] = content.read()
    return Proof(found.golden, bodies)


def play(proof: Proof, url: str) -> Verdict:
    """Sends every golden case to a server and compares the answers; never raises for a wrong or missing answer.

    Args:
        proof: the cases.
        url: scheme, host and port; the cases' paths are appended.
    """
    import requests

    with requests.Session() as session:
        session.trust_env = False
        return Verdict(url=url, cases=tuple(_played(session, case, proof.bodies, url) for case in proof.cases))


def _played(session: Any, case: Golden, bodies: Mapping[str, bytes], url: str) -> Case:  # noqa: ANN401  requests is imported lazily
    import requests

    request, expect = case.request, case.expect
    body = bodies[request.body] if request.body else None
    started = time.perf_counter()
    try:
        with session.request(
            request.method, url + request.path, headers=request.headers, data=body, timeout=expect.within_ms / 1000 + 5, stream=True
        ) as response:
            status, content = response.status_code, response.raw.read(MAX_ANSWER, decode_content=True)
    except (requests.RequestException, OSError) as error:
        return _case(case, started, "", f"no answer: {type(error).__name__}")
    answer, problem = _judged(case, status, content)
    taken = (time.perf_counter() - started) * 1000
    if not problem and taken > expect.within_ms:
        problem = f"expected an answer within {expect.within_ms:.0f} ms, it took {taken:.0f} ms"
    return _case(case, started, answer, problem)


def _case(case: Golden, started: float, answer: str, problem: str) -> Case:
    return Case(name=case.name, milliseconds=round((time.perf_counter() - started) * 1000, 1), answer=answer, problem=problem)


def _judged(case: Golden, status: int, content: bytes) -> tuple[str, str]:
    """The answer in short, and what is wrong with it (empty if nothing is)."""
    shown = content[:_ANSWER_SHOWN].decode("utf-8", "replace")
    if status != case.expect.status:
        return shown, f"expected status {case.expect.status}, got {status}: {shown}"
    if not case.expect.json_:
        return shown, ""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return shown, f"expected JSON, got: {shown}"
    values = [(expected, value_at(document, expected.at)) for expected in case.expect.json_]
    problems = [problem for expected, value in values if (problem := _difference(expected, value))]
    return ", ".join(str(value) for _, value in values), "; ".join(problems)


def _difference(expected: Expected, value: object) -> str:
    if expected.near is None:
        return (
            ""
            if value == expected.equals and type(value) is type(expected.equals)
            else f"{expected.at}: expected {expected.equals!r}, got {value!r}"
        )
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value) and abs(value - expected.near) <= expected.tolerance:  # type: ignore[operator,arg-type]
        return ""
    return f"{expected.at}: expected {expected.near} within {expected.tolerance}, got {value!r}"


def value_at(document: Any, pointer: str) -> Any:  # noqa: ANN401  JSON
    """What a JSON pointer leads to, or None where it leads nowhere (RFC 6901, section 4)."""
    for token in pointer.split("/")[1:]:
        key = unquote(token).replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(key)
        elif isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        else:
            return None
    return document
