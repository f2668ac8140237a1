"""Labels: the names of ImageNet's classes, one a line, each with its WordNet id.

Two first names stand for two classes each (crane, maillot), so a label keeps
the id before the name.
"""

import json

from sample import SampleError


class LabelsError(SampleError):
    """Class names or ids do not make one label for each class."""


def parse(names: bytes, ids: bytes) -> tuple[str, ...]:
    """Join WordNet ids and first names, as in "n07920052 espresso".

    Args:
        names: JSON object from class index to comma-separated names.
        ids: JSON object from class index to WordNet id.

    Raises:
        LabelsError: Something else than such objects, an index is missing, or
            two labels are the same.
    """
    words = _by_index(names)
    wnids = _by_index(ids)
    if words.keys() != wnids.keys():
        raise LabelsError("names and ids are not for the same classes")
    firsts = [words[index].split(",")[0].strip() for index in range(len(words))]
    if not all(firsts):
        raise LabelsError(f"class {firsts.index('')} has no first name")
    labels = tuple(f"{wnids[index]} {first}" for index, first in enumerate(firsts))
    if len(set(labels)) != len(labels):
        raise LabelsError("two classes have the same label")
    return labels


def _by_index(text: bytes) -> dict[int, str]:
    try:
        entries = json.loads(text)
        values = {int(index): str(value) for index, value in entries.items()}
    except (ValueError, AttributeError) as error:
        raise LabelsError(f"not a JSON object by class index: {error}") from error
    if sorted(values) != list(range(len(values))):
        raise LabelsError("the classes are not numbered from 0 without gaps")
    if any(not value.strip() or "\n" in value for value in values.values()):
        raise LabelsError("a class has an empty name, or one of several lines")
    return values
