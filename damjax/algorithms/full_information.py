"""Full-information online gradient descent."""

import optax

from damjax.algorithms.descent import descend
from damjax.channels import full_information
from damjax.domains import Domain
from damjax.objectives import MemoryLoss
from damjax.types import Algorithm, LearningRate
from damjax.weights.epochs import EpochWeights
from damjax.weights.interests import Weights

__all__ = ["ogd"]


def ogd(
    objective: MemoryLoss,
    weights: Weights | EpochWeights,
    *,
    learning_rate: LearningRate,
    domain: Domain,
    transform: optax.GradientTransformation | None = None,
    absent: str = "keep",
) -> Algorithm:
    """Full-information online gradient descent: every agent sees every association at once.

        X_n <- P[X_n - eta_nt sum_m w_nm grad f_mt(X_n)]

    Args:
        objective: the memory loss f.
        weights: interest weights W, (N, N), row-stochastic; or a ``damjax.weights.SparseWeights``, for large networks;
            or ``damjax.weights.EpochWeights``, for networks that change.
        learning_rate: a number is a constant rate; a schedule maps the count t, (N,), to rates. No array: see
            ``damjax.schedules``.
        domain: the feasible set, P its projection.
        transform: an optax transformation between the aggregated gradient and the step, applied to each agent by
            itself; what it returns is subtracted, so use the scaling ones (``optax.scale_by_adam()``, ``optax.trace``):
            optimisers, which bring a negative rate, are refused.
        absent: what an absent agent does with its memory: "keep" it, or "empty" it, for which no bound holds.

    Returns:
        An Algorithm; its state is a ``damjax.algorithms.State``.

    Raises:
        ValueError: weights that are not row-stochastic; at init and step, memories and associations whose
            shapes do not meet.

    Example:
        >>> import jax, damjax
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=3, num_steps=20)
        >>> algorithm = ogd(damjax.objectives.delta_net(), jax.numpy.full((3, 3), 1 / 3),
        ...     learning_rate=damjax.schedules.inverse_sqrt(0.3), domain=damjax.domains.frobenius_ball(20.0))
        >>> state, trace = damjax.simulate(algorithm, jax.numpy.zeros((3, 5, 5)), stream)
        >>> trace.params.shape
        (20, 3, 5, 5)

    Source: [DAM] eq. 3.
    """
    channel = full_information(objective, weights)
    return descend(channel, learning_rate=learning_rate, domain=domain, transform=transform, absent=absent)
