"""The laws of objectives and sets, tried on those of a user's own where they are first used.

The library's own keep them by its tests, and cost nothing here. Whatever is traced is left out.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damjax import domains
from damjax._arrays import check_heads, norm, promoting
from damjax._checks import brief, concrete
from damjax.domains import Domain, as_domain, has_support
from damjax.objectives import General, Objective, as_objective
from damjax.types import ArrayLike

TOLERANCE = 1e-3  # relative; projections and slopes that are found by iteration are seldom worse
TIMES = (1.0, 3.0)
FAR = 10.0  # times the diameter, or of norm, where that is not known


def check_linear_memory(objective: Any) -> None:
    """Raise unless it is an Objective, whose best memory may be found and whose slope may be bounded by its kind."""
    if not isinstance(as_objective(objective), Objective):
        raise ValueError(
            f"objective must be one of linear memories, a damjax.objectives.Objective, where a best memory or a bound"
            f" on the slope is asked for, but it is {brief(objective)}, of whose loss nothing is known but values and"
            f" gradients; damjax.regret.regret_against compares its losses with those of full-information OGD on the"
            f" same seeds, damjax.hindsight.best_fit finds the best of several offline fits"
        )


def num_features(objective: Objective, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> int:
    """df of one cue's features, or a ValueError where they are no vector of the cue's dtype, or none for each head."""
    features = jax.eval_shape(objective.features, jax.ShapeDtypeStruct(shape, dtype))
    leading = np.shape(features)[:-1] if getattr(features, "ndim", 0) else None
    if leading != objective.heads or features.dtype != dtype:
        expected = "a vector (df,)" if not objective.heads else f"a row for each head, ({objective.heads[0]}, df),"
        fix = "; damjax.features.MultiHead(num_heads, function) is a map of several heads" if leading else ""
        raise ValueError(
            f"objective.features must map a cue {shape} to {expected} of its dtype, {np.dtype(dtype)}, but it gives"
            f" {_described(features)}{fix}"
        )
    return features.shape[-1]


def check_objective(objective: Objective, value_dim: int, dtype: jax.typing.DTypeLike) -> None:
    """Raise where an objective of the user's own breaks a law that algorithms, regret or bounds rely on.

    It is tried at two predictions and times and at the value (1, 0, .., 0), which is a class, a distribution and of
    norm 1, whatever else the loss may assume of values.
    """
    check_heads(objective.heads, value_dim)
    if _is_our_objective(objective):
        return
    first, second = np.random.default_rng(0).normal(size=(2, value_dim))
    with jax.ensure_compile_time_eval():
        value = jnp.zeros(value_dim, dtype).at[0].set(1)
        check_shapes(objective, value)
        # Losses with a logarithm are defined at the first, and others at both.
        for prediction, time in zip((np.abs(first), second), TIMES, strict=True):
            check_slopes(objective, *(jnp.asarray(x, dtype) for x in (prediction, value, time)))


def _is_our_objective(objective: Objective) -> bool:
    """Whether it is as a factory of ``damjax.objectives`` made it, whose tests have tried its laws."""
    made_with = getattr(objective.loss, "made_with", None)
    parts = (objective.residual, objective.ridge, objective.kind)
    return made_with is not None and all(mine is original for mine, original in zip(parts, made_with, strict=True))


def check_shapes(objective: Objective, value: jax.Array) -> None:
    time = jax.ShapeDtypeStruct((), value.dtype)
    loss = jax.eval_shape(functools.partial(promoting, objective.loss), value, value, time)
    if getattr(loss, "shape", None) != ():
        raise ValueError(f"objective.loss must return one number, but it gives {_described(loss)}")
    residual = jax.eval_shape(functools.partial(promoting, objective.residual), value, value, time)
    if getattr(residual, "shape", None) != value.shape or residual.dtype != value.dtype:
        raise ValueError(
            f"objective.residual must have the shape and dtype of the prediction, {_described(value)}, but it gives"
            f" {_described(residual)}"
        )


def check_slopes(objective: Objective, prediction: jax.Array, value: jax.Array, time: jax.Array) -> None:
    """Raise unless loss, residual and what the kind says of their derivatives agree at one point."""
    residual = promoting(objective.residual, prediction, value, time)
    slope = promoting(jax.grad(objective.loss), prediction, value, time)
    jacobian = promoting(jax.jacrev(objective.residual), prediction, value, time)
    place = f"at prediction {_shown(prediction)}, value {_shown(value)} and time {time}"
    tolerance = _tolerance(prediction.dtype)
    known, wanted, second = (concrete(x) for x in (residual, slope, jacobian))
    # Where autodiff has no slope there is nothing to compare with.
    if known is None or wanted is None or second is None or not np.all(np.isfinite(wanted)):
        return
    if not _close(known, wanted, tolerance):
        raise ValueError(
            f"objective.residual must be the derivative of objective.loss in the prediction, but {place} it is"
            f" {_shown(known)} and the derivative {_shown(wanted)}; jax.grad(loss) is it"
        )
    least, most = (concrete(bound) for bound in objective.kind.curvatures)
    curvature = np.linalg.eigvalsh(np.asarray(second + second.T, float) / 2)
    if least is not None and most is not None:
        slack = tolerance * max(1.0, abs(float(most)))
        if curvature[0] < least - slack or curvature[-1] > most + slack:
            raise ValueError(
                f"objective.kind must be true of the loss: the eigenvalues of a {objective.kind} loss's second"
                f" derivative in the prediction lie in [{least:g}, {most:g}], but {place} they are {_shown(curvature)};"
                f" declare Smooth(smoothness) for a convex loss, General() where nothing is known"
            )
    if isinstance(objective.kind, General):
        return
    reach = norm(prediction)
    bound = promoting(objective.kind.steepest, lambda z: objective.residual(z, value, time), value, reach)
    size = np.linalg.norm(np.asarray(known, float))
    if (most := concrete(bound)) is not None and size > (1 + tolerance) * most:
        raise ValueError(
            f"objective.kind must bound the slope of the loss, but {place} ||residual|| is {size:.6g}, above the {most}"
            f" of {objective.kind}; its residual_bound or smoothness is too small"
        )


def check_domain(domain: Any, example: Any) -> None:
    """Raise where a set of the user's own breaks a law of sets, on memories like ``example``.

    Args:
        domain: the set; the library's own cost nothing.
        example: one agent's memory, a pytree of arrays or of their shapes and dtypes.

    Raises:
        ValueError: the law, or how the memory does not fit the set.
    """
    if _is_our_set(domain):
        as_domain(domain).check_memory(example)
    else:
        try_domain(domain, example)


def _is_our_set(domain: Any) -> bool:
    """Whether its class is one of damjax.domains, and those of the sets that it is made of."""
    ours = type(domain) in vars(domains).values()
    return ours and all(map(_is_our_set, domain.sets))


def try_domain(domain: Any, example: Any) -> None:
    """Raise where a set breaks a law of sets, on a few memories like ``example``; see ``check_domain``."""
    domain = as_domain(domain)
    domain.check_memory(example)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), example)
    _check_kept("domain.project", domain.project, like)
    diameter = concrete(domain.diameter)
    if diameter is not None and not (diameter.shape == () and diameter.dtype.kind in "iuf" and diameter >= 0):
        raise ValueError(f"domain.diameter must be one number, non-negative or infinite, but it is {domain.diameter}")
    tolerance = max(_tolerance(leaf.dtype) for leaf in jax.tree.leaves(like))
    with jax.ensure_compile_time_eval():
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        width = concrete(domain.width(zeros))
        distance = FAR if width is None or not np.isfinite(width) else FAR * max(1.0, float(width))
        directions = _directions(like)
        points = [domain.project(_scaled(direction, distance)) for direction in directions]
        points.append(domain.project(zeros))
        again, reach = domain.project(points[0]), concrete(domain.reach(zeros))
    flat = [entries for point in (*points, again) if (entries := _flat(point)) is not None]
    if len(flat) < len(points) + 1:
        return
    near, twice = np.stack(flat[:-1]), flat[-1]
    _check_projections(near, twice, width, distance, tolerance)
    longest = np.linalg.norm(near, axis=1).max()
    if reach is not None and longest > (1 + tolerance) * reach:
        raise ValueError(
            f"domain.reach must be at least the norm of every memory of the set, but it is {reach} and domain.project"
            f" leads to a memory of norm {longest:.6g}"
        )
    if getattr(domain.contains, "__func__", None) is not Domain.contains:
        with jax.ensure_compile_time_eval():
            contained = concrete(domain.contains(points[0]))
        if contained is not None and not np.all(contained):
            raise ValueError("domain.contains must be true of what domain.project gives, but it is not")
    if has_support(domain):
        _check_kept("domain.support", domain.support, like)
        for direction in directions:
            _check_support(domain, direction, near, width, tolerance)


def _check_projections(
    points: np.ndarray, again: np.ndarray, width: np.ndarray | None, distance: float, tolerance: float
) -> None:
    """Of two opposite memories at a distance from zero, and of zero, each (3, entries); and of the first one twice."""
    if not np.all(np.isfinite(points)):
        raise ValueError(f"domain.project must give finite memories, but of one of norm {distance:g} it does not")
    if not _close(again, points[0], tolerance):
        raise ValueError(
            "domain.project must leave points of the set where they are, but projecting twice moves a memory by"
            f" {_distance(again, points[0]):.3g}"
        )
    apart = _distance(points[0], points[1])
    if width is not None and apart > (1 + tolerance) * width:
        raise ValueError(
            f"domain.diameter must be the largest distance of two points of the set, but it is {width} and"
            f" domain.project leads to two points {apart:.6g} apart"
        )
    if apart > 2 * (1 + tolerance) * distance:
        raise ValueError(
            f"domain.project must not move points apart, but two memories at distance {2 * distance:g} become"
            f" {apart:.6g}"
        )


def _check_support(
    domain: Domain, direction: Any, points: np.ndarray, width: np.ndarray | None, tolerance: float
) -> None:
    """Raise unless what the support gives lies in the set, and no point of the set further along the direction."""
    with jax.ensure_compile_time_eval():
        farthest = domain.support(direction)
        nearest = domain.project(farthest)
    along, end, inside = _flat(direction), _flat(farthest), _flat(nearest)
    if along is None or end is None or inside is None:
        return
    if not np.all(np.isfinite(end)):
        if width is not None and np.isfinite(width):
            raise ValueError("domain.support must give finite memories of a bounded set, but it does not")
        return
    if not _close(inside, end, tolerance):
        raise ValueError(
            f"domain.support must give a memory of the set, but the projection moves it by {_distance(inside, end):.3g}"
        )
    best, size = np.max(points @ along), np.linalg.norm([*points, end], axis=1).max()
    if end @ along < best - tolerance * size:
        raise ValueError(
            f"domain.support must give a memory S of the set with the largest <direction, S>, but that is"
            f" {end @ along:.6g} and domain.project leads to one with {best:.6g}; did it minimise?"
        )


def _check_kept(name: str, function: Callable[[Any], Any], like: Any) -> None:
    """Raise unless the function gives memories like those it takes."""
    image = jax.eval_shape(function, like)
    kept = jax.tree.structure(image) == jax.tree.structure(like) and all(
        one.shape == other.shape and one.dtype == other.dtype
        for one, other in zip(jax.tree.leaves(image), jax.tree.leaves(like), strict=True)
    )
    if not kept:
        raise ValueError(
            f"{name} must keep shape and dtype of a memory, {_described(like)}, but it gives {_described(image)}"
        )


def _directions(like: Any) -> list[Any]:
    """Two opposite memories of norm 1."""
    rng = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(like)
    draws = [rng.normal(size=leaf.shape) for leaf in leaves]
    size = max(np.sqrt(sum(np.sum(draw**2) for draw in draws)), 1e-9)
    return [
        structure.unflatten(
            [jnp.asarray(sign * draw / size, leaf.dtype) for draw, leaf in zip(draws, leaves, strict=True)]
        )
        for sign in (1, -1)
    ]


def _scaled(tree: Any, factor: float) -> Any:
    return jax.tree.map(lambda leaf: (leaf * factor).astype(leaf.dtype), tree)


def _flat(tree: Any) -> np.ndarray | None:
    """All entries, in double precision; None where one is traced."""
    leaves = [array for leaf in jax.tree.leaves(tree) if (array := concrete(leaf)) is not None]
    if len(leaves) < len(jax.tree.leaves(tree)):
        return None
    return np.concatenate([leaf.astype(float).ravel() for leaf in leaves])


def _tolerance(dtype: jax.typing.DTypeLike) -> float:
    """Half precision has three digits or fewer."""
    return max(TOLERANCE, float(jnp.finfo(dtype).eps) ** 0.5)


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(x, float) - np.asarray(y, float)))


def _close(first: np.ndarray, second: np.ndarray, tolerance: float) -> bool:
    size = max(float(np.linalg.norm(np.asarray(x, float))) for x in (first, second))
    return _distance(first, second) <= tolerance * size


def _shown(array: ArrayLike) -> str:
    return np.array2string(np.asarray(array, float), precision=4, threshold=8)


def _described(result: Any) -> str:
    if not jax.tree_util.all_leaves([result]):
        return brief(jax.tree.map(_described, result))
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    return f"{type(result).__name__}" if shape is None else f"shape {shape} and dtype {dtype}"
