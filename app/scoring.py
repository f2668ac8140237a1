"""The body of `POST /score`, and the body of its response."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from app import pictures
from app.documents import DocumentError, Node, parse
from app.pictures import PictureError, TooLargeError
from app.problems import RequestError

if TYPE_CHECKING:
    import numpy.typing as npt

    from app.classifier import Classifier, Guess
    from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Scores:
    """The guesses for each picture of a request, and the milliseconds that it took to make them."""

    guesses: list[list[Guess]]
    milliseconds: float


def read_body(raw: bytes, most_pictures: int) -> list[str]:
    """Return the texts of the pictures in `{"input": [...]}`; the list may be JSON in a string.

    Other keys are ignored, as the tutorial's service does.

    Raises:
        RequestError: The body holds something else, no picture or too many; `field` is the path of
            what is wrong.
    """
    try:
        listed = _list(parse(raw).members())
        texts = [item.text() for item in listed.items()[: most_pictures + 1]]
        if not texts:
            listed.refuse("at least one picture")
    except DocumentError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{error}.", error.at or None) from error
    if len(texts) > most_pictures:
        detail = f"input: at most {most_pictures} pictures are taken in one request."
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, "input")
    return texts


def _list(members: dict[str, Node]) -> Node:
    if "input" not in members:
        Node(None, "input").refuse("a list of pictures", "nothing")
    node = members["input"]
    return parse(node.value, node.at) if isinstance(node.value, str) else node


class Scorer:
    """Scores the pictures of requests with one model, in any thread."""

    def __init__(self, classifier: Classifier, settings: Settings) -> None:
        self._classifier = classifier
        self._settings = settings

    def score(self, body: bytes) -> Scores:
        """Return the guesses for each picture in a body.

        Raises:
            RequestError: The body or a picture cannot be read or is too large; `field` is the path.
        """
        texts = read_body(body, self._settings.max_pictures)
        start = time.perf_counter()
        guesses = self._classifier.classify(self._prepared(texts))
        return Scores(guesses, 1000 * (time.perf_counter() - start))

    def _prepared(self, texts: list[str]) -> list[npt.NDArray[Any]]:
        wanted = self._classifier.bundle.interface
        prepared = []
        left = self._settings.max_pixels
        for index, text in enumerate(texts):
            try:
                picture = pictures.open_picture(pictures.unwrap(text), left)
                left -= picture.width * picture.height
                prepared.append(pictures.prepare(picture, wanted.input, wanted.preprocessing))
            except PictureError as error:
                raise _refusal(index, error) from error
        return prepared


def _refusal(index: int, error: PictureError) -> RequestError:
    too_large = isinstance(error, TooLargeError)
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
    return RequestError(status, f"input/{index}: {error}.", f"input/{index}")


def format_scores(scores: Scores) -> dict[str, object]:
    """Return scores in the form that the tutorial's service gives them."""
    ranked = [[[guess.label, guess.percent] for guess in picture] for picture in scores.guesses]
    return {"result": [ranked, f"Computed in {scores.milliseconds:.1f} ms"]}
