"""What a Dockerfile says of the application."""

from __future__ import annotations

import pytest

from deploy.init.dockerfile import parse_dockerfile


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("EXPOSE 8000", 8000),
        ("expose 8000/tcp 9000", 8000),
        ('CMD ["uvicorn", "main:app", "--port", "5001"]', 5001),
        ('CMD ["gunicorn", "--bind", "0.0.0.0:7000", "main:app"]', 7000),
        ("CMD gunicorn -b 0.0.0.0:7000 main:app", 7000),
        ("CMD serve --port=81", 81),
        ("EXPOSE 8000\nCMD serve --port 9000", 8000),
        ("EXPOSE $PORT", None),
        ("EXPOSE 99999", None),
        ("# EXPOSE 8000", None),
        ("", None),
    ],
)
def test_the_port_is_exposed_or_in_the_command(text: str, port: int | None) -> None:
    """An instruction counts before the words of a command."""
    assert parse_dockerfile(text).port == port


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("HEALTHCHECK CMD curl -f http://localhost:8000/health || exit 1", "/health"),
        ("HEALTHCHECK --interval=5s \\\n  CMD wget -q http://127.0.0.1/livez", "/livez"),
        ("HEALTHCHECK NONE", ""),
        ("CMD curl http://localhost/health", ""),
    ],
)
def test_the_path_of_the_health_check_tells_readiness(text: str, path: str) -> None:
    """An instruction may go over several lines."""
    assert parse_dockerfile(text).ready == path


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("COPY . .", (".",)),
        ("COPY ./app /srv/app\nADD requirements.txt ./", ("app", "requirements.txt")),
        ("COPY --chown=1000 a b/ /srv/", ("a", "b")),
        ('COPY ["my app", "other", "/srv/"]', ("my app", "other")),
        ("COPY --from=builder /out /srv", ()),
        ("ADD https://example.com/x /x", ()),
        ("COPY $WHAT /srv", ()),
        ("COPY a /srv\nCOPY a /other", ("a",)),
    ],
)
def test_sources_are_what_comes_from_the_context(text: str, sources: tuple[str, ...]) -> None:
    """Another stage and the network are not the context."""
    assert parse_dockerfile(text).sources == sources


def test_the_arguments_and_labels_of_the_suite_are_known() -> None:
    """They are the base image and the place of the model."""
    found = parse_dockerfile("ARG BASE=x\nFROM $BASE\nLABEL a=b twinship.model=here")
    assert (found.takes_base, found.marks_model) == (True, True)
    other = parse_dockerfile("ARG BASEMENT\nFROM x\n# LABEL twinship.model=here")
    assert (other.takes_base, other.marks_model) == (False, False)
