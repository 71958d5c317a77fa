"""How a figure leaves the program: PNG, PDF, its numbers as CSV, and everything needed to redo it as JSON."""

import csv
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

import damjax

QUICK = "QUICK"
PACKAGES = ("jax", "jaxlib", "numpy", "networkx", "optax", "matplotlib")


def stamp(figure: Figure) -> None:
    """Write QUICK across a picture, so that nobody takes it for a result."""
    width, height = figure.get_size_inches()
    figure.text(
        0.5,
        0.5,
        QUICK,
        fontsize=12 * min(width, 2 * height),
        color="#D55E00",
        alpha=0.15,
        rotation=20,
        ha="center",
        va="center",
        fontweight="bold",
    )


def headline(figure: Figure, claim: str) -> None:
    """Write above a picture what it shows."""
    figure.text(0.0, 1.01, claim, fontsize=10, fontweight="bold", va="bottom")
    # A legend outside the panels would move with the edge of the picture, which the claim moves.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)


def save(
    name: str,
    figure: Figure,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    settings: Mapping[str, Any],
    out: Path,
    *,
    claim: str = "",
    quick: bool = False,
) -> list[Path]:
    """Write ``name``.png and .pdf, one CSV per table, and ``name``.json; return the paths.

    Of several processes, which have all found the same, only the first writes.

    Args:
        name: of the figure.
        figure: drawn.
        tables: suffix -> rows; the suffix "" names the main table.
        settings: of every run, seeds included; plain data.
        out: folder, made when missing.
        claim: what the figure shows, which stands above a picture of full size only.
        quick: whether the runs were too few and too short to show anything, which the picture then says.
    """
    pictures = [out / f"{name}.{suffix}" for suffix in ("png", "pdf")]
    sheets = [out / f"{name}{suffix}.csv" for suffix in tables]
    record = out / f"{name}.json"
    if jax.process_index() > 0:
        return [*pictures, *sheets, record]
    out.mkdir(parents=True, exist_ok=True)
    if quick:
        stamp(figure)
    elif claim:
        headline(figure, claim)
    for path in pictures:
        # Without the date the same numbers give the same file.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
        figure.savefig(path, metadata=metadata, bbox_inches="tight", dpi=200)
    for path, rows in zip(sheets, tables.values(), strict=True):
        with path.open("w", newline="") as file:
            # Means and medians have columns of their own.
            writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(column for row in rows for column in row)))
            writer.writeheader()
            writer.writerows(rows)
    versions = {"damjax": damjax.__version__} | {package: importlib.metadata.version(package) for package in PACKAGES}
    versions["python"] = platform.python_version()
    record.write_text(json.dumps({"figure": name, "settings": settings, "versions": versions}, indent=2) + "\n")
    return [*pictures, *sheets, record]
