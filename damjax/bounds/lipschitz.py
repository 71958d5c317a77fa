"""The constants of the bounds: how steep each agent's losses can be on the set, and how wide the set is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from damjax._checks import check_gates_given, check_instance
from damjax._laws import check_objective, check_objective_kind, num_features
from damjax._types import ArrayLike, Associations
from damjax.domains import Box, Domain, FrobeniusBall, known_shape
from damjax.objectives import Objective


class Constants(NamedTuple):
    """What the bounds know of losses and set.

    Attributes:
        lipschitz: L_m >= ||grad f_mt(X)||_F for every t and every X of the set, (N,).
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
    """L_m and B from the closed forms, for every objective on a ball or a box.

    On a ball: DeltaNet sup_t (R ||phi|| + ||v||) ||phi||; linear ||v|| ||phi||; gated ||v|| ||phi|| + R max(1 - g);
    cross-entropy max_jk ||u_j - u_k|| ||phi||. On a box the supremum of a quadratic loss is attained at a corner and
    computed there. They are suprema exactly, but for gates that differ within one memory on a ball, and for
    cross-entropy, whose farthest two classes approach theirs as the set grows.

    Args:
        objective: the memory loss f.
        domain: a bounded feasible set, from ``damjax.domains``.
        associations: the whole stream, every field with a leading T.

    Returns:
        Constants, differentiable in the stream and in the size of the set.

    Raises:
        ValueError: an unbounded set, an objective without a closed form, a stream without a leading T.

    Example:
        >>> import jax.numpy as jnp, damjax
        >>> stream = damjax.Associations(jnp.ones((7, 2, 1)), jnp.full((7, 2, 1), 3.0))
        >>> found = constants(damjax.objectives.delta_net(), damjax.domains.frobenius_ball(2.0), stream)
        >>> found.lipschitz.tolist(), float(found.diameter)
        ([5.0, 5.0], 4.0)

    Source: [DAM] assumptions 1 and 2; the closed forms follow from grad f = r phi' + D * X.
    """
    check_objective_kind(objective)
    check_instance("associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes one")
    keys, values, gates = jax.tree.map(jnp.asarray, associations)
    if keys.ndim != 3:
        raise ValueError(
            f"associations must be a whole stream with keys (steps, agents, dk), but their shape is {keys.shape}"
        )
    check_gates_given(objective.gated, gates)
    memory = (values.shape[2], num_features(objective, keys.shape[2:], keys.dtype))
    check_objective(objective, memory[0], values.dtype)

    match known_shape(domain):
        case FrobeniusBall(radius):
            diameter = 2 * jnp.asarray(radius, values.dtype)

            def steepest(key: Array, value: Array, gate: Array | None, time: Array) -> Array:
                return objective.lipschitz(radius, key, value, gate, time)

        case Box(lower, upper):
            lower, upper = (jnp.broadcast_to(jnp.asarray(b, values.dtype), memory) for b in (lower, upper))
            diameter = optax.safe_norm(upper - lower, 0.0)

            def steepest(key: Array, value: Array, gate: Array | None, time: Array) -> Array:
                return _steepest_corner(objective, lower, upper, key, value, gate, time)

        case _:
            raise ValueError(
                "domain must be bounded, since every bound grows with its diameter, but it is unconstrained;"
                " use frobenius_ball or box"
            )
    times = jnp.arange(1, keys.shape[0] + 1).astype(values.dtype)
    over_agents = jax.vmap(steepest, in_axes=(0, 0, 0, None))
    return Constants(jnp.max(jax.vmap(over_agents)(keys, values, gates, times), axis=0), diameter)


def _steepest_corner(
    objective: Objective, lower: Array, upper: Array, key: Array, value: Array, gate: Array | None, time: Array
) -> Float[Array, ""]:
    """sup ||r(X phi) phi' + D * X|| over the box: convex in X, so attained at a corner, found row by row."""
    features = objective.features(key)
    if objective.curvature is None or (objective.curvature and objective.ridge is not None):
        # Not separable into entries: the smallest ball around the box will do.
        farthest = optax.safe_norm(jnp.maximum(jnp.abs(lower), jnp.abs(upper)), 0.0)
        return objective.lipschitz(farthest, key, value, gate, time)
    if objective.ridge is None:
        reach = [
            jnp.sum(pick(lower * features[None], upper * features[None]), axis=1) for pick in (jnp.minimum, jnp.maximum)
        ]
        lowest, highest = (objective.residual(z, value, time) for z in reach)
        return optax.safe_norm(jnp.maximum(jnp.abs(lowest), jnp.abs(highest)), 0.0) * optax.safe_norm(features, 0.0)
    # The losses with a ridge part are linear in the prediction, and then no two entries of the gradient interact.
    ends = [objective.gradient(corner, key, value, gate, time) for corner in (lower, upper)]
    return optax.safe_norm(jnp.maximum(*map(jnp.abs, ends)), 0.0)
