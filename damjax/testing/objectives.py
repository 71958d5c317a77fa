"""The laws of objectives."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damjax._arrays import promoting, recall
from damjax._checks import check_array, check_count
from damjax._laws import check_linear_memory, check_shapes, check_slopes, num_features
from damjax.objectives import General, MemoryObjective, Objective, as_objective
from damjax.testing.comparing import cast, check_parameters, check_same, digits, dtypes, require
from damjax.types import ArrayLike

__all__ = ["check_objective"]

SCALES = (0.1, 1.0, 3.0)  # of memories
RADII = (0.5, 4.0)
SHARES = (0.2, 0.5, 0.9)


class Compiled(NamedTuple):
    """Functions of an objective, compiled."""

    value: Callable[..., Any]
    gradient: Callable[..., Any]
    slope: Callable[..., Any]


class Point(NamedTuple):
    """Arguments of ``value`` and ``gradient``."""

    params: Any
    key: Any
    value: Any
    gate: Any
    time: Any


def check_objective(
    objective: Any,
    *,
    key_dim: int = 3,
    value_dim: int = 2,
    params: Any = None,
    values: ArrayLike | None = None,
    gate: float | ArrayLike | None = None,
    num_points: int = 8,
    seed: int = 0,
) -> None:
    """Raise where an objective breaks a law that algorithms, regret or bounds rely on.

    Of every objective: ``value`` is one number of the dtype of the memory, ``gradient`` has the structure of the memory
    and is the derivative of ``value``, and both compute the same under jit and vmap. Of an ``Objective`` also:
    ``residual`` is the derivative of ``loss`` in the prediction, what the kind says of its derivatives is true, the
    value is convex where the kind says so, and ``lipschitz`` bounds the gradients on a ball. Points at which the value
    is not finite are left out, so that a loss may be defined for some predictions only.

    Args:
        objective: what a factory of ``damjax.objectives`` gives, or an object of one's own with ``value``.
        key_dim: dk, of the keys that are drawn.
        value_dim: dv, where no values are given.
        params: an example of one memory, any pytree; its shapes count. Only memories (dv, df) go without.
        values: what the associations may hold, (P, dv), where the loss assumes something of values, as that they embed
            a class. By default random distributions.
        gate: an example of a gate where the objective is gated; by default one number.
        num_points: how many are tried in each precision.
        seed: of the points.

    Raises:
        ValueError: the law that is broken, the numbers and the likely fix.

    Example:
        >>> import damjax
        >>> check_objective(damjax.objectives.delta_net())
        >>> check_objective(damjax.objectives.delta_net()._replace(kind=damjax.objectives.Linear()))
        Traceback (most recent call last):
        ValueError: objective.kind must be true of the loss: ...
    """
    objective = as_objective(objective)
    for name, count in (("key_dim", key_dim), ("value_dim", value_dim), ("num_points", num_points)):
        check_count(name, count)
    check_count("seed", seed, allow_zero=True)
    for name, array, axes in (("values", values, "P dv"), ("gate", gate, "...")):
        if array is not None:
            check_array(name, array, axes)
    if params is not None or not isinstance(objective, Objective):
        check_parameters("params", params)
    choices = np.random.default_rng(seed).dirichlet(np.ones(value_dim), num_points) if values is None else values
    for dtype in dtypes():
        rng = np.random.default_rng(seed)
        memory = _memory(objective, params, key_dim, np.shape(choices)[1], dtype)
        points = [_draw(rng, n, memory, key_dim, choices, objective.gated, gate, dtype) for n in range(num_points)]
        _check_number(objective, points[0])
        compiled = Compiled(*map(_compiled, (objective.value, objective.gradient, jax.grad(objective.value))))
        points = [point for point in points if np.isfinite(compiled.value(*point))]
        require(
            points,
            "objective.value must be finite at random memories, keys and values",
            "it is at none that was tried",
            "where it assumes something of values, pass some as values=",
        )
        for point in points:
            _check_gradient(compiled, point)
            if isinstance(objective, Objective):
                _check_parts(objective, point)
                _check_convex(objective, compiled, point, rng)
        if isinstance(objective, Objective):
            _check_lipschitz(objective, compiled, points, rng)
        _check_transformations(objective, points)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(partial(promoting, function))


def _memory(objective: Objective | MemoryObjective, params: Any, key_dim: int, value_dim: int, dtype: np.dtype) -> Any:
    """The shapes of one memory."""
    if params is not None:
        return cast(params, dtype)
    assert isinstance(objective, Objective)
    check_linear_memory(objective)
    return jnp.zeros((value_dim, num_features(objective, (key_dim,), dtype)), dtype)


def _draw(
    rng: np.random.Generator,
    number: int,
    memory: Any,
    key_dim: int,
    choices: ArrayLike,
    gated: bool,
    gate: float | ArrayLike | None,
    dtype: np.dtype,
) -> Point:
    scale = SCALES[number % len(SCALES)]
    params = jax.tree.map(lambda leaf: scale * rng.normal(size=jnp.shape(leaf)), memory)
    value = np.asarray(choices)[number % len(choices)]
    gates = rng.uniform(0.2, 1, np.shape(0 if gate is None else gate)) if gated else None
    return cast(Point(params, rng.normal(size=key_dim), value, gates, float(1 + 2 * number)), dtype)


def _check_number(objective: Objective | MemoryObjective, point: Point) -> None:
    value, dtype = jax.eval_shape(partial(promoting, objective.value), *point), point.key.dtype
    require(
        getattr(value, "shape", None) == () and value.dtype == dtype,
        f"objective.value must be one number of the dtype of memory and association, {dtype}",
        f"it is {getattr(value, 'dtype', type(value).__name__)} of shape {getattr(value, 'shape', None)}",
        "sum over entries, and make constants with jnp.asarray(constant, prediction.dtype)",
    )


def _check_gradient(compiled: Compiled, point: Point) -> None:
    slope = compiled.slope(*point)
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope)):
        return  # where autodiff has none there is nothing to compare with
    check_same(
        "objective.gradient must be the derivative of objective.value in the memory, as jax.grad(objective.value) is",
        "leave gradient out where that will do",
        compiled.gradient(*point),
        slope,
        digits(point.key.dtype),
    )


def _check_parts(objective: Objective, point: Point) -> None:
    features = objective.features(point.key)
    prediction = recall(point.params, features)
    check_shapes(objective, point.value)
    check_slopes(objective, prediction, point.value, point.time)


def _check_convex(objective: Objective, compiled: Compiled, point: Point, rng: np.random.Generator) -> None:
    if not objective.kind.convex:
        return
    other = point._replace(params=cast(rng.normal(size=point.params.shape), point.key.dtype))
    ends = [float(compiled.value(*end)) for end in (other, point)]
    for share in SHARES:
        between = float(compiled.value(*point._replace(params=share * point.params + (1 - share) * other.params)))
        chord = (1 - share) * ends[0] + share * ends[1]
        slack = digits(point.key.dtype) * max(1.0, *map(abs, ends))
        require(
            not between > chord + slack,
            f"objective.value must be convex in the memory, since its kind is {objective.kind}",
            f"between two memories it is {between:.6g}, above the {chord:.6g} of the chord",
            "declare General() for a loss that is not convex; a ridge must not be negative",
        )


def _check_lipschitz(objective: Objective, compiled: Compiled, points: list[Point], rng: np.random.Generator) -> None:
    if isinstance(objective.kind, General):
        return
    lipschitz = _compiled(objective.lipschitz)
    for point, radius in itertools.product(points, RADII):
        dtype = point.key.dtype
        bound = float(lipschitz(jnp.asarray(radius, dtype), *point[1:]))
        # The steepest memory of a quadratic loss is along its gradient at zero, one way or the other.
        steepest = np.asarray(compiled.gradient(*point._replace(params=jnp.zeros_like(point.params))), float)
        for direction in (steepest, -steepest, *rng.normal(size=(2, *steepest.shape))):
            size = np.linalg.norm(direction)
            memory = cast(radius * direction / (size if size > 0 else 1), dtype)
            norm = float(np.linalg.norm(compiled.gradient(*point._replace(params=memory))))
            require(
                not norm > bound * (1 + digits(dtype)),
                "objective.lipschitz must bound ||gradient|| on the ball of its radius",
                f"within {radius} there is a gradient of norm {norm:.6g}, above the bound, {bound:.6g}",
                "the smoothness, curvature or residual_bound that the kind declares is too small",
            )


def _check_transformations(objective: Objective | MemoryObjective, points: list[Point]) -> None:
    """The first point by itself, without compilation, and all of them at once."""
    fix = "compute with jax.numpy, and let no branch depend on values"
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    for name, function in (("value", objective.value), ("gradient", objective.gradient)):
        first = promoting(function, *points[0])
        law = f"objective.{name} must be the same under jax.jit as without"
        check_same(law, fix, _compiled(function)(*points[0]), first, digits(points[0].key.dtype))
        law = f"objective.{name} must be the same under jax.vmap as for each point by itself"
        mapped = jax.tree.map(lambda leaf: leaf[0], promoting(jax.vmap(function), *together))
        check_same(law, fix, mapped, first, digits(points[0].key.dtype))
