"""What the checks share: the precisions to try, and comparisons that say what differs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damjax._checks import brief, check_array

__all__ = ["cast", "check_parameters", "check_same", "digits", "dtypes", "require"]


def dtypes() -> list[np.dtype]:
    """The precisions in which laws are tried."""
    names = ("float32", "float64") if jax.config.read("jax_enable_x64") else ("float32",)
    return [np.dtype(name) for name in names]


def digits(dtype: jax.typing.DTypeLike, share: float = 1 / 2) -> float:
    """The relative tolerance of a comparison to this share of a dtype's digits.

    Example:
        >>> round(digits(np.float32), 6)
        0.000345
    """
    return float(jnp.finfo(dtype).eps) ** share


def cast(tree: Any, dtype: jax.typing.DTypeLike) -> Any:
    """Its floating-point leaves in this precision, strongly typed; others as they are."""

    def leaf(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(leaf, tree)


def check_parameters(name: str, memory: Any) -> None:
    """Raise unless every leaf is an array of real numbers, and there is one."""
    leaves = jax.tree.leaves(memory)
    if not leaves:
        raise ValueError(
            f"{name} must hold an array, but it is {brief(memory)}; give a tree with the shapes of a memory"
        )
    for leaf in leaves:
        check_array(name, leaf, "...")
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"{name} must hold floating-point arrays, but one is {jnp.result_type(leaf)}; a shape is a tuple"
            )


def require(holds: Any, law: str, numbers: str, fix: str) -> None:
    """Raise unless the law holds."""
    if not holds:
        raise ValueError(f"{law}, but {numbers}; {fix}")


def check_same(law: str, fix: str, first: Any, second: Any, tolerance: float = 0.0) -> None:
    """Raise unless two trees have the same structure, shapes and dtypes, and values within a relative tolerance.

    Args:
        law: what both being the same means.
        fix: the likely one, where they are not.
        first: a tree of arrays.
        second: the other one.
        tolerance: of every leaf, relative to its largest entry; NaN equals NaN.

    Raises:
        ValueError: the law, and the first entry that differs.

    Example:
        >>> check_same("f must be pure", "use no counter", {"x": jnp.ones(2)}, {"x": jnp.array([1.0, 2.0])})
        Traceback (most recent call last):
        ValueError: f must be pure, but ['x'][1] is 1.0 in one and 2.0 in the other; use no counter
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(first)
    others, other = jax.tree_util.tree_flatten_with_path(second)
    require(structure == other, law, f"one is {structure} and the other {other}", fix)
    for (path, x), (_, y) in zip(leaves, others, strict=True):
        place, x, y = jax.tree_util.keystr(path) or "it", np.asarray(x), np.asarray(y)
        types = [f"{z.dtype} of shape {z.shape}" for z in (x, y)]
        require(types[0] == types[1], law, f"{place} is {types[0]} in one and {types[1]} in the other", fix)
        differ = _differ(x, y, tolerance)
        if np.any(differ):
            worst = tuple(np.argwhere(differ)[0].tolist())
            entry = f"{place}{list(worst) if worst else ''}"
            require(False, law, f"{entry} is {x[worst]} in one and {y[worst]} in the other", fix)


def _differ(x: np.ndarray, y: np.ndarray, tolerance: float) -> np.ndarray:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return np.asarray(x != y)
    x, y = x.astype(float), y.astype(float)
    size = max(float(np.max(np.abs(z), where=np.isfinite(z), initial=0)) for z in (x, y))
    return np.asarray(~np.isclose(x, y, rtol=0, atol=tolerance * size, equal_nan=True))
