"""Malformed requests, as attackers and faulty clients send them."""

from __future__ import annotations

from tests.e2e.wire import request

JSON = ("Content-Type", "application/json")
HOST = ("Host", "localhost")
CLOSE = ("Connection", "close")
HEAD = [HOST, JSON, CLOSE]
BODY = b'{"input":["AAAA"]}'
LENGTH = ("Content-Length", str(len(BODY)))
CHUNKED = ("Transfer-Encoding", "chunked")
POST = "POST /score HTTP/1.1"
GET = "GET / HTTP/1.1"
MALFORMED: dict[str, bytes] = {
    "no length": request(POST, HEAD),
    "a negative length": request(POST, [*HEAD, ("Content-Length", "-1")], BODY),
    "two lengths": request(POST, [*HEAD, LENGTH, ("Content-Length", "3")], BODY),
    "a length with a sign": request(POST, [*HEAD, ("Content-Length", "+18")], BODY),
    "a length with a unit": request(POST, [*HEAD, ("Content-Length", "18 bytes")], BODY),
    "a length beyond numbers": request(POST, [*HEAD, ("Content-Length", "9" * 5000)], BODY),
    "a length that is too short": request(POST, [*HEAD, ("Content-Length", "5")], BODY),
    "a length that is too long": request(POST, [*HEAD, ("Content-Length", "500")], BODY),
    "a length and chunks": request(POST, [*HEAD, LENGTH, CHUNKED], BODY),
    "chunks without sizes": request(POST, [*HEAD, CHUNKED], BODY),
    "a chunk of negative size": request(POST, [*HEAD, CHUNKED], b"-1\r\n\r\n"),
    "a chunk beyond numbers": request(POST, [*HEAD, CHUNKED], b"f" * 40 + b"\r\nabc"),
    "a chunk without an end": request(POST, [*HEAD, CHUNKED], b"5\r\nabcdefgh\r\n0\r\n\r\n"),
    "a line of chunk without an end": request(POST, [*HEAD, CHUNKED], b"1;" + b"a" * 20_000_000),
    "trailers without an end": request(POST, [*HEAD, CHUNKED], b"0\r\n" + b"a: b\r\n" * 3_000_000),
    "another coding": request(POST, [*HEAD, ("Transfer-Encoding", "gzip")], BODY),
    "an unknown expectation": request(POST, [*HEAD, LENGTH, ("Expect", "a miracle")], BODY),
    "no host": request(GET, [CLOSE]),
    "two hosts": request(GET, [HOST, HOST, CLOSE]),
    "an invalid host": request(GET, [("Host", "a b/c\xff"), CLOSE]),
    "no version": b"GET /\r\n\r\n",
    "an unknown version": request("GET / HTTP/9.9", [HOST, CLOSE]),
    "no path": request("GET  HTTP/1.1", [HOST, CLOSE]),
    "a path of another kind": request("GET x HTTP/1.1", [HOST, CLOSE]),
    "a path of another host": request("GET http://[::1/ HTTP/1.1", [HOST, CLOSE]),
    "a path with control characters": request("GET /\x01\x7f HTTP/1.1", [HOST, CLOSE]),
    "a path without an end": request(f"GET /{'a' * 200_000} HTTP/1.1", [HOST, CLOSE]),
    "a method without an end": request("G" * 200_000 + " / HTTP/1.1", [HOST, CLOSE]),
    "a header without an end": request(GET, [HOST, CLOSE, ("A", "a" * 200_000)]),
    "headers without an end": request(
        GET, [HOST, CLOSE, *[(f"A{number}", "a") for number in range(5000)]]
    ),
    "a header with a zero": request(GET, [HOST, CLOSE, ("A", "b\0c")]),
    "a header with a space in its name": request(GET, [HOST, CLOSE, ("A ", "b")]),
    "a header on two lines": request(GET, [HOST, CLOSE, ("A", "b\r\n c")]),
    "an upgrade to another protocol": request(
        GET, [HOST, ("Connection", "Upgrade, close"), ("Upgrade", "websocket")]
    ),
    "another protocol": b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03" + bytes(240),
    "nothing": b"",
    "an empty line": b"\r\n\r\n",
    "half a head": b"POST /score HTTP/1.1\r\nHost: a\r\nConte",
}
