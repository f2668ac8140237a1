"""The differences between two releases, from the history, the registry and git.

What cannot be known here is said: a registry can be away, and a clone can lack a commit.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.errors import ReleaseError
from deploy.image.repository import Repository
from deploy.model.manifest import ExpectedResponse, ExpectedValue, ModelManifest
from deploy.progress import format_size
from deploy.records import Descriptor, Image, Record, Rollout
from deploy.settings.reading import Settings
from deploy.source.changes import CodeChanges, explain_unknown, read_changes
from deploy.source.revision import UNVERSIONED

_MOST_VALUES = 200
_MOST_LEVELS = 5


class Values(Record):
    """One thing of two releases; empty where a release has none or it is not known."""

    what: str
    first: str
    second: str

    @property
    def is_same(self) -> bool:
        """Whether both have it alike."""
        return self.first == self.second


class Comparison(Record):
    """Two releases side by side.

    Attributes:
        values: what both have, equal or not.
        added: the commits that the second release has and the first has not, newest first.
        removed: the commits that the first release has and the second has not.
        files: the files of the application that differ, by path, with git's letter.
        unknown: what is not known here, and why.
    """

    values: tuple[Values, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    files: dict[str, str]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class _Side:
    """What is known of one of the two releases.

    Attributes:
        rollout: the attempt at it.
        layers: the layers of its image; none if they are not known.
        manifest: the manifest of its model; None if it is not known.
        unknown: what is not known, and why.
    """

    rollout: Rollout
    layers: tuple[Descriptor, ...]
    manifest: ModelManifest | None
    unknown: tuple[str, ...]


def compare(
    first: Rollout, second: Rollout, directory: Path, settings: Settings, repository: Repository
) -> Comparison:
    """Return two releases side by side.

    Args:
        first: the attempt at one release.
        second: the attempt at the other one.
        directory: the application's folder, whose repository may have the commits.
        settings: the settings of the application.
        repository: where the images are.
    """
    sides = (_read_side(first, repository), _read_side(second, repository))
    changes, unknown = _read_code(first, second, directory, settings)
    packages = (
        Values(what=f"package {name}", first=before, second=after)
        for name, (before, after) in changes.packages.items()
    )
    return Comparison(
        values=(*_compare_records(*sides), *_compare_models(*sides), *packages),
        added=changes.added,
        removed=changes.removed,
        files=dict(changes.files),
        unknown=(*sides[0].unknown, *sides[1].unknown, *unknown),
    )


def _read_side(rollout: Rollout, repository: Repository) -> _Side:
    """Return what the registry has of a release; what it has not is no error."""
    release = rollout.attempt.release
    number = rollout.attempt.id
    why = "the registry does not run"
    if repository.is_up():
        try:
            layers = repository.read_layers(release)
            gone = f"size and layers of release {number}: its image is not in the registry"
            manifest = repository.read_model_manifest(release)
            return _Side(rollout, layers, manifest, () if layers else (gone,))
        except ReleaseError as error:
            why = error.what
    what = f"layers, metrics and golden cases of release {number}"
    return _Side(rollout, (), None, (f"{what}: {why}",))


def _read_code(
    first: Rollout, second: Rollout, directory: Path, settings: Settings
) -> tuple[CodeChanges, list[str]]:
    """Return what changed in the code, and what is not known of that."""
    before, after = (item.attempt.release.image.app.commit for item in (first, second))
    named = ((first.attempt.id, before), (second.attempt.id, after))
    dirty = [
        f"in what the files of release {number} differed from commit {commit.revision[:12]}"
        for number, commit in named
        if commit.dirty and commit.revision != UNVERSIONED
    ]
    try:
        missing = [
            f"the code of release {number}: {why}"
            for number, commit in named
            if (why := explain_unknown(directory, commit))
        ]
        if missing:
            return CodeChanges(), [*missing, *dirty]
        return read_changes(directory, settings, before, after), dirty
    except ReleaseError as error:
        return CodeChanges(), [f"the changes of the code: {error.what}"]


def _compare_records(first: _Side, second: _Side) -> Iterator[Values]:
    """Yield commits, digests and sizes."""
    facts: Mapping[str, Callable[[_Side], object]] = {
        "commit": lambda side: _image(side).app.commit,
        "model": lambda side: _image(side).layer.model,
        "image": lambda side: _image(side).digest,
        "app image": lambda side: _image(side).app.manifest.digest,
        "model manifest": lambda side: _image(side).layer.model.digest,
        "model size": lambda side: format_size(_image(side).layer.size),
        "image size": lambda side: _format_sum(side.layers),
        "layers": lambda side: len(side.layers) or "",
    }
    for what, read in facts.items():
        yield Values(what=what, first=str(read(first)), second=str(read(second)))
    if first.layers and second.layers:
        own = (_describe_own(first, second), _describe_own(second, first))
        yield Values(what="layers of its own", first=own[0], second=own[1])


def _image(side: _Side) -> Image:
    return side.rollout.attempt.release.image


def _format_sum(layers: tuple[Descriptor, ...]) -> str:
    return format_size(sum(layer.size for layer in layers)) if layers else ""


def _describe_own(side: _Side, other: _Side) -> str:
    """Return how many layers a release has that the other one has not, their size and names."""
    known = {layer.digest for layer in other.layers}
    own = tuple(layer for layer in side.layers if layer.digest not in known)
    names = " ".join(layer.digest.removeprefix("sha256:")[:12] for layer in own)
    return f"{len(own)}, {_format_sum(own)}: {names}" if own else "none"


def _compare_models(first: _Side, second: _Side) -> Iterator[Values]:
    """Yield the metadata of the models, such as metrics, and what their golden cases expect."""
    for read in (_read_metadata, _read_golden_cases):
        one, other = (read(side.manifest) if side.manifest else {} for side in (first, second))
        for name in dict.fromkeys((*one, *other)):
            yield Values(what=name, first=one.get(name, ""), second=other.get(name, ""))


def _read_metadata(manifest: ModelManifest) -> dict[str, str]:
    """Return the author's own values by the path of their keys, as many as can be shown."""
    found = _flatten(manifest.metadata, "metadata", _MOST_LEVELS)
    return dict(itertools.islice(found, _MOST_VALUES))


def _flatten(value: Any, path: str, levels: int) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON
    if isinstance(value, dict) and levels:
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}", levels - 1)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_golden_cases(manifest: ModelManifest) -> dict[str, str]:
    return {f"golden {case.name}": _describe_expected(case.expect) for case in manifest.golden}


def _describe_expected(expected: ExpectedResponse) -> str:
    """Return what a golden case expects, in short."""
    parts = [f"{item.at} {_describe_value(item)}".strip() for item in expected.json_]
    if expected.contains:
        parts.append(f"contains {expected.contains!r}")
    if expected.status != 200 or not parts:
        parts.insert(0, f"status {expected.status}")
    return ", ".join(parts)


def _describe_value(expected: ExpectedValue) -> str:
    if expected.near is None:
        return json.dumps(expected.equals, ensure_ascii=False)
    return f"{expected.near} ± {expected.tolerance}"
