"""The constants of the bounds: how steep each agent's losses can be on the set, and how wide the set is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from damjax._arrays import norm, outer
from damjax._checks import check_gates_given, check_instance
from damjax._laws import check_domain, check_linear_memory, check_objective, num_features
from damjax.domains import Domain, as_domain
from damjax.domains.domain import is_finite
from damjax.evaluation import filled, weigh
from damjax.objectives import Objective
from damjax.types import ArrayLike, Associations

__all__ = ["Constants", "constants"]


class Constants(NamedTuple):
    """What the bounds know of losses and set.

    Attributes:
        lipschitz: L_m >= s_mt ||grad f_mt(X)||_F for every t and every X of the set, (N,).
        diameter: B, the largest distance between two memories of the set, ().
    """

    lipschitz: Float[ArrayLike, "N"]
    diameter: float | np.number | Float[ArrayLike, ""]


def check_constants(constants: Constants) -> None:
    """Raise unless they are Constants."""
    check_instance(
        "constants", constants, Constants, "damjax.bounds.constants(objective, domain, associations) makes it"
    )


def constants(objective: Objective, domain: Domain, associations: Associations) -> Constants:
    """L_m and B, for every objective on every bounded set; of weighted associations those of s f.

    From the smallest ball around the zero memory that holds the set, which a Frobenius ball is itself: DeltaNet
    sup_t (R ||phi|| + ||v||) ||phi||; linear ||v|| ||phi||; gated ||v|| ||phi|| + R max(1 - g); cross-entropy
    max_jk ||u_j - u_k|| ||phi||. On a box the supremum of a quadratic loss is attained at a corner and computed there.
    On balls and boxes they are suprema exactly, but for gates that differ within one memory on a ball, for losses that
    are not linear of memories of several heads on a ball, and for cross-entropy, whose farthest two classes approach
    theirs as the set grows; on other sets they are bounds.

    Args:
        objective: the memory loss f.
        domain: a bounded feasible set, from ``damjax.domains`` or your own; no larger norm than ||P(0)|| + B can occur
            in one that does not say how far it reaches.
        associations: the whole stream, every field with a leading T.

    Returns:
        Constants, differentiable in the stream and in the size of the set.

    Raises:
        ValueError: an unbounded set, or one of your own that breaks a law; an objective without a closed form; a stream
            without a leading T.

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> stream = damjax.Associations(jnp.ones((7, 2, 1)), jnp.full((7, 2, 1), 3.0))
        >>> found = constants(damjax.objectives.delta_net(), damjax.domains.frobenius_ball(2.0), stream)
        >>> found.lipschitz.tolist(), float(found.diameter)
        ([5.0, 5.0], 4.0)

    Source: [DAM] assumptions 1 and 2; the closed forms follow from grad f = r phi' + D * X.
    """
    check_linear_memory(objective)
    check_instance("associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes one")
    keys, values, gates, sample_weights = jax.tree.map(jnp.asarray, filled(associations))
    if keys.ndim != 3:
        raise ValueError(
            f"associations must be a whole stream with keys (steps, agents, dk), but their shape is {keys.shape}"
        )
    check_gates_given(objective.gated, gates)
    zeros = jnp.zeros((values.shape[2], num_features(objective, keys.shape[2:], keys.dtype)), values.dtype)
    check_objective(objective, zeros.shape[0], values.dtype)

    domain = as_domain(domain)
    check_domain(domain, zeros)
    corners = domain.as_box(zeros)
    # A box without a wall on every side may still have a steepest corner.
    reach = domain.reach(zeros) if corners is None else 0.0
    if not domain.constrained or not is_finite(reach):
        raise ValueError(
            f"domain must be bounded, since every bound grows with its diameter, but {domain} is not; use"
            f" frobenius_ball or box, or give a set of your own its diameter"
        )

    def steepest(key: Array, value: Array, gate: Array | None, time: Array) -> Array:
        if corners is not None:
            return _steepest_corner(objective, *corners, key, value, gate, time)
        return objective.lipschitz(reach, key, value, gate, time)

    times = jnp.arange(1, keys.shape[0] + 1).astype(values.dtype)
    over_agents = jax.vmap(steepest, in_axes=(0, 0, 0, None))
    slopes = weigh(sample_weights, jax.vmap(over_agents)(keys, values, gates, times))
    return Constants(jnp.max(slopes, axis=0), domain.width(zeros))


def _steepest_corner(
    objective: Objective, lower: Array, upper: Array, key: Array, value: Array, gate: Array | None, time: Array
) -> Float[Array, ""]:
    """sup ||r(X phi) phi' + D * X|| over the box: convex in X, so attained at a corner, found row by row."""
    features = objective.features(key)
    if not objective.kind.entrywise or (objective.kind.bounded_below and objective.ridge is not None):
        # Not separable into entries: the smallest ball around the box will do.
        farthest = norm(jnp.maximum(jnp.abs(lower), jnp.abs(upper)))
        return objective.lipschitz(farthest, key, value, gate, time)
    if objective.ridge is None:
        by_row = outer(jnp.ones_like(value), features)
        reach = [jnp.sum(pick(lower * by_row, upper * by_row), axis=1) for pick in (jnp.minimum, jnp.maximum)]
        lowest, highest = (objective.residual(z, value, time) for z in reach)
        return norm(outer(jnp.maximum(jnp.abs(lowest), jnp.abs(highest)), features))
    # The losses with a ridge part are linear in the prediction, and then no two entries of the gradient interact.
    ends = [objective.gradient(corner, key, value, gate, time) for corner in (lower, upper)]
    return norm(jnp.maximum(*map(jnp.abs, ends)))
