"""The body of ``POST /score``: what it asks for, and the answer to it."""

from __future__ import annotations

import time
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


def read_body(raw: bytes, most_pictures: int) -> list[str]:
    """Read the texts of the pictures from ``{"input": [...]}``, where the list may itself be JSON in a string.

    Other keys are left alone, as the tutorial's service does.

    Raises:
        RequestError: The body holds something else, no picture or too many; ``field`` is the path of what is wrong.
    """
    try:
        members = parse(raw).members()
        node = (
            members["input"]
            if "input" in members
            else Node(None, "input").refuse("a list of pictures", "nothing")
        )
        listed = parse(node.value, node.at) if isinstance(node.value, str) else node
        texts = [item.text() for item in listed.items()[: most_pictures + 1]]
        if not texts:
            listed.refuse("at least one picture")
    except DocumentError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{error}.", error.at or None) from error
    if len(texts) > most_pictures:
        detail = f"input: at most {most_pictures} pictures are taken in one request."
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, "input")
    return texts


class Scorer:
    """Scores pictures with one model."""

    def __init__(self, classifier: Classifier, settings: Settings) -> None:
        self._classifier = classifier
        self._most_pixels = settings.max_pixels

    def score(self, texts: list[str]) -> tuple[list[list[Guess]], float]:
        """Return the guesses for each picture and the milliseconds it took.

        Raises:
            RequestError: A picture cannot be read or is too large; ``field`` is its path.
        """
        start = time.perf_counter()
        guesses = self._classifier.classify(self._prepared(texts))
        return guesses, 1000 * (time.perf_counter() - start)

    def _prepared(self, texts: list[str]) -> list[npt.NDArray[Any]]:
        wanted = self._classifier.bundle.interface
        prepared = []
        left = self._most_pixels
        for index, text in enumerate(texts):
            try:
                picture = pictures.open_picture(pictures.unwrap(text), left)
                left -= picture.width * picture.height
                prepared.append(pictures.prepare(picture, wanted.input, wanted.preprocessing))
            except PictureError as error:
                too_large = isinstance(error, TooLargeError)
                status = (
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
                )
                raise RequestError(status, f"input/{index}: {error}.", f"input/{index}") from error
        return prepared


def answer(guesses: list[list[Guess]], milliseconds: float) -> dict[str, object]:
    """Put guesses in the form that the tutorial's service gives them."""
    ranked = [[[guess.label, guess.percent] for guess in picture] for picture in guesses]
    return {"result": [ranked, f"Computed in {milliseconds:.1f} ms"]}
