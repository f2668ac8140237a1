"""The errors behind an error."""

from __future__ import annotations

from collections.abc import Iterator


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that it came from, the outermost first.

    Libraries pass a cause as `__cause__`, as `__context__`, or as an argument.
    """
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            waiting += [*one.args, one.__cause__, one.__context__]
