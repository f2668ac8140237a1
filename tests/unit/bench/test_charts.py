from __future__ import annotations

from pathlib import Path

from PIL import Image

from bench import charts, report
from tests.unit.bench.examples import measured


def test_pictures_are_drawn_of_every_part(tmp_path: Path) -> None:
    """They are those that the report shows, and large enough to read."""
    charts.draw(measured(), tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {
        report.RELEASES,
        report.STAGES,
        report.MEMORY,
        report.SERVING,
        report.LOAD,
    }
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300


def test_the_same_figures_give_the_same_pictures(tmp_path: Path) -> None:
    """A change of a chart is always a change of a figure."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        charts.draw(measured(), tmp_path / name)

    assert (tmp_path / "one" / report.STAGES).read_bytes() == (
        tmp_path / "two" / report.STAGES
    ).read_bytes()


def test_parts_that_were_left_out_are_not_drawn(tmp_path: Path) -> None:
    """An empty chart would look like a figure."""
    charts.draw(measured(cases=(), served=(), rolled=()), tmp_path)

    assert not list(tmp_path.iterdir())
