"""Do the numbers of a figure agree with the published ones? ``python -m paper_figs --check`` says which do not."""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PUBLISHED = Path(__file__).parent / "published"
TOLERANCE = 1e-6
# Of the largest number of a column: what is smaller is compared with this, since nobody sees it in a picture.
SMALL = 1e-3


class Report(NamedTuple):
    """What came of comparing one figure.

    Attributes:
        name: of the figure.
        agrees: whether its numbers are the published ones, up to the tolerance.
        text: what was compared, and the largest difference; one line or a few.
    """

    name: str
    agrees: bool
    text: str


class Difference(NamedTuple):
    """How far one number is from the published one.

    Attributes:
        size: their distance, as a multiple of the published one; infinite where one of them is no number.
        place: file, line and column.
        published: as it is written.
        here: as it is written.
    """

    size: float
    place: str
    published: str
    here: str


def compare(name: str, folder: Path, published: Path = PUBLISHED, tolerance: float = TOLERANCE) -> Report:
    """Compare the numbers of a figure in ``folder`` with the published ones, cell by cell of all its CSV files.

    Two numbers differ by ``|here - published| / max(|published|, SMALL * largest of the column)``. Numbers of runs with
    other settings are not compared.

    Args:
        name: of the figure.
        folder: where it was made.
        published: folder of the published figures, each in a folder of its own.
        tolerance: the largest difference at which two numbers still agree.

    Raises:
        ValueError: nothing was published under this name.
    """
    original = published / name
    if not original.is_dir():
        raise ValueError(f"name must be that of a published figure, but there is no {name} in {published}")
    if not (folder / f"{name}.json").exists():
        return Report(name, False, f"not in {folder}; make it with: python -m paper_figs {name}")
    theirs, ours = (json.loads((place / f"{name}.json").read_text()) for place in (original, folder))
    if settings := _unequal(theirs["settings"], ours["settings"]):
        return Report(name, False, f"made with other settings: {settings}")
    differences = [
        each for sheet in sorted(original.glob("*.csv")) for each in _differences(sheet, folder / sheet.name)
    ]
    num_beyond = sum(each.size > tolerance for each in differences)
    largest = max(differences, key=lambda each: each.size)
    if not num_beyond:
        return Report(name, True, f"{len(differences)} cells agree, the numbers to {max(largest.size, 1e-16):.0e}")
    text = (
        f"{num_beyond} of {len(differences)} cells differ by more than {tolerance:g}, at most by {largest.size:.1e}:"
        f" {largest.place} is {largest.published!r} there and {largest.here!r} here"
    )
    versions = _unequal(theirs["versions"], ours["versions"])
    return Report(name, False, f"{text} ({versions})" if versions else text)


def _unequal(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Which entries are not the same, in words."""
    return "; ".join(
        f"{key} {theirs.get(key)!r:.60} there and {ours.get(key)!r:.60} here"
        for key in sorted(theirs.keys() | ours.keys())
        if not _same(theirs.get(key), ours.get(key))
    )


def _same(a: Any, b: Any) -> bool:
    """Whether two settings are, numbers up to what another machine rounds otherwise."""
    match a, b:
        case dict(), dict():
            return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
        case list(), list():
            return len(a) == len(b) and all(map(_same, a, b))
        case float(), float():
            return math.isclose(a, b, rel_tol=1e-9)
        case _:
            return a == b


def _differences(published: Path, here: Path) -> Iterator[Difference]:
    """Of all cells of one table; a table of another shape is one difference."""
    if not here.exists():
        yield Difference(math.inf, here.name, "a table", "missing")
        return
    with published.open(newline="") as theirs, here.open(newline="") as ours:
        (titles, *rows), (titles_here, *rows_here) = csv.reader(theirs), csv.reader(ours)
    if titles != titles_here or len(rows) != len(rows_here):
        shapes = (
            f"{len(lines)} rows of {', '.join(names)}" for names, lines in ((titles, rows), (titles_here, rows_here))
        )
        yield Difference(math.inf, here.name, *shapes)
        return
    for column, title in enumerate(titles):
        cells, cells_here = ([row[column] for row in table] for table in (rows, rows_here))
        sizes = (abs(number) for number in map(_number, cells) if number is not None and math.isfinite(number))
        small = SMALL * max(sizes, default=0.0)
        for line, (a, b) in enumerate(zip(cells, cells_here, strict=True), start=2):
            yield Difference(_distance(a, b, small), f"{here.name}, line {line}, {title}", a, b)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _distance(published: str, here: str, small: float) -> float:
    """Of two cells: zero where they are written alike, infinite where one of them is no finite number."""
    if published == here:
        return 0.0
    a, b = _number(published), _number(here)
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), small) if a != b else 0.0
