"""Classes of ours as pytrees, and what tells one class from another to a compiled function.

From 0.10 on, jaxlib takes two classes that were given to ``jax.tree_util.register_dataclass`` for the same structure
when their fields have the same names: ``jax.jit`` asks whether structures are equal only where their hashes fall into
one place, so now and then, and not in every process, a compiled function runs the program of the other class. A ball of
one norm would be taken for a ball of another. Structures of classes that say themselves how to take them apart are
compared by class.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax

__all__ = ["node_types", "register_dataclass"]

Class = TypeVar("Class", bound=type)


def register_dataclass(*, static: Sequence[str] = ()) -> Callable[[Class], Class]:
    """Make a dataclass a pytree of its fields; the static ones are part of its structure, as shapes are.

    Args:
        static: names of fields that compiled functions may look at, and that are hashable.
    """

    def register(cls: Class) -> Class:
        names = [field.name for field in dataclasses.fields(cls)]
        data = [name for name in names if name not in static]
        if unknown := set(static) - set(names):
            raise TypeError(f"{cls.__name__} has no fields {unknown}")

        def flatten(instance: Any) -> tuple[list[Any], tuple[Any, ...]]:
            children = [(jax.tree_util.GetAttrKey(name), getattr(instance, name)) for name in data]
            return children, tuple(getattr(instance, name) for name in static)

        def unflatten(meta: tuple[Any, ...], children: Iterable[Any]) -> Any:
            # Not through __init__, which may check: what JAX puts here may be gradients, tracers or axes.
            instance = object.__new__(cls)
            for name, value in zip([*static, *data], [*meta, *children], strict=True):
                object.__setattr__(instance, name, value)
            return instance

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
        return cls

    return register


def node_types(tree: Any) -> tuple[type, ...]:
    """The classes of all nodes of a pytree, from the root down: a static argument beside trees of users' classes."""

    def of(structure: Any) -> list[type]:
        node = structure.node_data()
        below = [kind for child in structure.children() for kind in of(child)]
        return below if node is None else [node[0], *below]

    return tuple(of(jax.tree.structure(tree)))
