"""Releases and histories as records, made from a letter for the code and a number for the model."""

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
)
from deploy.rollout.target import Trigger

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
REPOSITORY = "registry.example/classifier"


def digest(text: str) -> str:
    """A digest that differs when the text does."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def described(text: str) -> Descriptor:
    """A descriptor of something of that name."""
    return Descriptor(
        media_type="application/vnd.oci.image.manifest.v1+json", digest=digest(text), size=len(text)
    )


def release(code: str = "a", model: str = "1", config: str = "") -> Release:
    """The release of a commit and a model version; `config` is the image's id, if an engine has made it."""
    commit = Commit(
        revision=hashlib.sha1(code.encode(), usedforsecurity=False).hexdigest(), dirty=False
    )
    app = AppImage(name="classifier", key=code, commit=commit, manifest=described(f"app {code}"))
    layer = ModelLayer(
        model=Model(name="digits", version=model, digest=digest(f"model {model}")),
        digest=digest(f"layer {model}"),
        size=9,
    )
    name = f"image {code} {model}"
    joined = Image(
        app=app, layer=layer, manifest=described(name), config=config or digest(f"config {name}")
    )
    return Release(image=joined, repository=REPOSITORY)


def attempt(number: int, value: Release, trigger: Trigger = "release", run: str = "") -> Attempt:
    """An attempt at a release, a minute after the one before."""
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
    """An attempt and its end."""
    begun = attempt(number, value, trigger, run)
    ending = (
        None
        if outcome == "unfinished"
        else Ending(outcome=outcome, at=begun.at + timedelta(seconds=20), why=why)
    )
    return Rollout(attempt=begun, ending=ending)
