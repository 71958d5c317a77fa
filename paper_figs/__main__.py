"""Make the figures of the paper.

Each figure is written as PNG and PDF, with its numbers as CSV and every setting, seed and version as JSON.
"""

import argparse
import importlib.util
import os
import platform
import sys
from pathlib import Path

import jax

import damjax
from paper_figs import _sweeps, bounds, figure_1, rates, sanity, sensitivity
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

FIGURES = {
    "figure_1": figure_1,
    "bounds": bounds,
    "rates": rates,
    "sensitivity": sensitivity,
    "sanity": sanity,
    "orthogonal": orthogonal,
    "spikes": spikes,
    "perfect_accuracy": perfect_accuracy,
    "landscapes": landscapes,
    "sharpness": sharpness,
    "zipf_tokens": zipf_tokens,
    "capacity": capacity,
    "correlations": correlations,
    "factorised": factorised,
    "normalization": normalization,
    "noise": noise,
    "transformer": transformer,
}


FOLDER = Path("figures")
STOPPED = 130  # what a shell calls a program that Ctrl-C ended


def keep_programs() -> None:
    """Let jax keep compiled programs between commands, a folder per machine, unless the user has named a folder."""
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "damjax" / platform.node()))


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, make the figures, say where they are."""
    parser = argparse.ArgumentParser(
        prog="python -m paper_figs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help="figures to make (default: all; see --list)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a small version in seconds, stamped QUICK, of no meaning")
    size.add_argument("--large", action="store_true", help="transformer: the larger model, for more than two cores")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder (default: {FOLDER}, or {FOLDER / 'quick'} with --quick)"
    )
    parser.add_argument("--store", type=Path, metavar="DIR", help="keep what is computed here, and resume from it")
    parser.add_argument("--distributed", action="store_true", help="one of several processes that share the work")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds per point (default: 32, or 4 with --quick)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="transformer: bigrams of this text, not Zipf's")
    parser.add_argument("--list", action="store_true", help="list the figures and stop")
    args = parser.parse_args(argv)
    if args.list:
        for name, module in FIGURES.items():
            print(f"{name:17s} {(module.__doc__ or '').splitlines()[0]}")
        return 0
    if unknown := [name for name in args.names if name not in FIGURES]:
        parser.error(f"no figure is called {', '.join(unknown)}; the figures are: {', '.join(FIGURES)}")
    if args.seeds is not None and args.seeds < 2:
        parser.error(f"--seeds must be at least 2, for an interval, but it is {args.seeds}")

    sizes = {name: value for name, value in (("large", args.large), ("text", args.text)) if value}
    if sizes and "transformer" not in args.names:
        parser.error(f"--{next(iter(sizes))} is for the figure transformer only; name it")

    out = args.out or (FOLDER / "quick" if args.quick else FOLDER)
    if out.exists() and not out.is_dir():
        parser.error(f"--out must be a folder, but {out} is a file")
    if args.store and not importlib.util.find_spec("zarr"):
        parser.error("--store needs zarr; install it with: pip install 'damjax[sweeps]'")

    if args.distributed:
        jax.distributed.initialize()
    # Regret is a small difference of large sums: the figures are made in float64.
    jax.config.update("jax_enable_x64", True)
    # A quick run spends its time compiling.
    jax.config.update("jax_disable_most_optimizations", args.quick)
    if args.text:
        # Not before: it makes arrays, and several processes must have met by then.
        try:
            sizes["text"] = transformer.read(args.text, quick=args.quick, large=args.large)
        except ValueError as error:
            parser.error(f"--text: {error}")
    for name in args.names or FIGURES:
        module = FIGURES[name]
        options = sizes if module is transformer else {}
        try:
            paths = module.make(
                out, quick=args.quick, num_seeds=args.seeds, sweep=_sweeps.sweeper(name, args.store), **options
            )
        except damjax.StoreError as error:
            # A store of other runs is the user's to sort out; anything else is a defect.
            parser.error(f"--store: {error}")
        except KeyboardInterrupt as stop:
            hint = "the same command goes on from there" if args.store else "--store DIR keeps what is finished"
            print(f"\n{name}: {str(stop) or 'stopped'} ({hint})", file=sys.stderr)
            return STOPPED
        if jax.process_index() == 0:
            print("\n".join(f"wrote {path}" for path in paths))
    return 0


if __name__ == "__main__":
    # Before jax starts.
    damjax.use_every_core()
    keep_programs()
    sys.exit(main())
