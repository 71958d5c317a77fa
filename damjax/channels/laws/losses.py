"""Messages that never arrive."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from damjax._checks import check_delays_shape, check_instance, check_key
from damjax._pytrees import register_dataclass
from damjax.channels.laws.law import Law, check_probability, draws, its_own, parameter
from damjax.channels.laws.tables import as_law
from damjax.routing import Routes
from damjax.types import ArrayLike

__all__ = ["Lossy", "lossy"]

LOSSES = 0x105E5  # so that a law with the same key draws other numbers


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class Lossy(Law):
    """Delays of a law, some of whose messages are lost.

    Attributes:
        law: of the others.
        probability: of a loss, of a message or at every link, ().
        key: of the losses.
        hops: links between the agents of a pair, (N, K); None where messages are lost and not links.
        max_delay: that of the law.
    """

    law: Law
    probability: Float[Array, ""]
    key: Any
    hops: Int[Array, "N K"] | None
    max_delay: int

    def at(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Int[Array, "N K"]:
        # A number above the share that gets through: the more are lost, the fewer of the same ones get through.
        lost = draws(jax.random.fold_in(self.key, LOSSES), time, agents) > self._passes(agents)
        return jnp.where(lost, -1, self.law.at(time, agents))

    def arrival_probability(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
        return self._passes(agents) * self.law.arrival_probability(time, agents)

    def _passes(self, agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
        """The probability that a message is not lost on its way."""
        passes = 1 - self.probability
        if self.hops is not None:
            check_delays_shape(self.hops.shape, agents.shape)
            passes = passes ** (2 * jnp.maximum(self.hops, 0)).astype(jnp.float32)
        return jnp.where(its_own(agents), 1, passes)


def lossy(
    law: Law | Int[ArrayLike, "*T N K"], p: float | ArrayLike, *, key: Array, routes: Routes | None = None
) -> Lossy:
    """The delays of a law, with messages lost: each with probability p, or at each of its 2h links with probability p.

    A lost question or answer is not asked again. ``arrival_bins`` and ``dam_togd`` make up for losses in the mean, if
    you say ``reweight=True``.

    Args:
        law: of the messages that arrive: a law, or a table of round trips.
        p: probability of a loss, in [0, 1]. What agents ask themselves is never lost.
        key: of the losses; may be that of the law.
        routes: from ``damjax.routing.compile_routes``: a message over h links is then lost with probability
            1 - (1 - p)^(2h).

    Returns:
        A Law.

    Raises:
        ValueError: a law, a key or routes that are none; p outside [0, 1], or differentiated in.

    Example:
        >>> law = lossy(jnp.array([[0, 3], [3, 0]]), 0.25, key=jax.random.key(0))
        >>> delays = law.table(1000, (2, 2))
        >>> round(float((delays[:, 0, 1] < 0).mean()), 2), int(delays.max()), int(delays[:, 0, 0].min())
        (0.24, 3, 0)
    """
    law = as_law("law", law)
    hops = None
    if routes is not None:
        check_instance("routes", routes, Routes, "damjax.routing.compile_routes(graph, weights) makes them")
        hops = jnp.asarray(routes.hops, jnp.int32)
    check_key("key", key)
    return Lossy(law, parameter("p", p, check_probability), key, hops, law.max_delay)
