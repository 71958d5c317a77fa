"""How the figures compute: every batch of runs goes through ``damjax.sweep``, kept where the user asked for it."""

from pathlib import Path
from typing import Any, Protocol

import damjax


class Sweep(Protocol):
    """``damjax.sweep`` under a name, unique in its figure."""

    def __call__(self, name: str, run: Any, /, *, keys: Any, **arguments: Any) -> Any:
        """The results; arrays through ``np.asarray(results["name"])``, with or without xarray."""
        ...


def sweeper(figure: str, store: Path | None = None, *, progress: bool = True) -> Sweep:
    """The sweeps of a figure: on every local device, each with a bar, and in a store of its own in ``store``.

    Args:
        figure: its name.
        store: folder of the stores, one below it for each sweep; None keeps nothing.
        progress: whether to show bars.
    """

    def sweep(name: str, run: Any, /, *, keys: Any, **arguments: Any) -> Any:
        path = None if store is None else store / figure / name
        return damjax.sweep(
            run, keys=keys, store=path, progress=f"{figure}: {name}" if progress else False, **arguments
        )

    return sweep


quiet: Sweep = sweeper("figure", progress=False)
