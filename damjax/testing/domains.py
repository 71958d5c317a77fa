"""The laws of feasible sets."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from damjax._checks import check_count, check_positive
from damjax._laws import try_domain
from damjax.domains import Domain, as_domain, has_support
from damjax.testing.comparing import cast, check_parameters, check_same, digits, dtypes, require

__all__ = ["check_domain"]

NEAR, MIDDLE, FAR = 1e-3, 1.0, 30.0  # of random memories, in units of how far the set reaches
ROUNDINGS = 100.0  # that a projection may add to the entries of what it projects
WITHOUT_END = 10.0  # the unit where that is not known
OUTSIDE = 0.1  # of its norm, by which the projection moves a memory that is surely outside


class Tries(NamedTuple):
    """A set on random memories, which are vectors here; functions take many of them, (.., entries).

    Attributes:
        domain: the set.
        example: one memory.
        over: of a function of one memory, that of many.
        project: the nearest memory, of every one.
        points: random memories, (P, entries).
        images: their projections.
        members: of the set: the images, those of memories far out along an axis, and where it says where it ends, ends.
        directions: random ones, (D, entries).
        tolerance: half the digits, or what was asked for.
        rounding: of one entry, relative to the largest.
    """

    domain: Domain
    example: Any
    over: Callable[[Callable[[Any], Any]], Callable[[np.ndarray], np.ndarray]]
    project: Callable[[np.ndarray], np.ndarray]
    points: np.ndarray
    images: np.ndarray
    members: np.ndarray
    directions: np.ndarray
    tolerance: float
    rounding: float


def check_domain(
    domain: Any, memory: Any = (2, 3), *, tolerance: float | None = None, num_points: int = 30, seed: int = 0
) -> None:
    """Raise where a set breaks a law that algorithms, bounds or best memories rely on.

    ``project`` is idempotent, moves no two memories apart, leads to the nearest memory of the set (for every X and
    every S of the set <X - P(X), S - P(X)> <= 0, which also says that the set is convex), has derivatives, which are
    symmetric matrices, and computes the same under jit and vmap. No two memories of the set are further apart than
    ``diameter``, none is longer than ``reach``, ``contains`` is true of them and not of memories far outside.
    ``support`` gives a memory of the set, and no other is further along the direction. Of a set of one's own that is no
    subclass only what it has is tried.

    Args:
        domain: from ``damjax.domains``, or a set of one's own: an object with ``project`` and ``diameter``.
        memory: the shape of one memory, or an example of one, any pytree of arrays.
        tolerance: relative, > 0; half the digits by default. Projections by iteration may want more.
        num_points: how many memories are tried in each precision.
        seed: of these.

    Raises:
        ValueError: the law that is broken, the numbers and the likely fix.

    Example:
        >>> import types, damjax
        >>> check_domain(damjax.domains.frobenius_ball(2.0))
        >>> check_domain(types.SimpleNamespace(project=lambda tree: tree / 2, diameter=1.0))
        Traceback (most recent call last):
        ValueError: domain.project must leave points of the set where they are, ...
    """
    domain = as_domain(domain)
    check_count("num_points", num_points)
    check_count("seed", seed, allow_zero=True)
    if tolerance is not None:
        check_positive("tolerance", np.asarray(tolerance))
    shape = memory if isinstance(memory, tuple) and all(isinstance(size, int) for size in memory) else None
    if shape is None:
        check_parameters("memory", memory)
    for dtype in dtypes():
        example = cast(memory if shape is None else np.zeros(shape), dtype)
        try_domain(domain, example)
        tries = _try(domain, example, dtype, tolerance, num_points, seed)
        _check_projection(tries)
        _check_size(tries)
        _check_contains(tries)
        _check_minimizer(tries, np.random.default_rng(seed))
        _check_transformations(tries)


def _try(domain: Domain, example: Any, dtype: np.dtype, tolerance: float | None, num_points: int, seed: int) -> Tries:
    zeros, restore = ravel_pytree(example)
    rng, size = np.random.default_rng(seed), len(zeros)

    def over(function: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
        flat = jax.jit(jax.vmap(lambda x: ravel_pytree(function(restore(x)))[0]))
        return lambda x: np.asarray(flat(jnp.asarray(x, zeros.dtype)), float)

    project, reach = over(domain.project), float(domain.reach(example))
    unit = reach if np.isfinite(reach) else WITHOUT_END
    scales = np.resize([NEAR, MIDDLE, FAR], (num_points, 1)) * unit / np.sqrt(size)
    points = np.asarray(np.asarray(scales * rng.normal(size=(num_points, size)), dtype), float)
    images, directions = project(points), rng.normal(size=(num_points, size))
    # Corners of a set are seldom among projections of random memories.
    axes = np.eye(size)[rng.permutation(size)[:num_points]]
    members = np.concatenate([images, project(FAR * unit * np.concatenate([axes, -axes]))])
    if has_support(domain):
        ends = over(domain.support)(directions)
        members = np.concatenate([members, ends[np.all(np.isfinite(ends), axis=1)]])
    tolerance = digits(dtype) if tolerance is None else tolerance
    return Tries(domain, example, over, project, points, images, members, directions, tolerance, digits(dtype, 1.0))


def _norms(x: np.ndarray) -> Any:
    """Of memories, along the last axis."""
    return np.linalg.norm(x, axis=-1)


def _largest(excess: np.ndarray) -> tuple[int, ...]:
    """The place of the largest entry."""
    return tuple(int(index) for index in np.unravel_index(np.argmax(excess), excess.shape))


def _check_projection(tries: Tries) -> None:
    points, images, members = tries.points, tries.images, tries.members
    slack = ROUNDINGS * tries.rounding * _norms(points)
    require(
        np.all(np.isfinite(images)), "domain.project must give finite memories", "it does not", "divide by no norm of 0"
    )
    moved = _norms(tries.project(images) - images)
    excess = moved - tries.tolerance * _norms(images) - slack
    at = _largest(excess)
    require(
        excess[at] <= 0,
        "domain.project must leave memories of the set where they are",
        f"projecting twice moves one by {moved[at]:.3g}",
        "project onto the set, not towards it",
    )
    before, after = (_norms(x[:, None] - x[None]) for x in (points, images))
    excess = after - (1 + tries.tolerance) * before - slack[:, None] - slack[None]
    at = _largest(excess)
    require(
        excess[at] <= 0,
        "domain.project must move no two memories apart",
        f"two at distance {before[at]:.6g} become {after[at]:.6g} apart",
        "the nearest memory of a convex set never does: is the set convex, and is it the nearest?",
    )
    outward = points - images
    products = np.einsum("pi,psi->ps", outward, members[None] - images[:, None])
    sizes = _norms(outward)[:, None] * (_norms(members)[None] + _norms(images)[:, None])
    excess = products - tries.tolerance * sizes - slack[:, None] * _norms(members[None] - images[:, None])
    at = _largest(excess)
    require(
        excess[at] <= 0,
        "domain.project must lead to the nearest memory of a convex set: <X - P(X), S - P(X)> <= 0 for S of the set",
        f"it is {products[at]:.6g} for one X of norm {_norms(points[at[0]]):.6g}",
        "a rescaling in another norm than Frobenius', or one constraint after another, is no nearest memory",
    )


def _check_size(tries: Tries) -> None:
    members, domain = tries.members, tries.domain
    apart, width = _norms(members[:, None] - members[None]), float(domain.width(tries.example))
    at = _largest(apart)
    require(
        apart[at] <= (1 + tries.tolerance) * width + tries.tolerance**2,
        "domain.diameter must be the largest distance of two memories of the set",
        f"it is {width:.6g} and two are {apart[at]:.6g} apart",
        "of a ball it is twice the radius; numpy.inf says that there is none",
    )
    longest, reach = _norms(members).max(), float(domain.reach(tries.example))
    require(
        longest <= (1 + tries.tolerance) * reach + tries.tolerance**2,
        "domain.reach must be at least the norm of every memory of the set",
        f"it is {reach:.6g} and one has norm {longest:.6g}",
        "leave it out where ||P(0)|| + diameter will do",
    )
    if has_support(domain):
        along = members @ tries.directions.T
        ends = tries.over(domain.support_value)(tries.directions)[:, 0]
        slack = tries.tolerance * _norms(members).max() * _norms(tries.directions)
        excess = along.max(axis=0) - ends - slack
        at = _largest(excess)
        require(
            excess[at] <= 0,
            "domain.support must give a memory S of the set with the largest <direction, S>",
            f"that is {ends[at]:.6g} and there is a memory of the set with {along.max(axis=0)[at]:.6g}",
            "does it minimise, or leave the sign of the direction out?",
        )


def _memory(tries: Tries, entries: np.ndarray) -> Any:
    zeros, restore = ravel_pytree(tries.example)
    return restore(jnp.asarray(entries, zeros.dtype))


def _check_contains(tries: Tries) -> None:
    if getattr(tries.domain.contains, "__func__", None) is Domain.contains:
        return  # it asks the projection
    contains = tries.over(lambda memory: jnp.asarray(tries.domain.contains(memory)))
    inside = contains(tries.images)
    require(
        np.all(inside),
        "domain.contains must be true of what domain.project gives",
        f"it is false of {np.sum(inside == 0)} of {len(inside)}",
        "allow for rounding",
    )
    far = _norms(tries.points - tries.images) > OUTSIDE * _norms(tries.points)
    outside = contains(tries.points[far]) if np.any(far) else inside[:0]
    require(
        not np.any(outside),
        "domain.contains must be false of memories outside of the set",
        f"it is true of {np.sum(outside == 1)} of {len(outside)} that domain.project moves by a tenth of their norm",
        "leave it out: the projection tells",
    )


def _check_minimizer(tries: Tries, rng: np.random.Generator) -> None:
    """The corners of boxes, and closed forms of minima, of the sets that have them."""
    if not hasattr(tries.example, "ndim") or tries.example.ndim != 2:
        return
    shape, dtype = tries.example.shape, tries.example.dtype
    if (box := tries.domain.as_box(tries.example)) is not None:
        lower, upper = (np.broadcast_to(np.asarray(corner, float), shape).ravel() for corner in box)
        slack = tries.tolerance * _norms(tries.members).max()
        require(
            np.all((tries.members >= lower - slack) & (tries.members <= upper + slack)),
            "domain.as_box must give the least and the largest value of every entry",
            "memories of the set have entries beyond",
            "it is for sets that are a box: leave it out",
        )
        corners = np.where(tries.directions > 0, upper, lower)
        corners = corners[np.all(np.isfinite(corners), axis=1)]
        outside = _norms(tries.project(corners) - corners) > slack if len(corners) else np.zeros(0)
        require(
            not np.any(outside),
            "domain.as_box must give corners of the set, with all that is between them",
            f"domain.project moves {np.sum(outside)} of {len(outside)} memories that lie in the box",
            "a box around a smaller set is none: leave it out",
        )
    linear, curvature = rng.normal(size=shape), rng.uniform(0.5, 2, shape)
    minimizer = tries.domain.diagonal_minimizer(jnp.asarray(linear, dtype), jnp.asarray(curvature, dtype))
    if minimizer is None:
        return
    minimizer = np.asarray(minimizer, float).ravel()
    slope = curvature.ravel() * minimizer - linear.ravel()
    gap = float(np.max((minimizer[None] - tries.members) @ slope))
    scale = np.linalg.norm(linear) * (np.linalg.norm(minimizer) + _norms(tries.members).max())
    inside = _norms(tries.project(minimizer[None])[0] - minimizer)
    require(
        gap <= tries.tolerance * scale and inside <= tries.tolerance * max(1.0, _norms(minimizer)),
        "domain.diagonal_minimizer must be the minimum over the set of 1/2 <D, U^2> - <B, U>",
        f"it is {inside:.3g} outside of the set, and <slope, U - S> is {gap:.3g} for some S of the set",
        "leave it out: the minimum is then found by iteration",
    )


def _check_transformations(tries: Tries) -> None:
    """One memory near zero and one far, by themselves; and derivatives in both modes, there and at zero."""
    some = np.concatenate([tries.points[[0, -1]], np.zeros_like(tries.points[:1])])
    law = "domain.project must be the same under jax.jit and jax.vmap as without"
    fix = "compute with jax.numpy, and let no branch depend on values"
    for point, image in zip(some[:2], tries.images[[0, -1]], strict=True):
        alone = tries.domain.project(_memory(tries, point))
        check_same(law, fix, _memory(tries, image), alone, tries.tolerance)

    zeros, restore = ravel_pytree(tries.example)

    def entries(x: jax.Array) -> jax.Array:
        return ravel_pytree(tries.domain.project(restore(x)))[0]

    at = jnp.asarray(some, zeros.dtype)
    slopes = [np.asarray(jax.jit(jax.vmap(mode(entries)))(at), float) for mode in (jax.jacfwd, jax.jacrev)]
    law = "domain.project must have derivatives, the same ones in both modes"
    fix = "a norm has no slope at 0: optax.safe_norm has one"
    require(all(np.all(np.isfinite(slope)) for slope in slopes), law, "one is not finite", fix)
    check_same(law, fix, *slopes, tolerance=tries.tolerance)
    # X - P(X) is the gradient of half the squared distance to a convex set; at zero there may be a kink.
    for slope in slopes[0][:2]:
        skew = float(np.linalg.norm(slope - slope.T))
        require(
            skew <= tries.tolerance * max(1.0, float(np.linalg.norm(slope))),
            "domain.project must lead to the nearest memory of a convex set, and so have a symmetric derivative",
            f"at one memory that differs from its transpose by {skew:.3g}",
            "a rescaling in another norm than Frobenius', or one constraint after another, is no nearest memory",
        )
