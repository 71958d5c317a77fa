"""The adversary who hands everything over in blocks."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from damjax._checks import check_count
from damjax._pytrees import register_dataclass
from damjax.channels.laws.law import Law, its_own

__all__ = ["Bursts", "bursts"]


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class Bursts(Law):
    """Everything of a block arrives at its end.

    Attributes:
        max_delay: tau, one less than the length of a block.
    """

    max_delay: int

    def at(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Int[Array, "N K"]:
        remaining = self.max_delay - (time - 1) % (self.max_delay + 1)
        return jnp.where(its_own(agents), 0, remaining.astype(jnp.int32))

    def arrival_probability(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
        return jnp.ones(agents.shape, jnp.float32)


def bursts(max_delay: int) -> Bursts:
    """The block adversary: what is asked in a block of tau + 1 steps arrives at its end.

    Nothing is learned within a block, so T steps are T / (tau + 1) steps of gradients that are tau + 1 times as large.

    Args:
        max_delay: tau, the delay of what is asked first in a block; 0 for no delay.

    Returns:
        A Law.

    Raises:
        ValueError: a max_delay that is no whole number >= 0.

    Example:
        >>> bursts(2).table(6, (2, 2))[:, 0].tolist()
        [[0, 2], [0, 1], [0, 0], [0, 2], [0, 1], [0, 0]]
    """
    check_count("max_delay", max_delay, allow_zero=True)
    return Bursts(max_delay)
