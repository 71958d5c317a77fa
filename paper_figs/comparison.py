"""Do the numbers of a figure agree with the published ones? ``python -m paper_figs --check`` says which do not."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
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
        verdict: "ok" where its numbers are the published ones, up to the tolerance; else "DIFFERS", "MISSING" where the
            figure has not been made, or "BROKEN" where its files cannot be read.
        text: what was compared, and the largest difference.
    """

    name: str
    verdict: str
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
        folder: where it was made, or a folder of figures that has each in a folder of its own.
        published: such a folder, of the published figures.
        tolerance: the largest difference at which two numbers still agree.

    Raises:
        ValueError: nothing was published under this name.
    """
    if not (published / name).is_dir():
        raise ValueError(f"name must be that of a published figure, but there is no {name} in {published}")
    if (folder / name / f"{name}.json").exists():
        folder = folder / name
    if not (folder / f"{name}.json").exists():
        return Report(name, "MISSING", f"not in {folder}; make it with: python -m paper_figs {name} --out {folder}")
    theirs = _read(name, published / name)
    try:
        ours = _read(name, folder, theirs.tables)
    except (OSError, ValueError) as error:
        return Report(name, "BROKEN", f"cannot be read: {error}")
    if settings := _unequal(theirs.settings, ours.settings):
        return Report(name, "DIFFERS", f"made with other settings: {settings}")
    if shapes := _unequal(theirs.shapes(), ours.shapes()):
        return Report(name, "DIFFERS", f"has other tables: {shapes}")
    differences = [
        each for file in theirs.tables for each in _differences(file, theirs.tables[file], ours.tables[file])
    ]
    num_beyond = sum(each.size > tolerance for each in differences)
    largest = max(differences, key=lambda each: each.size)
    if not num_beyond:
        return Report(name, "ok", f"{len(differences)} cells agree, the numbers to {max(largest.size, 1e-16):.0e}")
    text = (
        f"{num_beyond} of {len(differences)} cells differ by more than {tolerance:g}, at most by {largest.size:.1e}:"
        f" {largest.place} is {largest.published!r} there and {largest.here!r} here"
    )
    versions = _unequal(theirs.versions, ours.versions)
    return Report(name, "DIFFERS", f"{text} ({versions})" if versions else text)


class _Made(NamedTuple):
    """What is on disk of a figure that was made: its JSON file, and tables with their titles as first row."""

    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    tables: Mapping[str, list[list[str]]]

    def shapes(self) -> dict[str, str]:
        """What a table consists of, in words."""
        return {file: f"{len(table) - 1} rows of {', '.join(table[0])}" for file, table in self.tables.items()}


def _read(name: str, folder: Path, files: Iterable[str] | None = None) -> _Made:
    """A figure, with these tables or all.

    Raises:
        OSError, ValueError: a file is missing, or holds something else.
    """
    record = folder / f"{name}.json"
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
        settings, versions = made["settings"], made["versions"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{record} is not what a figure writes ({error!r})") from error
    tables = {}
    for file in files or sorted(path.name for path in folder.glob("*.csv")):
        with (folder / file).open(newline="", encoding="utf-8") as sheet:
            tables[file] = list(csv.reader(sheet))
        if len({len(row) for row in tables[file]}) != 1:
            raise ValueError(f"{folder / file} has no rows, or rows of several lengths")
    return _Made(settings, versions, tables)


def _unequal(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Which entries are not the same, in words."""
    return "; ".join(
        f"{key} {theirs.get(key)!r:.80} there and {ours.get(key)!r:.80} here"
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


def _differences(file: str, published: list[list[str]], here: list[list[str]]) -> Iterator[Difference]:
    """Of all cells of two tables of one shape."""
    for column, title in enumerate(published[0]):
        cells, cells_here = ([row[column] for row in table[1:]] for table in (published, here))
        sizes = (abs(number) for number in map(_number, cells) if number is not None and math.isfinite(number))
        small = SMALL * max(sizes, default=0.0)
        for line, (a, b) in enumerate(zip(cells, cells_here, strict=True), start=2):
            yield Difference(_distance(a, b, small), f"{file}, line {line}, {title}", a, b)


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
