"""A figure of the paper as one record, and how it is made from it: compute, draw, save."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib as mpl
from matplotlib.figure import Figure as Picture

from damjax import plotting
from paper_figs import output, panels
from paper_figs.sweeps import Sweep, quiet

Tables = Mapping[str, Sequence[Mapping[str, Any]]]


class Option(NamedTuple):
    """What one figure can be asked for beyond its number of seeds.

    Attributes:
        help: what it does, in a line.
        change: ``change(protocol, value) -> protocol``; it raises ValueError for a value that cannot be.
        reading: how argparse reads it after ``--name``: arguments of ``add_argument``.
        is_size: whether it sets the size of the figure, so that a quick one cannot have it.
    """

    help: str
    change: Callable[[Any, Any], Any]
    reading: Mapping[str, Any]
    is_size: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure: what its runs are, how its numbers come about, how they are drawn and written down.

    Attributes:
        name: of the figure, its files and its stores.
        about: the docstring of its module, whose first line says what it shows.
        claim: what it shows at full size, written above the picture.
        protocol: the sizes, settings and seeds of its runs, a frozen dataclass.
        quick: changes to the protocol for a version of seconds, which shows nothing.
        compute: ``compute(protocol, sweep) -> numbers``; what else it takes by name, ``make`` hands on.
        draw: ``draw(picture, numbers, protocol)`` on an empty picture, in the style of ``damjax.plotting``.
        size: of the picture, width and height in inches.
        tables: ``tables(numbers, protocol)``: rows of the CSV files, by what their names end in.
        facts: ``facts(numbers, protocol)``: what the JSON file says beside the protocol, or instead of its fields.
        options: by name, what this figure, and others that have it, can be asked for.
        needs: modules of the extra ``recall`` without which it cannot be made.
        is_quick: whether ``sized`` made it the quick version.
        chosen: the options that ``sized`` was asked for.
    """

    name: str
    about: str | None
    claim: str
    protocol: Any
    quick: Mapping[str, Any]
    compute: Callable[..., Any]
    draw: Callable[[Picture, Any, Any], None]
    size: tuple[float, float]
    tables: Callable[[Any, Any], Tables] = lambda numbers, protocol: panels.tabulate(numbers)
    facts: Callable[[Any, Any], Mapping[str, Any]] = lambda numbers, protocol: {}
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    needs: Sequence[str] = ()
    is_quick: bool = False
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def sized(self, *, quick: bool = False, num_seeds: int | None = None, **options: Any) -> "Figure":
        """This figure at another size.

        Args:
            quick: the version of seconds, which tunes on as many seeds as it evaluates.
            num_seeds: of every point, where anything is random; None for the protocol's own.
            options: values by name, of those in ``options``; None and False ask for nothing.

        Raises:
            ValueError: an option that this figure does not have, a value that cannot be.
        """
        if unknown := sorted(options.keys() - self.options.keys()):
            raise ValueError(f"options of {self.name} must be among {sorted(self.options)}, but there is {unknown[0]}")
        changes = dict(self.quick) if quick else {}
        if num_seeds is not None and hasattr(self.protocol, "num_seeds"):
            changes["num_seeds"] = num_seeds
        protocol = dataclasses.replace(self.protocol, **changes)
        if quick and hasattr(protocol, "num_tuning_seeds"):
            protocol = dataclasses.replace(protocol, num_tuning_seeds=protocol.num_seeds)
        chosen = {name: options[name] for name in self.options if options.get(name)}
        for name, value in chosen.items():
            try:
                protocol = self.options[name].change(protocol, value)
            except ValueError as error:
                raise ValueError(f"--{name}: {error}") from error
        return dataclasses.replace(self, protocol=protocol, is_quick=quick, chosen=chosen)

    @property
    def command(self) -> str:
        """What makes this figure from the command line."""
        words = [f"python -m paper_figs {self.name}"]
        # A figure in which nothing is random has no seeds.
        if hasattr(self.protocol, "num_seeds"):
            words.append(f"--seeds {self.protocol.num_seeds}")
        if self.is_quick:
            words.append("--quick")
        words += [f"--{name}" if value is True else f"--{name} {value}" for name, value in self.chosen.items()]
        return " ".join(words)

    def picture(self, numbers: Any) -> Picture:
        """What ``compute`` returned for this protocol, drawn."""
        with mpl.rc_context(plotting.style()):
            picture = Picture(figsize=self.size, layout="constrained")
            self.draw(picture, numbers, self.protocol)
        return picture

    def make(self, out: Path, *, sweep: Sweep = quiet, **arguments: Any) -> list[Path]:
        """Compute, draw and save the figure; the files.

        Args:
            out: folder.
            sweep: computes.
            arguments: of ``compute``, by name, such as the ``algorithms`` of figures of regret. The command line has
                none of them, and the claim is not about them: neither is written then.
        """
        numbers = self.compute(self.protocol, sweep, **arguments)
        settings = {"dtype": str(jax.numpy.result_type(float))} | dataclasses.asdict(self.protocol)
        settings |= self.facts(numbers, self.protocol)
        if not arguments:
            settings["command"] = self.command
        return output.save(
            self.name,
            self.picture(numbers),
            self.tables(numbers, self.protocol),
            settings,
            out,
            claim="" if self.chosen or arguments else self.claim,
            quick=self.is_quick,
        )
