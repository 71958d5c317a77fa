"""The rate of every agent at its own count of steps."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._arrays import promoting
from damjax._checks import check_function, check_positive, concrete
from damjax.types import LearningRate, Schedule

__all__ = ["checked_schedule", "rates_at"]


def checked_schedule(learning_rate: LearningRate, num_agents: int, name: str = "learning_rate") -> Schedule:
    """The schedule of a learning rate that gives every agent a rate, or a ValueError."""
    schedule = _as_schedule(learning_rate, name)
    jax.eval_shape(lambda: rates_at(schedule, jnp.ones(num_agents, jnp.int32), jnp.float32))
    return schedule


def _as_schedule(learning_rate: LearningRate, name: str) -> Schedule:
    """A float is a constant rate, as in optax; a schedule is taken as it is; an array may mean two things."""
    if callable(learning_rate):
        check_function(name, learning_rate, "count", "call a factory of damjax.schedules, such as inverse_sqrt(scale)")
        return learning_rate
    if (shape := np.shape(learning_rate)) != ():
        raise ValueError(
            f"{name} must be one number or a function of the count, but it is an array of shape {shape}, whose"
            f" entries may be meant for agents or for steps; say which: lambda count: rates gives every agent its own,"
            f" lambda count: jax.numpy.asarray(rates)[count.astype(int) - 1] every step"
        )
    if (rate := concrete(learning_rate)) is not None:
        check_positive(name, rate, allow_zero=True)
    return lambda count: jnp.asarray(learning_rate)


def rates_at(schedule: Schedule, count: Int[Array, "N"], dtype: jax.typing.DTypeLike) -> Float[Array, "N"]:
    """Each agent's rate at its own count of steps; 0 while nothing has arrived.

    A schedule sees one count at a time, since those of others (optax's with cases) mix them up, and sees it in at least
    single precision, since half precision has no 257.
    """
    (num_agents,) = count.shape
    counts = jnp.maximum(count, 1).astype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)

    def rate(count: Array) -> Array:
        if callable(value := promoting(schedule, count)):
            raise ValueError(f"learning_rate must give numbers, but of a count it makes {value!r}; call the factory")
        return jnp.asarray(value)

    rates = jax.vmap(rate)(counts)
    if rates.shape == (num_agents, num_agents):
        # From constants of every agent it makes the rates of all; an agent's own is on the diagonal.
        rates = jnp.diagonal(rates)
    if rates.shape != (num_agents,):
        raise ValueError(
            f"learning_rate must give one number, or one per agent ({num_agents},), at every count, but it gives rates"
            f" of shape {rates.shape[1:]}; see damjax.schedules"
        )
    return jnp.where(count > 0, rates.astype(dtype), 0)
