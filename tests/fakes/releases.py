"""Releases and histories as records, made of a letter for the code and a number for the model."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Literal

from deploy.records import (
    AppImage,
    Attempt,
    Commit,
    Descriptor,
    Ending,
    Image,
    Model,
    ModelLayer,
    Release,
    Rollout,
    Trigger,
)

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
REPOSITORY = "registry.example/classifier"


def digest(text: str) -> str:
    """Return a digest that differs when the text does."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def create_descriptor(text: str) -> Descriptor:
    """Return a descriptor of a blob of that name."""
    return Descriptor(
        media_type="application/vnd.oci.image.manifest.v1+json", digest=digest(text), size=len(text)
    )


def release(code: str = "a", model: str = "1", config: str = "") -> Release:
    """Return the release of a commit and a model; `config` is the image's id on an engine."""
    commit = Commit(
        revision=hashlib.sha1(code.encode(), usedforsecurity=False).hexdigest(), dirty=False
    )
    app = AppImage(
        name="classifier", key=code, commit=commit, manifest=create_descriptor(f"app {code}")
    )
    layer = ModelLayer(
        model=Model(name="digits", version=model, digest=digest(f"model {model}")),
        digest=digest(f"layer {model}"),
        size=9,
    )
    name = f"image {code} {model}"
    joined = Image(
        app=app,
        layer=layer,
        manifest=create_descriptor(name),
        config=config or digest(f"config {name}"),
    )
    return Release(image=joined, repository=REPOSITORY)


def attempt(number: int, value: Release, trigger: Trigger = "release", run: str = "") -> Attempt:
    """Return an attempt at a release, a minute after the one before."""
    return Attempt(
        id=number,
        environment="local",
        trigger=trigger,
        release=value,
        by="ada",
        at=START + timedelta(minutes=number),
        url="http://127.0.0.1:8080",
        run=run,
    )


def rollout(
    number: int,
    value: Release,
    outcome: Literal["succeeded", "undone", "failed", "unfinished"] = "succeeded",
    trigger: Trigger = "release",
    why: str = "",
    run: str = "",
) -> Rollout:
    """Return an attempt with its end."""
    begun = attempt(number, value, trigger, run)
    ending = (
        None
        if outcome == "unfinished"
        else Ending(outcome=outcome, at=begun.at + timedelta(seconds=20), why=why)
    )
    return Rollout(attempt=begun, ending=ending)
