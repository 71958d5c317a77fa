"""The benchmark tables: ``python -m tests.benchmarks [table ..]``, all of them by default."""

import argparse
import os

import jax

# Before anything touches a device: one XLA device per core, so that runs can be spread over all of them.
jax.config.update("jax_num_cpu_devices", os.cpu_count())

from tests.benchmarks import channels, gradients, heads, kernel, network, particles  # noqa: E402

TABLES = ("kernel", "heads", "channels", "gradients", "particles", "network")


def main() -> None:
    """Run the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="table", help=f"of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--steps", type=int, default=2000, help="T (default 2000)")
    parser.add_argument("--seeds", type=int, default=32, help="seeds (default 32), times 11 correlations")
    args = parser.parse_args()
    if unknown := set(args.tables) - set(TABLES):
        parser.error(f"no table is called {', '.join(sorted(unknown))}; the tables are {', '.join(TABLES)}")
    wanted = args.tables or TABLES
    if "kernel" in wanted:
        kernel.table(args.seeds, args.steps)
    if "heads" in wanted:
        heads.table(args.seeds, args.steps)
    if "channels" in wanted:
        channels.table(args.seeds, min(args.steps, 500))
    if "gradients" in wanted:
        gradients.table(args.steps)
    if "particles" in wanted:
        particles.table(min(args.steps, 1000))
    if "network" in wanted:
        network.table(min(args.steps, 200))


if __name__ == "__main__":
    main()
