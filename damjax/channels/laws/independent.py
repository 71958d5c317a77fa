"""Laws under which every message is as late as a number of its own says, drawn independently of all others."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from damjax._checks import check_array, check_count, check_key, check_positive, check_whole_delays, concrete
from damjax._pytrees import register_dataclass
from damjax.channels.laws.law import Law, check_probability, draws, its_own, or_lost, parameter
from damjax.types import ArrayLike

__all__ = [
    "Exponential",
    "Geometric",
    "Independent",
    "Pareto",
    "Uniform",
    "exponential",
    "geometric",
    "pareto",
    "uniform",
]


@dataclass(frozen=True)
class Independent(Law):
    """Delays that are drawn one by one, by inverting what a law says of them.

    The larger the uniform number, the earlier the message, under every law: with one key, a law with a longer mean
    makes no message earlier, so settings of a sweep stay paired.

    Attributes:
        key: of the draws.
        max_delay: the longest round trip, as of every law.
    """

    key: Any
    max_delay: int

    @abstractmethod
    def quantile(self, survival: Float[Array, "*shape"]) -> Num[Array, "*shape"]:
        """The delays that are reached or passed with these probabilities, in (0, 1]: whole numbers, or infinite."""

    @abstractmethod
    def cdf(self, steps: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The probability of at most this many steps, from 0 on."""

    def at(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Int[Array, "N K"]:
        round_trips = or_lost(self.quantile(draws(self.key, time, agents)), self.max_delay)
        return jnp.where(its_own(agents), 0, round_trips)

    def arrival_probability(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
        return jnp.where(its_own(agents), 1, self.cdf(jnp.asarray(self.max_delay, jnp.float32)))


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class Geometric(Independent):
    """P(tau = k) = p (1 - p)^k.

    Attributes:
        success: p, ().
    """

    success: Float[Array, ""]

    def quantile(self, survival: Float[Array, "*shape"]) -> Num[Array, "*shape"]:
        return jnp.floor(jnp.log(survival) / jnp.log1p(-self.success))

    def cdf(self, steps: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -jnp.expm1((steps + 1) * jnp.log1p(-self.success))


def geometric(p: float | ArrayLike, *, key: Array, max_delay: int) -> Geometric:
    """In every step a message arrives with probability p: P(tau = k) = p (1 - p)^k, mean (1 - p) / p.

    Args:
        p: in (0, 1].
        key: of the draws.
        max_delay: the longest round trip that is waited for; what is later is lost.

    Returns:
        A Law.

    Raises:
        ValueError: p outside (0, 1], or differentiated in; a max_delay that is no whole number, or no key.

    Example:
        >>> import jax
        >>> law = geometric(0.5, key=jax.random.key(1), max_delay=20)
        >>> float(law.table(2000, (3, 3))[:, 0, 1:].mean().round(1)), law.table(2000, (3, 3))[:, 0, 0].max().item()
        (1.0, 0)
    """
    check_count("max_delay", max_delay, allow_zero=True)
    check_key("key", key)
    return Geometric(key, max_delay, parameter("p", p, _check_success))


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class Exponential(Independent):
    """The floor of an exponential number, P(tau >= k) = e^(-k / mean).

    Attributes:
        mean: of the number before the floor, ().
    """

    mean: Float[Array, ""]

    def quantile(self, survival: Float[Array, "*shape"]) -> Num[Array, "*shape"]:
        return jnp.floor(-self.mean * jnp.log(survival))

    def cdf(self, steps: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -jnp.expm1(-(steps + 1) / self.mean)


def exponential(mean: float | ArrayLike, *, key: Array, max_delay: int) -> Exponential:
    """The floor of an exponential number: P(tau >= k) = e^(-k / mean), mean 1 / (e^(1 / mean) - 1).

    Args:
        mean: of the number before the floor, in steps, > 0.
        key: of the draws.
        max_delay: the longest round trip that is waited for; what is later is lost.

    Returns:
        A Law.

    Raises:
        ValueError: a mean that is not positive, or differentiated in; a max_delay that is no whole number, or no key.

    Example:
        >>> import jax
        >>> law = exponential(2.0, key=jax.random.key(0), max_delay=5)
        >>> law.table(1, (1, 6), agents=jnp.arange(6)[None]).tolist()  # agent 0 hears itself at once
        [[[0, 0, 3, 0, 1, 1]]]
    """
    check_count("max_delay", max_delay, allow_zero=True)
    check_key("key", key)
    return Exponential(key, max_delay, parameter("mean", mean, check_positive))


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class Uniform(Independent):
    """Every delay from low to high alike.

    Attributes:
        low: the shortest, ().
        high: the longest, ().
    """

    low: Float[Array, ""]
    high: Float[Array, ""]

    def quantile(self, survival: Float[Array, "*shape"]) -> Num[Array, "*shape"]:
        return jnp.minimum(self.low + jnp.floor((1 - survival) * (self.high - self.low + 1)), self.high)

    def cdf(self, steps: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.clip((steps - self.low + 1) / (self.high - self.low + 1), 0, 1)


def uniform(low: int | ArrayLike, high: int | ArrayLike, *, key: Array, max_delay: int | None = None) -> Uniform:
    """Every delay from low to high alike, both included.

    Args:
        low: the shortest delay, a whole number >= 0.
        high: the longest.
        key: of the draws.
        max_delay: the longest round trip that is waited for; ``high`` by default, needed where that is traced.

    Returns:
        A Law.

    Raises:
        ValueError: limits that are no whole numbers, negative or in the wrong order; no max_delay where it is needed.

    Example:
        >>> import jax
        >>> law = uniform(1, 3, key=jax.random.key(0))
        >>> jnp.unique(law.table(100, (2, 2))[:, 0, 1]).tolist(), law.max_delay
        ([1, 2, 3], 3)
    """
    for name, limit in (("low", low), ("high", high)):
        check_array(name, limit, "")
        check_whole_delays(jnp.asarray(limit).dtype, name)
    shortest, longest = concrete(low), concrete(high)
    if shortest is not None:
        check_count("low", shortest, allow_zero=True)
    if shortest is not None and longest is not None and longest < shortest:
        raise ValueError(f"high must be at least low, {shortest}, but it is {longest}")
    if max_delay is None:
        if longest is None:
            raise ValueError("max_delay must be given when high is traced (as under vmap), since it is a static length")
        max_delay = int(longest)
    check_count("max_delay", max_delay, allow_zero=True)
    check_key("key", key)
    return Uniform(key, max_delay, jnp.asarray(low).astype(jnp.float32), jnp.asarray(high).astype(jnp.float32))


@register_dataclass(static=["max_delay"])
@dataclass(frozen=True)
class Pareto(Independent):
    """P(tau >= k) = (1 + k)^-alpha.

    Attributes:
        exponent: alpha, ().
    """

    exponent: Float[Array, ""]

    def quantile(self, survival: Float[Array, "*shape"]) -> Num[Array, "*shape"]:
        return jnp.floor(survival ** (-1 / self.exponent)) - 1

    def cdf(self, steps: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1 - (steps + 2) ** -self.exponent


def pareto(alpha: float | ArrayLike, *, key: Array, max_delay: int) -> Pareto:
    """Delays with a heavy tail: P(tau >= k) = (1 + k)^-alpha, whose mean zeta(alpha) - 1 is infinite for alpha <= 1.

    Args:
        alpha: > 0.
        key: of the draws.
        max_delay: the longest round trip that is waited for; what is later is lost, (2 + max_delay)^-alpha of all.

    Returns:
        A Law.

    Raises:
        ValueError: an alpha that is not positive, or differentiated in; a max_delay that is no whole number, or no key.

    Example:
        >>> import jax
        >>> law = pareto(1.0, key=jax.random.key(0), max_delay=8)
        >>> delays = law.table(1000, (2, 2))[:, 0, 1]
        >>> [round(float((delays == k).mean()), 1) for k in (0, 1, -1)]  # 1/2, 1/6 and 1/10
        [0.5, 0.2, 0.1]
    """
    check_count("max_delay", max_delay, allow_zero=True)
    check_key("key", key)
    return Pareto(key, max_delay, parameter("alpha", alpha, check_positive))


def _check_success(name: str, number: np.ndarray) -> None:
    check_positive(name, number)
    check_probability(name, number)
