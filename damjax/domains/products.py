"""Products of sets, one for each part of a memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from damjax._arrays import root
from damjax._checks import brief
from damjax._pytrees import register_dataclass
from damjax.domains.domain import Boundary, Domain, as_domain
from damjax.types import ArrayLike

__all__ = ["Product", "product"]


@register_dataclass()
@dataclass(frozen=True)
class Product(Domain):
    """{X : every part of X lies in a set of its own}.

    Attributes:
        parts: the sets, by name or in order.
    """

    parts: dict[Any, Domain] | tuple[Domain, ...]

    @property
    def constrained(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(part.constrained for part in self.sets)

    @property
    def diameter(self) -> float | ArrayLike:  # pyright: ignore[reportIncompatibleVariableOverride]
        return _root_sum_squares([part.diameter for part in self.sets])

    def check_memory(self, memory: Any) -> None:
        parts = jax.eval_shape(lambda tree: self._split(tree)[0], memory)
        for domain, part in zip(self.sets, parts, strict=True):
            domain.check_memory(part)

    def project(self, tree: Any) -> Any:
        parts, join = self._split(tree)
        return join([domain.project(part) for domain, part in zip(self.sets, parts, strict=True)])

    def support(self, direction: Any) -> Any:
        parts, join = self._split(direction)
        return join([domain.support(part) for domain, part in zip(self.sets, parts, strict=True)])

    def width(self, memory: Any) -> Float[Array, ""]:
        parts, _ = self._split(memory)
        return _root_sum_squares([domain.width(part) for domain, part in zip(self.sets, parts, strict=True)])

    def reach(self, memory: Any) -> Float[Array, ""]:
        parts, _ = self._split(memory)
        return _root_sum_squares([domain.reach(part) for domain, part in zip(self.sets, parts, strict=True)])

    def boundary(self, memories: np.ndarray) -> Boundary | None:
        known = [part.boundary(np.asarray(memories)[:, i, None]) for i, part in enumerate(self.sets)]
        shares = [np.asarray(each.values > each.threshold, float) for each in known if each is not None]
        if not shares or isinstance(self.parts, Mapping):
            return None
        words = "A share of {:.3g} of the best memory's parts is at the boundary of its set"
        return Boundary(np.mean(shares, axis=0), 0.0, words)

    @property
    def sets(self) -> list[Domain]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The sets in the order of the parts."""
        return list(self.parts.values() if isinstance(self.parts, Mapping) else self.parts)

    def _split(self, tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
        """The parts of a memory in the order of the sets, and how to put such parts together again."""
        if isinstance(self.parts, Mapping):
            if not isinstance(tree, Mapping) or set(tree) != set(self.parts):
                names = list(tree) if isinstance(tree, Mapping) else brief(jax.tree.structure(tree))
                raise ValueError(f"domain must have one set per part of a memory, {names}, but has {list(self.parts)}")
            # Mappings of other kinds than dict have an order of their own.
            named, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda part: part is not tree)
            order = [path[0].key for path, _ in named]
            places = [list(self.parts).index(name) for name in order]
            return [tree[name] for name in self.parts], lambda parts: structure.unflatten([parts[i] for i in places])
        if hasattr(tree, "shape"):
            if not tree.shape:
                raise ValueError(
                    "domain must have one set per part of a memory, but a memory of one number has no parts"
                )
            # An array is the sequence of its rows.
            parts, join = [tree[i] for i in range(tree.shape[0])], jnp.stack
        else:
            parts, structure = jax.tree.flatten(tree, is_leaf=lambda part: part is not tree)
            join = structure.unflatten
        if len(parts) != len(self.parts):
            raise ValueError(
                f"domain must have one set per part of a memory, {len(parts)} (the rows of an array are its parts), but"
                f" has {len(self.parts)}"
            )
        return parts, join


def product(parts: Mapping[Any, Any] | Sequence[Any]) -> Product:
    """The memories whose parts each lie in a set of their own; the diameter is the root of the sum of squares.

    Args:
        parts: sets by the names of the memory's parts, for a memory that is a dict; or as many sets, in order, as any
            other pytree has parts, or as an array has rows.

    Raises:
        ValueError: what is no set. Where it is used: a memory of other parts.

    Example:
        >>> from damjax.domains import box, frobenius_ball, l1_ball, unconstrained
        >>> both = product({"keys": frobenius_ball(1.5), "values": box(0.0, 1.0, shape=(4,))})
        >>> both.project({"keys": jnp.array([0.0, 3.0]), "values": jnp.array([-1.0, 0.0, 0.5, 2.0])})["values"].tolist()
        [0.0, 0.0, 0.5, 1.0]
        >>> float(both.diameter)
        3.6055...
        >>> product([l1_ball(1.0), unconstrained()]).project(jnp.array([[2.0, 0.0], [2.0, 0.0]])).tolist()
        [[1.0, 0.0], [2.0, 0.0]]
    """
    if not isinstance(parts, (Mapping, Sequence)) or isinstance(parts, str) or not parts:
        raise ValueError(f"parts must be sets by name or in order, but it is {brief(repr(parts))}")
    if isinstance(parts, Mapping):
        return Product({name: as_domain(part, f"parts[{name!r}]") for name, part in parts.items()})
    return Product(tuple(as_domain(part, f"parts[{i}]") for i, part in enumerate(parts)))


def _root_sum_squares(lengths: list[Any]) -> Float[Array, ""]:
    return root(jnp.asarray(sum(jnp.square(jnp.asarray(length)) for length in lengths)))
