"""docs/results/labelled.md shows what its command prints from the table beside it."""

from pathlib import Path

from benchmarks.coreset import labelled
from benchmarks.coreset import table as coreset_table
from benchmarks.coreset.methods import BY_DEFAULT
from benchmarks.coreset.report import group

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_page_and_figures_are_those_of_the_table(tmp_path):
    rows = coreset_table.read(DOCS / "results" / "labelled.csv")
    page = (DOCS / "results" / "labelled.md").read_text()
    printed = labelled.write_page(rows, tmp_path).splitlines()
    missing = [line for line in printed if line.startswith("|") and line not in page]
    assert not missing, missing[:3]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (DOCS / "images" / path.name).read_bytes(), path.name


def test_default_of_the_library_is_the_first_of_the_choosing_split():
    grids = [
        points
        for name, points in group(coreset_table.read(DOCS / "results" / "labelled.csv")).items()
        if "/choose/" in name
    ]
    assert labelled.rank_gammas(grids)[0][0] == BY_DEFAULT
