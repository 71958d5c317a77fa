"""What a law of delays is, and what laws share: one uniform number for every question, and parameters of draws."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from damjax._checks import check_array, check_between, check_count, concrete
from damjax.types import ArrayLike
from damjax.weights.interests import Interests

__all__ = ["Law", "asked_agents", "check_probability", "draws", "its_own", "or_lost", "parameter"]

MANTISSA = 24  # bits of a number in single precision


class Law(ABC):
    """How late the answer to every question is, and whether it comes at all.

    Pass one wherever a table of round trips goes. Law: ``at`` is a pure function of the law and the time, so that every
    algorithm, weight and setting sees the same delays; and the delay of a question depends on who asks whom, and not on
    which column of sparse weights it stands in. A law of your own is a subclass with a ``max_delay`` and an ``at``.

    Attributes:
        max_delay: the longest round trip, in steps; what is later is lost. Static.
    """

    max_delay: int

    @abstractmethod
    def at(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Int[Array, "N K"]:
        """Round trips of the questions of a step, in steps: from 0 to ``max_delay``, or negative for a lost one.

        Args:
            time: in which they are asked, from 1 on; may be traced.
            agents: whom agent n asks in column k, (N, K).
        """

    def arrival_probability(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
        """How likely the answers to the questions of a step arrive, (N, K); arguments as of ``at``.

        Raises:
            ValueError: of a law that does not say.
        """
        raise ValueError(
            f"delays must say how likely an answer arrives where losses are made up for, but {type(self).__name__} has"
            f" no arrival_probability; use a law that has, such as damjax.channels.lossy, or reweight=False"
        )

    def table(
        self, num_steps: int, shape: tuple[int, int], agents: Int[ArrayLike, "N K"] | None = None
    ) -> Int[Array, "T N K"]:
        """The round trips that this law gives in the steps 1..T.

        Args:
            num_steps: T.
            shape: of the weights, (N, N), or (N, K) for sparse ones.
            agents: whom the columns are about, the ``agents`` of sparse weights; column m is about agent m by default.

        Returns:
            Entry [s-1, n, k] of the question that agent n asks in step s; negative for a lost one.

        Raises:
            ValueError: another shape than (N, N) without ``agents``, or with agents of another shape.
        """
        check_count("num_steps", num_steps)
        if agents is None and shape[0] != shape[1]:
            raise ValueError(f"agents must say whom each column is about where shape is not (N, N), but it is {shape}")
        agents = np.broadcast_to(np.arange(shape[1]), shape) if agents is None else agents
        if np.shape(agents) != tuple(shape):
            raise ValueError(f"agents must have the shape {shape}, but theirs is {np.shape(agents)}")
        asked = jnp.asarray(agents, jnp.int32)
        return jax.vmap(lambda time: self.at(time, asked))(jnp.arange(1, num_steps + 1, dtype=jnp.int32))


def draws(key: Array, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
    """A uniform number in (0, 1] for every question, in single precision whatever that of the run.

    It depends on the key, the step, who asks and who is asked, and on nothing else. The key of a question is a hash of
    all that already, so its own bits are the draw: one hash, where a draw from that key would be a second one.
    """
    of_step = jax.random.fold_in(key, time)
    of_askers = jax.vmap(jax.random.fold_in, (None, 0))(of_step, jnp.arange(agents.shape[0]))
    of_questions = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(of_askers, agents)
    bits = jax.random.key_data(of_questions)[..., 0]
    return 1 - (bits >> (32 - MANTISSA)).astype(jnp.float32) * np.float32(2**-MANTISSA)


def asked_agents(interests: Interests) -> Int[Array, "N K"]:
    """Whom each agent asks in each column."""
    return jnp.broadcast_to(interests.agents, interests.shape)


def its_own(agents: Int[Array, "N K"]) -> Bool[Array, "N K"]:
    """Which questions agents ask themselves: those travel nowhere, are answered at once and are never lost."""
    return agents == jnp.arange(agents.shape[0], dtype=agents.dtype)[:, None]


def or_lost(delays: Num[ArrayLike, "*shape"], max_delay: int) -> Int[Array, "*shape"]:
    """Round trips as int32; -1 for those that are none, or are later than any that is waited for."""
    # Compared in a dtype of their own: a large number in fewer bits would be a small one.
    xp = jnp if isinstance(delays, jax.Array) else np
    array = xp.asarray(delays)
    return jnp.asarray(xp.where((array >= 0) & (array <= max_delay), array, -1).astype(np.int32))


def parameter(name: str, number: float | ArrayLike, check: Callable[[str, np.ndarray], None]) -> Float[Array, ""]:
    """A number on which draws depend, in single precision as they are; checked where it is concrete.

    A run has no derivative in it. Differentiating would give zero without a word, so it raises.
    """
    check_array(name, number, "")
    if (value := concrete(number)) is not None:
        check(name, value)
    return _drawn_with(name, jnp.asarray(number).astype(jnp.float32))


def check_probability(name: str, number: np.ndarray) -> None:
    """Raise unless the number lies in [0, 1]."""
    check_between(name, number, 0.0, 1.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _drawn_with(name: str, number: Array) -> Array:
    return number


@_drawn_with.defjvp
def _(name: str, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    raise ValueError(
        f"{name} must not be differentiated in: delays are whole steps, and a run has no derivative in the law that"
        f" draws them; damjax.bounds has one in the mean delays, or use jax.lax.stop_gradient({name})"
    )
