"""Make the figures of the paper.

Each figure is written as PNG and PDF, with its numbers as CSV and every setting, seed and version as JSON.
"""

import argparse
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

import damjax
from paper_figs import bounds, dynamics, figure_1, rates, sanity, sensitivity, trees
from paper_figs.comparison import compare
from paper_figs.particles import (
    capacity,
    correlations,
    factorised,
    landscapes,
    noise,
    normalization,
    orthogonal,
    perfect_accuracy,
    sharpness,
    spikes,
    transformer,
    zipf_tokens,
)
from paper_figs.recall import capacity as recall_capacity
from paper_figs.recall import depth as recall_depth
from paper_figs.recall import digits as recall_digits
from paper_figs.recall import documents as recall_documents
from paper_figs.recall import network as recall_network
from paper_figs.recall import transformer as recall_transformer
from paper_figs.sweeps import sweeper

FIGURES = {
    module.FIGURE.name: module.FIGURE
    for module in (
        figure_1,
        bounds,
        rates,
        sensitivity,
        sanity,
        trees,
        dynamics,
        orthogonal,
        spikes,
        perfect_accuracy,
        landscapes,
        sharpness,
        zipf_tokens,
        capacity,
        correlations,
        factorised,
        normalization,
        noise,
        transformer,
        recall_capacity,
        recall_network,
        recall_documents,
        recall_digits,
        recall_depth,
        recall_transformer,
    )
}
# What can be asked for, and of which figures.
OPTIONS = {
    name: [one for one in FIGURES.values() if name in one.options] for one in FIGURES.values() for name in one.options
}


FOLDER = Path("figures")
STOPPED = 130  # what a shell calls a program that Ctrl-C ended


def keep_programs() -> None:
    """Let jax keep compiled programs between commands, a folder per machine, unless the user has named a folder."""
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "damjax" / platform.node()))


def check(names: Sequence[str], folder: Path) -> int:
    """Say of each figure whether its numbers in the folder are the published ones; 1 if any are not."""
    reports = [compare(name, folder) for name in names]
    for report in reports:
        print(f"{report.name:18s} {report.verdict:8s} {report.text}")
    return int(any(report.verdict != "ok" for report in reports))


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, make the figures, say where they are."""
    parser = argparse.ArgumentParser(
        prog="python -m paper_figs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help="figures to make (default: all; see --list)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a small version in seconds, stamped QUICK, of no meaning")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder (default: {FOLDER}, or {FOLDER / 'quick'} with --quick)"
    )
    parser.add_argument("--store", type=Path, metavar="DIR", help="keep what is computed here, and resume from it")
    parser.add_argument("--distributed", action="store_true", help="one of several processes that share the work")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds per point (default: 32, or 4 with --quick)")
    for name, having in OPTIONS.items():
        option = having[0].options[name]
        about = "; ".join(f"{figure.name}: {figure.options[name].help}" for figure in having)
        (size if option.is_size else parser).add_argument(f"--{name}", help=about, **option.reading)
    parser.add_argument("--list", action="store_true", help="list the figures and stop")
    parser.add_argument(
        "--check", action="store_true", help="make nothing: say which numbers in DIR are not the published ones"
    )
    args = parser.parse_args(argv)
    if args.list:
        for name, figure in FIGURES.items():
            print(f"{name:18s} {(figure.about or '').splitlines()[0]}")
        return 0
    if unknown := [name for name in args.names if name not in FIGURES]:
        parser.error(f"no figure is called {', '.join(unknown)}; the figures are: {', '.join(FIGURES)}")
    if args.seeds is not None and args.seeds < 2:
        parser.error(f"--seeds must be at least 2, for an interval, but it is {args.seeds}")

    for option, having in OPTIONS.items():
        names = [figure.name for figure in having]
        if getattr(args, option) and not set(names) & set(args.names):
            parser.error(f"--{option} is for the figure {' or '.join(names)} only; name it")

    out = args.out or (FOLDER / "quick" if args.quick else FOLDER)
    if out.exists() and not out.is_dir():
        parser.error(f"--out must be a folder, but {out} is a file")
    if args.check:
        others = [f"--{name}" for name, value in vars(args).items() if value and name not in ("names", "out", "check")]
        if others:
            parser.error(f"--check compares figures of full size that are in DIR; leave out {', '.join(others)}")
        if not out.is_dir():
            parser.error(f"--check needs the figures that you have made, but there is no folder {out}; see --out")
        return check(args.names or list(FIGURES), out)
    for figure in (FIGURES[name] for name in args.names or FIGURES):
        if missing := [module for module in figure.needs if not importlib.util.find_spec(module)]:
            parser.error(
                f"{figure.name} needs {', '.join(missing)}; install with: pip install 'damjax[recall]', or name others"
            )
    if args.store and not importlib.util.find_spec("zarr"):
        parser.error("--store needs zarr; install it with: pip install 'damjax[sweeps]'")
    if args.distributed and not args.store:
        parser.error("--distributed needs --store DIR, on a disk that all processes share")

    if args.distributed:
        jax.distributed.initialize()
    # Regret is a small difference of large sums: the figures are made in float64.
    jax.config.update("jax_enable_x64", True)
    # A quick run spends its time compiling.
    jax.config.update("jax_disable_most_optimizations", args.quick)
    # Not before: an option may make arrays, and several processes must have met by then.
    figures = []
    for figure in (FIGURES[name] for name in args.names or FIGURES):
        options = {option: getattr(args, option) for option in figure.options}
        try:
            figures.append(figure.sized(quick=args.quick, num_seeds=args.seeds, **options))
        except ValueError as error:
            parser.error(str(error))
    for figure in figures:
        try:
            paths = figure.make(out, sweep=sweeper(figure.name, args.store))
        except damjax.StoreError as error:
            # A store of other runs is the user's to sort out; anything else is a defect.
            parser.error(f"--store: {error}")
        except KeyboardInterrupt as stop:
            hint = "the same command goes on from there" if args.store else "--store DIR keeps what is finished"
            print(f"\n{figure.name}: {str(stop) or 'stopped'} ({hint})", file=sys.stderr)
            return STOPPED
        if jax.process_index() == 0:
            print("\n".join(f"wrote {path}" for path in paths))
    return 0


if __name__ == "__main__":
    # Before jax starts.
    damjax.use_every_core()
    keep_programs()
    sys.exit(main())
