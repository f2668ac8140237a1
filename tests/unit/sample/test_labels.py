"""Labels are one per class, and no two are the same."""

import json

import pytest

from sample import labels
from sample.labels import LabelsError


def as_json(*values: str) -> bytes:
    return json.dumps({str(index): value for index, value in enumerate(values)}).encode()


def test_a_label_is_the_id_and_the_first_name() -> None:
    """Further names of a class are left out."""
    names = as_json("tench, Tinca tinca", "cock")
    ids = as_json("n01440764", "n01514668")

    assert labels.parse(names, ids) == ("n01440764 tench", "n01514668 cock")


def test_the_order_is_that_of_the_classes() -> None:
    """Classes are numbers: 10 comes after 9, whatever the order in the file."""
    count = 11
    backwards = {str(index): f"name{index}" for index in reversed(range(count))}
    ids = as_json(*(f"n{index}" for index in range(count)))

    parsed = labels.parse(json.dumps(backwards).encode(), ids)

    assert parsed == tuple(f"n{index} name{index}" for index in range(count))


def test_classes_of_one_name_stay_apart() -> None:
    """The id tells the bird from the machine."""
    parsed = labels.parse(as_json("crane", "crane"), as_json("n02012849", "n03126707"))

    assert parsed == ("n02012849 crane", "n03126707 crane")


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (b"", as_json("n1")),
        (b"[]", as_json("n1")),
        (b"\xff", as_json("n1")),
        (b'{"a": "tench"}', as_json("n1")),
        (b'{"1": "tench"}', b'{"1": "n1"}'),
        (as_json("tench", "cock"), as_json("n1")),
        (as_json("tench", "tench"), as_json("n1", "n1")),
        (as_json(" "), as_json("n1")),
        (as_json("two\nlines"), as_json("n1")),
        (as_json(", second"), as_json("n1")),
    ],
)
def test_unusable_names_are_refused(names: bytes, ids: bytes) -> None:
    """Gaps, repeats, empty or broken names never become labels."""
    with pytest.raises(LabelsError):
        labels.parse(names, ids)
