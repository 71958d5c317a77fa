"""Consensus distributed online gradient descent, C-DOGD."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from damjax._arrays import mix
from damjax._checks import check_choice, check_doubly_stochastic, check_square, concrete
from damjax.algorithms.descent import descend
from damjax.channels import own_gradients
from damjax.domains import Domain
from damjax.objectives import MemoryLoss
from damjax.types import Algorithm, ArrayLike, LearningRate

__all__ = ["ORDERS", "c_dogd"]

ORDERS = {"adapt_then_combine": "after", "combine_then_adapt": "before"}  # the step at which memories are mixed


def c_dogd(
    objective: MemoryLoss,
    mixing: Float[ArrayLike, "N N"],
    *,
    learning_rate: LearningRate,
    domain: Domain,
    order: str = "adapt_then_combine",
    transform: optax.GradientTransformation | None = None,
) -> Algorithm:
    """Consensus distributed OGD: each agent follows its own gradient and averages with its neighbours.

        adapt_then_combine: Z_m = P[X_m - eta_t grad f_mt(X_m)],  X_n <- sum_m a_nm Z_m
        combine_then_adapt: X_n <- P[sum_m a_nm X_m - eta_t grad f_nt(X_n)]

    It never sees the interest weights: all memories are driven to one.

    Args:
        objective: the memory loss f.
        mixing: A, (N, N), doubly stochastic, supported on the links (``damjax.graphs.metropolis_weights``).
        learning_rate: a number is a constant rate; a schedule maps the count t, (N,), to rates. No array: see
            ``damjax.schedules``.
        domain: the feasible set, P its projection.
        order: "adapt_then_combine" or "combine_then_adapt".
        transform: as for ``ogd``.

    Returns:
        An Algorithm; its state is a ``damjax.algorithms.State``. Info reports the own gradient, before the averaging.

    Raises:
        ValueError: a mixing matrix that is not doubly stochastic, an unknown order, shapes that do not meet.

    Example:
        >>> import jax, damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=3, num_steps=20)
        >>> mixing = damjax.graphs.metropolis_weights(damjax.graphs.path(3))
        >>> algorithm = c_dogd(damjax.objectives.delta_net(), mixing, learning_rate=0.1,
        ...     domain=damjax.domains.frobenius_ball(20.0))
        >>> state, trace = damjax.simulate(algorithm, jax.numpy.zeros((3, 5, 5)), stream)
        >>> int(state.step)
        20

    Source: [DAM] eq. 5.
    """
    check_square("mixing", np.shape(mixing))
    num_agents = np.shape(mixing)[0]
    check_choice("order", order, tuple(ORDERS))
    if (values := concrete(mixing)) is not None:
        check_doubly_stochastic("mixing", values)

    def combine(memories: Any) -> Any:
        return jax.tree.map(lambda leaf: mix(jnp.asarray(mixing, leaf.dtype), leaf), memories)

    channel = own_gradients(objective, num_agents)
    mixed: dict[str, Any] = {ORDERS[order]: combine}
    return descend(channel, learning_rate=learning_rate, domain=domain, transform=transform, **mixed)
