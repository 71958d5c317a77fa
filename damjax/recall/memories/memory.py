"""What a memory is: two functions, from which objectives, runs and recall follow."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key

from damjax._checks import check_function, check_instance
from damjax.features import FeatureMap
from damjax.objectives import General, Kind, Objective, delta_net, of_memory

__all__ = ["Memory"]


class Memory(NamedTuple):
    """An associative memory of any shape, as data: two pure functions of one agent's parameters.

    Laws: ``init`` gives a pytree of floating-point arrays, whose shapes do not depend on its key; ``apply`` gives a
    recall (dv,) in the dtype of the parameters, and can be differentiated in them.
    ``damjax.testing.check_memory`` tries them. Batches go through ``jax.vmap``:
    ``jax.vmap(memory.init)(jax.random.split(key, N))`` are the first memories of N agents, as ``damjax.simulate``
    takes them.

    Attributes:
        init: ``init(key) -> params``, of a typed PRNG key.
        apply: ``apply(params, key) -> recall (dv,)``, of a cue (dk,).
        features: phi of a memory that is a matrix X and recalls X phi(k), whose gradients are of rank one and whose
            regret and bounds are known; None of any other.

    Example:
        >>> import jax.numpy as jnp
        >>> bias = Memory(lambda key: jnp.zeros(2), lambda params, key: params + key)
        >>> objective = bias.objective()
        >>> float(objective.value(bias.init(jax.random.key(0)), jnp.ones(2), jnp.zeros(2)))
        1.0
    """

    init: Callable[[Key[Array, ""]], Any]
    apply: Callable[[Any, Float[Array, "dk"]], Float[Array, "dv"]]
    features: FeatureMap | None = None

    def objective(
        self,
        loss: Objective | Callable[..., Float[Array, ""]] | None = None,
        *,
        kind: Kind | None = None,
        gated: bool = False,
    ) -> Any:
        """What an agent minimises that keeps this memory: f_t(X) = l(apply(X, k), v, t).

        Args:
            loss: l, (recall (dv,), value (dv,), time ()) -> (), with ``gated`` also of the gate; or an objective of
                ``damjax.objectives``, of which the loss is taken, and for matrices the kind and the ridge part as well.
                By default half the squared error, that of ``delta_net``.
            kind: of a loss that is a function, what is known of it, such as ``damjax.objectives.Smooth(1.0)``: from it
                follow the regret and the bounds of a matrix. Of an objective it is that objective's own.
            gated: whether the loss is a function that takes gates.

        Returns:
            Of a memory with features an ``Objective`` on them, which has regret and bounds if its kind does; of any
            other a ``MemoryObjective``, of which values and gradients are known.

        Raises:
            ValueError: a loss that is none; a kind for a memory that is no matrix, or beside an objective; an objective
                with a ridge part for a memory that is no matrix.

        Example:
            >>> import damjax
            >>> damjax.recall.memories.linear(3, 2).objective().kind
            Quadratic(curvature=1.0)
            >>> damjax.recall.memories.mlp(3, 2, width=8).objective().kind
            General()
        """
        loss = delta_net() if loss is None else loss
        if kind is not None:
            check_instance("kind", kind, Kind, "damjax.objectives.Smooth(smoothness) is one")
            if isinstance(loss, Objective) or self.features is None or gated:
                raise ValueError(
                    "kind must be left out but for the loss of a matrix that is a function: nothing follows from it for"
                    " other memories, and an objective has its own"
                )
        if not isinstance(loss, Objective):
            check_function("loss", loss, "recall, value, time, gate" if gated else "recall, value, time", "or none")
            if self.features is None or gated:
                return of_memory(self.apply, loss, gated=gated)
            return Objective(self.features, loss, jax.grad(loss), General() if kind is None else kind)
        if self.features is not None:
            return loss._replace(features=self.features)
        if loss.ridge is not None or loss.gated:
            raise ValueError(
                "loss must be one of recalls for a memory that is no matrix, but this objective has a ridge part, which"
                " is one of the memory itself; weight decay in transform, or a smaller domain, serves instead"
            )
        return of_memory(self.apply, loss.loss)


def check_is_memory(memory: Any) -> None:
    """Raise unless it is a Memory."""
    fix = "damjax.recall.memories.linear(key_dim, value_dim) is one, Memory(init, apply) makes one of your own"
    check_instance("memory", memory, Memory, fix)
