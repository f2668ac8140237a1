from __future__ import annotations

import pytest

from bench.application import ROOT
from bench.baseline import with_model


def test_the_model_is_copied_in_where_the_suite_would_join_it() -> None:
    """The project's own Dockerfile serves both ways."""
    text = with_model((ROOT / "Dockerfile").read_text(encoding="utf-8"))

    assert (
        text.index("COPY --from=dependencies")
        < text.index("COPY model /model")
        < text.index("COPY --from=code")
    )


def test_a_dockerfile_that_does_not_say_where_is_refused() -> None:
    """Otherwise the two ways would build different images."""
    with pytest.raises(ValueError, match=r"twinship\.model=here"):
        with_model("FROM base\n")
