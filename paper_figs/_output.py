"""How a figure leaves the program: PNG, PDF, its numbers as CSV, and everything needed to redo it as JSON."""

import csv
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

import damjax
from paper_figs._experiment import Protocol

PACKAGES = ("damjax", "jax", "jaxlib", "numpy", "networkx", "optax", "matplotlib")


def resized(protocol: Protocol, quick: Mapping[str, Any], num_seeds: int | None) -> Protocol:
    """The protocol at another size: the changes of a quick run, and the number of seeds that was asked for.

    A quick run tunes on as many seeds as it evaluates, so that the same programs serve for both.
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


def save(
    name: str,
    figure: Figure,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    settings: Mapping[str, Any],
    out: Path,
) -> list[Path]:
    """Write ``name``.png and .pdf, one CSV per table, and ``name``.json; return the paths.

    Args:
        name: of the figure.
        figure: drawn.
        tables: suffix -> rows; the suffix "" names the main table.
        settings: of every run, seeds included; plain data.
        out: folder, made when missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix in ("png", "pdf"):
        # Without the date the same numbers give the same file.
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        figure.savefig(out / f"{name}.{suffix}", metadata=metadata, bbox_inches="tight", dpi=200)
        paths.append(out / f"{name}.{suffix}")
    for suffix, rows in tables.items():
        path = out / f"{name}{suffix}.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        paths.append(path)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    record = {"figure": name, "settings": settings, "versions": versions | {"python": platform.python_version()}}
    path = out / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return [*paths, path]
