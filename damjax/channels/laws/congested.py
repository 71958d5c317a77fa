"""A network that is congested for a while, for everyone at once."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from damjax._checks import check_key
from damjax._pytrees import register_dataclass
from damjax.channels.laws.law import Law, check_probability, parameter
from damjax.channels.laws.tables import as_law
from damjax.types import ArrayLike

__all__ = ["Congestion", "congestion"]

STATES = 0x57A7E5  # so that a law with the same key draws other numbers


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class Congestion(Law):
    """Delays of one of two laws, as the state of a Markov chain says.

    Attributes:
        calm: the law of calm steps.
        congested: the law of congested steps.
        onset: probability that a calm step is followed by a congested one, ().
        relief: probability that a congested step is followed by a calm one, ().
        key: of the chain.
        max_delay: the longest round trip of both.
    """

    calm: Law
    congested: Law
    onset: Float[Array, ""]
    relief: Float[Array, ""]
    key: Any
    max_delay: int

    def at(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Int[Array, "N K"]:
        return jnp.where(self.is_congested(time), self.congested.at(time, agents), self.calm.at(time, agents))

    def arrival_probability(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
        calm, congested = (law.arrival_probability(time, agents) for law in (self.calm, self.congested))
        return jnp.where(self.is_congested(time), congested, calm)

    def is_congested(self, time: Int[Array, ""]) -> Bool[Array, ""]:
        """The state of the chain in a step, from 1 on.

        A step's uniform number u settles its state, whatever the state before, if u < min(onset, 1 - relief) or
        u >= max(onset, 1 - relief); else the state stays, or changes if onset > 1 - relief. So the state follows from
        the numbers back to the last that settled: 1 / (1 - |1 - onset - relief|) of them in the mean, and not from all
        steps before. Step 0 has the chain's stationary law.
        """
        low, high = jnp.minimum(self.onset, 1 - self.relief), jnp.maximum(self.onset, 1 - self.relief)
        changes = self.onset > 1 - self.relief
        of_chain = jax.random.fold_in(self.key, STATES)

        def number(step: Array) -> Array:
            return jax.random.uniform(jax.random.fold_in(of_chain, step), dtype=jnp.float32)

        def open_at(walk: tuple[Array, Array, Array]) -> Array:
            step, number, _ = walk
            return (step > 0) & (number >= low) & (number < high)

        def back(walk: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            step, _, changed = walk
            return step - 1, number(step - 1), changed ^ changes

        now = jnp.asarray(time, jnp.int32)
        step, settling, changed = jax.lax.while_loop(open_at, back, (now, number(now), jnp.zeros_like(changes)))
        share = self.onset / jnp.where(self.onset > 0, self.onset + self.relief, 1)
        return (settling < jnp.where(step > 0, low, share)) ^ changed


def congestion(
    calm: Law | Int[ArrayLike, "*T N K"],
    congested: Law | Int[ArrayLike, "*T N K"],
    *,
    onset: float | ArrayLike,
    relief: float | ArrayLike,
    key: Array,
) -> Congestion:
    """A network with calm and congested times that all questions of a step share: a Markov chain with two states.

    Calm times last 1 / onset steps in the mean, congested ones 1 / relief; a share onset / (onset + relief) of all
    steps is congested, from the first step on.

    Args:
        calm: the delays of questions that are asked in calm steps: a law, or a table of round trips.
        congested: those of questions that are asked in congested steps.
        onset: probability that a calm step is followed by a congested one, in [0, 1].
        relief: probability that a congested step is followed by a calm one, in [0, 1].
        key: of the chain; may be that of the laws.

    Returns:
        A Law.

    Raises:
        ValueError: laws or a key that are none; probabilities outside [0, 1], or differentiated in.

    Example:
        >>> table = jnp.array([[0, 2], [2, 0]])
        >>> law = congestion(table, 3 * table, onset=0.2, relief=0.4, key=jax.random.key(0))
        >>> law.table(12, (2, 2))[:, 0, 1].tolist()
        [2, 2, 6, 2, 2, 2, 2, 2, 6, 2, 2, 2]
    """
    calm, congested = as_law("calm", calm), as_law("congested", congested)
    begins = parameter("onset", onset, check_probability)
    ends = parameter("relief", relief, check_probability)
    check_key("key", key)
    return Congestion(calm, congested, begins, ends, key, max(calm.max_delay, congested.max_delay))
