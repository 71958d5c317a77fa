"""How a figure leaves the program: PNG, PDF, its numbers as CSV, and everything needed to redo it as JSON."""

import csv
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

import damjax
from paper_figs import _panels
from paper_figs._problems import Protocol
from paper_figs._sweeps import Sweep

QUICK = "QUICK"
PACKAGES = ("jax", "jaxlib", "numpy", "networkx", "optax", "matplotlib")


def resized(protocol: Protocol, quick: Mapping[str, Any], num_seeds: int | None) -> Protocol:
    """The protocol at another size: the changes of a quick run, and the number of seeds that was asked for.

    A quick run tunes on as many seeds as it evaluates.
    """
    changes = dict(quick) | ({} if num_seeds is None else {"num_seeds": num_seeds})
    protocol = dataclasses.replace(protocol, **changes)
    return dataclasses.replace(protocol, num_tuning_seeds=protocol.num_seeds) if quick else protocol


def settings(name: str, protocol: Mapping[str, Any], quick: bool, *, network: bool = True) -> dict[str, Any]:
    """What it takes to make a figure again: the protocol, the network where one is used, the precision, the command."""
    record = dict(protocol)
    if network:
        record["graph"] = sorted(damjax.graphs.paper_network().edges)
    record["dtype"] = str(jax.numpy.result_type(float))
    # A figure in which nothing is random has no seeds.
    seeds = f" --seeds {protocol['num_seeds']}" if "num_seeds" in protocol else ""
    record["command"] = f"python -m paper_figs {name}{seeds}{' --quick' if quick else ''}"
    return record


def maker(
    name: str,
    protocol: Protocol,
    changes: Mapping[str, Any],
    compute: Callable[..., Any],
    draw: Callable[[Any, Protocol], Figure],
    panels: Callable[[Any], Mapping[str, _panels.Panel]] = lambda found: found,
    *,
    claim: str,
) -> Callable[..., list[Path]]:
    """The ``make`` of a figure: compute, draw and save it; the files.

    Args:
        name: of the figure.
        protocol: at full size.
        changes: to the protocol, for the quick version.
        compute: ``compute(protocol, quick=..., sweep=...)``.
        draw: ``draw(what compute found, protocol) -> figure``.
        panels: of what compute found, for the tables.
        claim: as for ``save``.
    """

    def make(out: Path, *, quick: bool, num_seeds: int | None, sweep: Sweep) -> list[Path]:
        sized = resized(protocol, changes if quick else {}, num_seeds)
        found = compute(sized, quick=quick, sweep=sweep)
        record = settings(name, dataclasses.asdict(sized), quick)
        tables = _panels.tables(panels(found))
        return save(name, draw(found, sized), tables, record, out, claim=claim, quick=quick)

    return make


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
    known = {"figure": name, "settings": settings, "versions": versions | {"python": platform.python_version()}}
    record.write_text(json.dumps(known, indent=2) + "\n")
    return [*pictures, *sheets, record]
