"""Delays that arise link by link, on the paths of routing trees."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from damjax._checks import check_count, check_delays_shape, check_instance
from damjax._pytrees import register_dataclass
from damjax.channels.laws.independent import Independent
from damjax.channels.laws.law import Law, draws, its_own, or_lost
from damjax.routing import Routes

__all__ = ["PerLink", "per_link"]


@register_dataclass(static=["longest_path", "max_delay"])
@dataclass(frozen=True)
class PerLink(Law):
    """The sum of what each link takes, there and back.

    Attributes:
        hops: links between the agents of a pair, (N, K); 0 or less where nothing travels.
        law: of one link beyond the one step that it takes at least.
        longest_path: the largest number of hops. Static.
        max_delay: the longest round trip.
    """

    hops: Int[Array, "N K"]
    law: Independent
    longest_path: int
    max_delay: int

    def at(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Int[Array, "N K"]:
        check_delays_shape(self.hops.shape, agents.shape)

        def cross(link: Array, so_far: Array) -> Array:
            steps = self.law.quantile(draws(jax.random.fold_in(self.law.key, link), time, agents))
            taken = jnp.where(steps <= self.law.max_delay, 1 + steps, jnp.inf)
            return so_far + jnp.where(link < 2 * self.hops, taken, 0)

        steps = jax.lax.fori_loop(0, 2 * self.longest_path, cross, jnp.zeros(agents.shape, jnp.float32))
        return jnp.where(its_own(agents), 0, or_lost(steps, self.max_delay))

    def arrival_probability(self, time: Int[Array, ""], agents: Int[Array, "N K"]) -> Float[Array, "N K"]:
        check_delays_shape(self.hops.shape, agents.shape)
        at_most = self.law.cdf(jnp.arange(self.law.max_delay + 1, dtype=jnp.float32))
        of_link = jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.diff(at_most, prepend=0)])
        at_once = jnp.zeros(self.max_delay + 1, jnp.float32).at[0].set(1)

        def cross(of_path: Array, _: None) -> tuple[Array, Array]:
            longer = jnp.convolve(of_path, of_link)[: self.max_delay + 1]
            return longer, jnp.sum(longer)

        _, in_time = jax.lax.scan(cross, at_once, length=2 * self.longest_path)
        by_links = jnp.concatenate([jnp.ones(1, jnp.float32), in_time])
        return jnp.where(its_own(agents), 1, by_links[2 * jnp.maximum(self.hops, 0)])


def per_link(routes: Routes, law: Independent, *, max_delay: int | None = None) -> PerLink:
    """A message over h links takes the sum of 2h draws of 1 + law: every link one step, and its own wait.

    Args:
        routes: from ``damjax.routing.compile_routes``, of the weights of the run.
        law: of the wait at one link, such as ``geometric``; a link that takes longer than its max_delay loses the
            message.
        max_delay: the longest round trip that is waited for; 2h (1 + law.max_delay) over the longest path by default.

    Returns:
        A Law.

    Raises:
        ValueError: routes or a law that are none, a law whose delays are not drawn one by one; a max_delay that is no
            whole number.

    Example:
        >>> import damjax
        >>> routes = damjax.routing.compile_routes(damjax.graphs.path(3), jnp.full((3, 3), 1 / 3))
        >>> law = per_link(routes, damjax.channels.uniform(0, 1, key=jax.random.key(0)))
        >>> [law.table(200, (3, 3))[:, 0].min(axis=0).tolist(), law.table(200, (3, 3))[:, 0].max(axis=0).tolist()]
        [[0, 2, 4], [0, 4, 8]]
    """
    check_instance("routes", routes, Routes, "damjax.routing.compile_routes(graph, weights) makes them")
    check_instance("law", law, Independent, "damjax.channels.geometric(p, key=key, max_delay=20) is such a law")
    longest_path = int(routes.hops.max(initial=0))
    if max_delay is None:
        max_delay = 2 * longest_path * (1 + law.max_delay)
    check_count("max_delay", max_delay, allow_zero=True)
    return PerLink(jnp.asarray(routes.hops, jnp.int32), law, longest_path, max_delay)
