"""Distributed associative memory by tree-based online gradient descent, DAM-TOGD."""

import optax

from damjax.algorithms.descent import descend
from damjax.channels import connect
from damjax.channels.answers import Answers
from damjax.channels.delays import Delays
from damjax.domains import Domain
from damjax.objectives import MemoryLoss
from damjax.types import Algorithm, LearningRate
from damjax.weights.epochs import EpochWeights
from damjax.weights.interests import Weights

__all__ = ["dam_togd"]


def dam_togd(
    objective: MemoryLoss,
    weights: Weights | EpochWeights,
    delays: Delays,
    *,
    learning_rate: LearningRate,
    domain: Domain,
    max_delay: int | None = None,
    reweight: bool = False,
    answers: Answers | None = None,
    transform: optax.GradientTransformation | None = None,
    absent: str = "keep",
) -> Algorithm:
    """Distributed associative memory by tree-based online gradient descent: DAM-TOGD.

    Agent n sends X_n,t down its routing tree; agent m evaluates the gradient on the association it stored at t and
    returns it; it arrives tau_nm steps after it was asked for:

        X_n,t+1 = P[X_nt - eta_nt sum_m w_nm 1{t > tau_nm} grad f_m,s(X_ns)],   s = t - tau_nm

    Who gets which gradient when is the channel's business, see ``damjax.channels.connect``: of linear memories the two
    factors of the gradients travel, of memories of any other shape, or with delays that change, the gradients.

    Args:
        objective: the memory loss f.
        weights: interest weights W, (N, N), row-stochastic; or a ``damjax.weights.SparseWeights`` with K entries per
            agent, for large networks: time and memory then grow with N K. Or ``damjax.weights.EpochWeights``, which
            change: a question counts with the weights of the step in which it is asked.
        delays: round trips tau in steps: a table of integers from 0 on, (N, N), or (N, K) for sparse weights; entries
            where the (concrete) weight is 0 are ignored. See ``damjax.routing.compile_routes``. Or a law of
            ``damjax.channels``, or a pure function of the 1-based step in which the questions are asked; what these
            make negative, or later than ``max_delay``, is lost, and counted in ``info.num_lost``. Or a
            ``damjax.routing.Timeline``, for networks that change: in each epoch the weights of absent agents then go to
            those present, as in its ``weights``, by which regret is to be measured.
        learning_rate: a number is a constant rate; a schedule maps the count, (N,), to rates: the steps since the
            first gradient arrived, that one included, which is t - tau_n,min for a table, tau_n,min the shortest round
            trip of agent n (0 whenever w_nn > 0). Before it the rate is 0. No array: see ``damjax.schedules``.
        domain: the feasible set, P its projection.
        max_delay: the longest round trip, for which room is made; taken from ``delays`` when that is a concrete table
            or a law, needed otherwise. A traced table with an entry beyond it, or a negative one, turns the agent's
            memory into NaN rather than read what belongs to another message.
        reweight: whether arrivals weigh w_nm / (probability that they arrive), so that losses are made up for in the
            mean; for laws of delay. See ``damjax.channels.arrival_bins``.
        answers: what is sent in place of the gradients, such as ``damjax.channels.quantised(8, key=key)``.
        transform: as for ``ogd``.
        absent: as for ``ogd``.

    Returns:
        An Algorithm; its state is a ``damjax.algorithms.State``, with what is under way in its box.

    Raises:
        ValueError: weights that are not row-stochastic; delays that are negative or not integers, traced ones too: a
            run has no derivative in its delays, while ``damjax.bounds`` has; a max_delay that is too small, or missing
            where it is needed; shapes that do not meet.

    Example:
        >>> import jax, damjax
        >>> weights = damjax.weights.dirichlet(jax.random.key(0), 10)
        >>> routes = damjax.routing.compile_routes(damjax.graphs.paper_network(), weights)
        >>> algorithm = dam_togd(damjax.objectives.delta_net(), weights, routes.delays,
        ...     learning_rate=damjax.schedules.inverse_sqrt(0.1), domain=damjax.domains.frobenius_ball(20.0))
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(1), num_steps=50)
        >>> state, trace = damjax.simulate(algorithm, jax.numpy.zeros((10, 5, 5)), stream)
        >>> bool(trace.info.finite.all())
        True

    Source: [DAM] eq. 7.
    """
    channel = connect(objective, weights, delays, max_delay=max_delay, reweight=reweight, answers=answers)
    return descend(channel, learning_rate=learning_rate, domain=domain, transform=transform, absent=absent)
