"""The laws of objectives and sets, tried on those of a user's own where they are first used.

The library's own keep them by its tests, and cost nothing here. Whatever is traced is left out.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from damjax import domains, objectives
from damjax._checks import check_instance
from damjax._numerics import promoting
from damjax._types import ArrayLike, concrete
from damjax.domains import Domain
from damjax.objectives import Objective

TOLERANCE = 1e-3  # relative; projections and slopes that are found by iteration are seldom worse
TIMES = (1.0, 3.0)
FAR = 10.0  # times the diameter, or of norm, where that is not known


def check_objective_kind(objective: Objective) -> None:
    """Raise unless it is what the factories make."""
    check_instance("objective", objective, Objective, "call a factory of damjax.objectives, such as delta_net()")


def num_features(objective: Objective, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> int:
    """df of one cue's features, or a ValueError where they are no vector of the cue's dtype."""
    features = jax.eval_shape(objective.features, jax.ShapeDtypeStruct(shape, dtype))
    if getattr(features, "ndim", None) != 1 or features.dtype != dtype:
        raise ValueError(
            f"objective.features must map a cue {shape} to a vector (df,) of its dtype, {np.dtype(dtype)}, but it gives"
            f" {_described(features)}"
        )
    return features.shape[0]


def check_objective(objective: Objective, value_dim: int, dtype: jax.typing.DTypeLike) -> None:
    """Raise where an objective of the user's own breaks a law that algorithms, regret or bounds rely on.

    It is tried at two predictions and times and at the value (1, 0, .., 0), which is a class, a distribution and of
    norm 1, whatever else the loss may assume of values.
    """
    parts = (objective.loss, objective.residual, objective.ridge, objective.residual_bound)
    if all(part is None or getattr(part, "__module__", None) == objectives.__name__ for part in parts):
        return
    first, second = np.random.default_rng(0).normal(size=(2, value_dim))
    with jax.ensure_compile_time_eval():
        value = jnp.zeros(value_dim, dtype).at[0].set(1)
        _check_shapes(objective, value)
        # Losses with a logarithm are defined at the first, and others at both.
        for prediction, time in zip((np.abs(first), second), TIMES, strict=True):
            _check_slopes(objective, *(jnp.asarray(x, dtype) for x in (prediction, value, time)))


def _check_shapes(objective: Objective, value: jax.Array) -> None:
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


def _check_slopes(objective: Objective, prediction: jax.Array, value: jax.Array, time: jax.Array) -> None:
    """Raise unless loss, residual and what is declared of their derivatives agree at one point."""
    residual = promoting(objective.residual, prediction, value, time)
    slope = promoting(jax.grad(objective.loss), prediction, value, time)
    jacobian = promoting(jax.jacrev(objective.residual), prediction, value, time)
    bound = None if objective.residual_bound is None else promoting(objective.residual_bound, value)
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
    curvature = np.linalg.eigvalsh(np.asarray(second + second.T, float) / 2)
    found = f"but {place} its eigenvalues are {_shown(curvature)}"
    if objective.curvature is not None:
        declared = concrete(objective.curvature)
        if declared is not None and np.max(np.abs(curvature - declared)) > tolerance * max(1.0, abs(declared)):
            raise ValueError(
                f"objective.curvature must be the loss's second derivative in the prediction as a multiple of the"
                f" identity, {declared}, {found}; use None for losses that are not quadratic"
            )
        return
    if objective.smoothness is not None and (most := concrete(objective.smoothness)) is not None:
        slack = tolerance * max(1.0, float(most))
        if curvature[0] < -slack or curvature[-1] > most + slack:
            raise ValueError(
                f"objective.smoothness must bound the loss's second derivative in the prediction, from 0 to {most},"
                f" {found}; the loss must be convex"
            )
    norm = np.linalg.norm(np.asarray(known, float))
    if bound is not None and (most := concrete(bound)) is not None and norm > (1 + tolerance) * most:
        raise ValueError(f"objective.residual_bound must be at least ||residual||, but {place} {most} < {norm:.6g}")


def check_domain(domain: Domain, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> None:
    """Raise where a set of the user's own breaks a law of projections on memories of this shape."""
    if isinstance(domain.project, functools.partial) and domain.project.func is domains.project:
        return
    image = jax.eval_shape(domain.project, jax.ShapeDtypeStruct(shape, dtype))
    if getattr(image, "shape", None) != shape or image.dtype != dtype:
        raise ValueError(
            f"domain.project must keep shape and dtype of a memory, {shape} and {np.dtype(dtype)}, but it gives"
            f" {_described(image)}"
        )
    diameter = concrete(domain.diameter)
    if diameter is not None and not (diameter.shape == () and diameter >= 0):
        raise ValueError(f"domain.diameter must be one number, non-negative or infinite, but it is {domain.diameter}")
    reach = FAR if diameter is None or not np.isfinite(diameter) else FAR * max(1.0, float(diameter))
    direction = np.random.default_rng(0).normal(size=shape)
    with jax.ensure_compile_time_eval():
        far = jnp.asarray(reach / max(np.linalg.norm(direction), 1e-9) * direction, dtype)
        points = [domain.project(point) for point in (far, -far)]
        points.append(domain.project(points[0]))
    there, opposite, again = (concrete(point) for point in points)
    if there is None or opposite is None or again is None:
        return
    tolerance = _tolerance(dtype)
    if not np.all(np.isfinite(there)):
        raise ValueError(f"domain.project must give finite memories, but of one of norm {reach:g} it does not")
    if not _close(again, there, tolerance):
        raise ValueError(
            "domain.project must leave points of the set where they are, but projecting twice moves a memory by"
            f" {_distance(again, there):.3g}"
        )
    apart = _distance(there, opposite)
    if diameter is not None and apart > (1 + tolerance) * diameter:
        raise ValueError(
            f"domain.diameter must be the largest distance of two points of the set, but it is {diameter} and"
            f" domain.project leads to two points {apart:.6g} apart"
        )
    if apart > 2 * (1 + tolerance) * reach:
        raise ValueError(
            f"domain.project must not move points apart, but two memories at distance {2 * reach:g} become {apart:.6g}"
        )


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


def _described(result: object) -> str:
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    return f"{type(result).__name__}" if shape is None else f"shape {shape} and dtype {dtype}"
