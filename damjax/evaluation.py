"""Losses and gradients of every pair of a memory and an association that its agent may want.

Algorithms, regret, bounds and channels ask for them through one protocol, ``pairs``: weighted sums over the interests
of an agent, and the gradients one by one. Of linear memories the gradients are of rank one and are never made where
their factors will do (``RankOnePairs``); of memories of any other shape they are made (``GeneralPairs``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from damjax._arrays import (
    beside,
    check_heads,
    dtype_of,
    outer,
    root,
    squared_outer,
    stored,
    sum_last,
    zero_unweighted,
)
from damjax._checks import check_array, check_gates_given, check_instance
from damjax._laws import check_objective, num_features
from damjax.objectives import MemoryObjective, Objective
from damjax.types import ArrayLike, Associations
from damjax.weights.interests import Interests

__all__ = ["GeneralPairs", "Pairs", "RankOnePairs", "filled", "pairs", "ridge_coefficients", "weigh"]


class RankOnePairs(NamedTuple):
    """Pairs of linear memories (dv, df), whose gradients are r phi' + D * X; head by head where there are several.

    Attributes:
        objective: the memory loss f.
        interests: of every agent, (N, K), in the dtype of the memories.
        params: the memories X, (N, dv, df).
        associations: of one step, ``filled``.
        time: that step, 1-based.
    """

    objective: Objective
    interests: Interests
    params: Float[Array, "N dv df"]
    associations: Associations
    time: Int[Array, ""]

    def features_and(
        self, function: Callable[..., Array]
    ) -> tuple[Float[Array, "N *heads df"], Float[Array, "N K *item"]]:
        """Finite features of every cue, and s times a loss or a residual of every prediction, (N, K, ..).

        Args:
            function: the loss or the residual.
        """
        associations, interests = self.associations, self.interests
        features = jax.vmap(self.objective.features)(jnp.asarray(associations.keys))
        predictions = interests.predictions(self.params, features, self.time)
        values = interests.gather(jnp.asarray(associations.values))
        results = _over_pairs(function, predictions, values, self.time.astype(self.params.dtype))
        # A cue with a NaN spoils every result of it, and the sums of those who want it, and no other sum. Zero or NaN:
        spoiled = interests.gather(sum_last((0 * features).reshape(len(features), -1)))
        results = results + beside(spoiled, results)
        return jnp.where(jnp.isfinite(features), features, 0), weigh(_by_pair(interests, associations), results)

    def weighted_losses(self) -> Float[Array, "N"]:
        """sum_k w_nk s_k f_k(X_n)."""
        _, losses = self.features_and(self.objective.loss)
        weighted = sum_last(self.interests.weights * zero_unweighted(self.interests.weights, losses))
        if (ridge := self._ridge()) is not None:
            weighted = weighted + 0.5 * jnp.sum(self.interests.weighted_sum(ridge) * self.params**2, axis=(1, 2))
        return weighted

    def weighted_gradient(self) -> Float[Array, "N dv df"]:
        """sum_k w_nk s_k grad f_k(X_n)."""
        residuals, cues = self.factors()
        gradient = self.interests.weighted_outer(residuals, cues, self.time)
        if (ridge := self._ridge()) is not None:
            gradient = gradient + self.interests.weighted_sum(ridge) * self.params
        return gradient

    def gradients(self) -> Float[Array, "N K dv df"]:
        """s_k grad f_k(X_n), one by one."""
        gradients, shrinkage = outer(*self.factors()), self.shrinkage()
        return gradients if shrinkage is None else gradients + shrinkage

    def factors(self) -> tuple[Float[Array, "N K dv"], Float[Array, "#N K *heads df"]]:
        """The two factors of the rank-one part, s r and phi; one row of phi where all receivers ask the same."""
        features, residuals = self.features_and(self.objective.residual)
        return residuals, self.interests.gather(features)

    def shrinkage(self) -> Float[Array, "N K dv df"] | None:
        """The ridge part s D * X, one by one; None where there is none."""
        if (ridge := self._ridge()) is None:
            return None
        everyone = jnp.broadcast_to(ridge, (self.params.shape[0], *ridge.shape[1:]))
        return self.interests.gather(everyone) * self.params[:, None]

    def weighted_gradients(self) -> Float[Array, "N K dv df"]:
        """w_nk s_k grad f_k(X_n), one by one, stored: what scatters them would make each anew for each number of it."""
        weights = jnp.asarray(self.interests.weights)
        if self.objective.ridge is not None:
            return stored(weigh, weights, self.gradients(), time=self.time)

        def weighted(weights: Array, residuals: Array, cues: Array) -> Array:
            return outer(weigh(weights, residuals), cues)

        return stored(weighted, weights, *self.factors(), time=self.time)

    def gradient_norms(self) -> Float[Array, "N K"]:
        """||grad f_k(X_n)||, one by one."""
        if self.objective.ridge is not None:
            return root(jnp.sum(self.gradients() ** 2, axis=(-2, -1)))
        return root(squared_outer(*self.factors()))

    def _ridge(self) -> Float[Array, "#N #dv #df"] | None:
        return ridge_coefficients(self.objective, self.associations, self.time, self.params)


class GeneralPairs(NamedTuple):
    """Pairs of memories of any shape, of which an objective gives value and gradient; attributes as above.

    Attributes:
        objective: the memory loss f.
        interests: of every agent, (N, K), in the dtype of the memories.
        params: the memories X, a pytree whose leaves have a leading N.
        associations: of one step, ``filled``.
        time: that step, 1-based.
    """

    objective: MemoryObjective
    interests: Interests
    params: Any
    associations: Associations
    time: Int[Array, ""]

    def weighted_losses(self) -> Float[Array, "N"]:
        """sum_k w_nk s_k f_k(X_n)."""
        losses = self._over_pairs(self.objective.value)
        return jnp.sum(self.interests.weights * zero_unweighted(self.interests.weights, losses), axis=1)

    def weighted_gradient(self) -> Any:
        """sum_k w_nk s_k grad f_k(X_n), as the memories."""
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=1), weigh(self.interests.weights, self.gradients()))

    def gradients(self) -> Any:
        """s_k grad f_k(X_n), one by one: leaves (N, K, ..)."""
        return self._over_pairs(self.objective.gradient)

    def weighted_gradients(self) -> Any:
        """w_nk s_k grad f_k(X_n), one by one, stored: leaves (N, K, ..)."""
        weights = jnp.asarray(self.interests.weights)
        return jax.tree.map(lambda leaf: stored(weigh, weights, leaf, time=self.time), self.gradients())

    def gradient_norms(self) -> Float[Array, "N K"]:
        """||grad f_k(X_n)||, one by one."""
        squares = [
            jnp.sum(leaf.reshape(*leaf.shape[:2], -1) ** 2, axis=2) for leaf in jax.tree.leaves(self.gradients())
        ]
        return root(jnp.sum(jnp.stack(squares), axis=0))

    def _over_pairs(self, function: Callable[..., Any]) -> Any:
        time = self.time.astype(self.interests.weights.dtype)
        seen = jax.tree.map(lambda field: self.interests.gather(jnp.asarray(field)), _seen(self.associations))
        rows = None if seen[0].shape[0] < self.interests.shape[0] else 0
        seen = jax.tree.map(lambda field: field[0], seen) if rows is None else seen
        over_columns = jax.vmap(lambda params, seen: function(params, *seen, time), in_axes=(None, 0))
        results = jax.vmap(over_columns, in_axes=(0, rows))(self.params, seen)
        return weigh(_by_pair(self.interests, self.associations), results)


Pairs = RankOnePairs | GeneralPairs


def pairs(
    objective: Objective | MemoryObjective,
    interests: Interests,
    params: Any,
    associations: Associations,
    time: Int[Array, ""],
) -> Pairs:
    """Every memory and every association of one step that its agent may want.

    Args:
        objective: the memory loss f, from ``damjax.objectives``.
        interests: of every agent.
        params: the memories X, one per agent.
        associations: of one step.
        time: that step, 1-based.

    Raises:
        ValueError: associations whose shapes or dtypes do not fit the memories and the objective.

    Example:
        >>> import damjax
        >>> interests = damjax.weights.interests.as_interests("weights", jnp.array([[1.0, 0.0], [0.5, 0.5]]))
        >>> seen = Associations(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]]))
        >>> every = pairs(damjax.objectives.delta_net(), interests, jnp.zeros((2, 1, 1)), seen, jnp.asarray(1))
        >>> every.weighted_losses().tolist(), every.weighted_gradient().ravel().tolist()
        ([0.5, 2.5], [-1.0, -2.0])
    """
    check_associations(params, associations, objective)
    if (num_agents := num_agents_of(params)) != interests.shape[0]:
        raise ValueError(f"weights must have one row per agent, {num_agents}, but they have {interests.shape[0]}")
    interests, associations = interests.astype(dtype_of(params)), filled(associations)
    if isinstance(objective, Objective):
        return RankOnePairs(objective, interests, params, associations, time)
    return GeneralPairs(objective, interests, params, associations, time)


def _over_pairs(
    function: Callable[..., Array], predictions: Float[Array, "N K dv"], values: Float[Array, "#N K dv"], time: Array
) -> Float[Array, "N K *item"]:
    """A loss or a residual of every prediction; values that all receivers share are mapped over columns only."""
    shared = values.shape[0] < predictions.shape[0]
    over_columns = jax.vmap(function, in_axes=(0, 0, None))
    over_rows = jax.vmap(over_columns, in_axes=(0, None if shared else 0, None))
    return over_rows(predictions, values[0] if shared else values, time)


def filled(associations: Associations) -> Associations:
    """The associations with ones for those that are missing, the entries of which nothing may depend on.

    One is a key and a gate that features and losses are defined at, where 0 need not be.

    Args:
        associations: of one step, or a whole stream.

    Returns:
        The same record; a sample weight that is negative is NaN in it. As they are where there are no sample weights.

    Example:
        >>> seen = Associations(jnp.array([[jnp.nan], [3.0]]), jnp.ones((2, 1)), None, jnp.array([0.0, 0.5]))
        >>> filled(seen).keys.ravel().tolist()
        [1.0, 3.0]
    """
    if associations.sample_weights is None:
        return associations
    weights = jnp.asarray(associations.sample_weights)
    missing = weights == 0

    def fill(field: ArrayLike) -> Array:
        return jnp.where(beside(missing, jnp.asarray(field)), 1, jnp.asarray(field))

    weights = jnp.where(missing, 0, jnp.where(weights > 0, weights, jnp.nan))
    keys, values, gates = jax.tree.map(fill, _seen(associations))
    return Associations(keys, values, gates, weights)


def _seen(associations: Associations) -> tuple[Any, Any, Any]:
    """What an objective takes of associations: keys, values and gates."""
    return associations.keys, associations.values, associations.gates


def _by_pair(interests: Interests, associations: Associations) -> Float[Array, "#N K"] | None:
    """The sample weight of the association of every pair; None where all count alike."""
    weights = associations.sample_weights
    return None if weights is None else interests.gather(jnp.asarray(weights))


def weigh(weights: Float[ArrayLike, "*leading"] | None, items: Any) -> Any:
    """Every item times its weight; what is not finite counts where it has one.

    Args:
        weights: of the items; None where all count alike.
        items: a pytree, whose leaves begin with the axes of the weights.

    Example:
        >>> weigh(jnp.array([0.0, 2.0]), jnp.array([[jnp.nan, 1.0], [3.0, 4.0]])).tolist()
        [[0.0, 0.0], [6.0, 8.0]]
    """
    if weights is None:
        return items

    def weighted(leaf: Float[Array, "..."]) -> Float[Array, "..."]:
        of_items = jnp.asarray(weights, leaf.dtype)
        return beside(of_items, leaf) * zero_unweighted(of_items, leaf)

    return jax.tree.map(weighted, items)


def own_gradients(objective: Objective | MemoryObjective, params: Any, associations: Associations, time: Array) -> Any:
    """Every agent's gradient on its own association, as the memories."""
    step, own = jnp.asarray(time).astype(dtype_of(params)), filled(associations)
    gradients = jax.vmap(objective.gradient, in_axes=(0, 0, 0, 0, None))(params, *_seen(own), step)
    return weigh(own.sample_weights, gradients)


def num_agents_of(params: Any) -> int:
    """N, the leading length of the memories; raises for what has none."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
    if not shapes or not shapes[0]:
        raise ValueError(f"params must hold one memory per agent, with a leading axis of agents, but it is {params!r}")
    return shapes[0][0]


def check_params(objective: Objective | MemoryObjective, params: Any, num_agents: int) -> Any:
    """The first memories as strongly typed arrays, or a ValueError for what is not one memory per agent."""
    leaves = jax.tree.leaves(params)
    shapes = [np.shape(leaf) for leaf in leaves]
    if isinstance(objective, Objective):
        is_array = len(leaves) == 1 and leaves[0] is params
        if not is_array or len(shapes[0]) != 3 or shapes[0][0] != num_agents:
            raise ValueError(
                f"params must hold one memory per agent, shape ({num_agents}, dv, df), but"
                + (f" its shape is {shapes[0]}" if is_array else f" it is a {type(params).__name__}")
            )
        check_array("params", params, "N dv df")
        check_heads(objective.heads, shapes[0][1])
    elif not leaves or any(shape[:1] != (num_agents,) for shape in shapes):
        raise ValueError(
            f"params must hold one memory per agent, every leaf with a leading {num_agents}, but their shapes are"
            f" {shapes}; jax.vmap(init)(keys) makes such memories"
        )
    # A weak type would change after the first step.
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), params)
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"params must be floating-point, but their dtype is {leaf.dtype}; use .astype(float)")
    return params


def check_associations(params: Any, associations: Associations, objective: Objective | MemoryObjective) -> None:
    """Raise unless one step's associations fit. Static facts only, so it costs nothing once compiled."""
    num_agents, dtype = num_agents_of(params), dtype_of(params)
    check_instance(
        "associations", associations, Associations, "damjax.streams.from_arrays(keys, values) makes a stream"
    )
    keys, values, gates, sample_weights = associations
    if keys.ndim != 2 or keys.shape[0] != num_agents:
        raise ValueError(
            f"associations.keys must have shape ({num_agents}, dk) at each step, but its shape is {keys.shape};"
            f" simulate takes the whole stream, step one slice of it"
        )
    if values.ndim != 2 or values.shape[0] != num_agents:
        raise ValueError(
            f"associations.values must have shape ({num_agents}, dv) at each step, but its shape is {values.shape}"
        )
    if sample_weights is not None and sample_weights.shape != (num_agents,):
        raise ValueError(
            f"associations.sample_weights must have shape ({num_agents},) at each step, one weight per agent, but its"
            f" shape is {sample_weights.shape}"
        )
    for name, array in associations._asdict().items():
        if array is not None and array.dtype != dtype:
            raise ValueError(
                f"associations.{name} must have the dtype of params, {dtype}, but it is {array.dtype}; cast one of them"
            )
    check_gates_given(objective.gated, gates)
    if isinstance(objective, Objective):
        _check_linear(params, associations, objective)
    else:
        _check_one_number(params, associations, objective)


def _check_linear(params: Float[Array, "N dv df"], associations: Associations, objective: Objective) -> None:
    """Raise unless values, features and gates fit the memories (dv, df)."""
    (num_agents, value_dim, feature_dim), (keys, values, gates) = params.shape, _seen(associations)
    if values.shape[1] != value_dim:
        raise ValueError(
            f"associations.values must have shape ({num_agents}, {value_dim}) to fit params, but it is {values.shape}"
        )
    if (expected := num_features(objective, keys.shape[1:], keys.dtype)) != feature_dim:
        raise ValueError(
            f"params has feature dimension df = {feature_dim}, but the objective maps keys of length {keys.shape[1]} to"
            f" {expected} features; make the memories (N, dv, {expected})"
        )
    check_objective(objective, value_dim, params.dtype)
    if objective.gated and gates is not None:
        shapes = [
            (num_agents,),
            *((num_agents, rows, columns) for rows in (1, value_dim) for columns in (1, feature_dim)),
        ]
        if gates.shape not in shapes:
            raise ValueError(
                f"associations.gates must have shape ({num_agents},), or ({num_agents}, rows, columns) with rows 1 or"
                f" {value_dim} and columns 1 or {feature_dim}, but it is {gates.shape}"
            )


def _check_one_number(params: Any, associations: Associations, objective: MemoryObjective) -> None:
    """Raise unless the loss of one agent's memory and association is one number."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (params, *_seen(associations)))
    loss = jax.eval_shape(objective.value, *one, jax.ShapeDtypeStruct((), dtype_of(params)))
    if getattr(loss, "shape", None) != ():
        raise ValueError(f"objective.value must give one number, but it gives {loss}")


def ridge_coefficients(
    objective: Objective, associations: Associations, time: Array, params: Array
) -> Float[Array, "#N #dv #df"] | None:
    """The ridge coefficients s D of every association, which is ``filled``, or None where there are none.

    An axis along which they are all the same has length 1: sums over it come first, and whoever needs it broadcasts.

    Example:
        >>> import damjax
        >>> gated = damjax.objectives.gated_linear_attention()
        >>> seen = damjax.Associations(jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.array([0.5, 0.25]))
        >>> ridge_coefficients(gated, seen, jnp.asarray(1), jnp.zeros((2, 4, 3))).ravel().tolist()
        [0.5, 0.75]
    """
    if objective.ridge is None:
        return None
    check_gates_given(objective.gated, associations.gates)
    step, ridge = time.astype(params.dtype), objective.ridge

    def matrix(gate: Array | None) -> Float[Array, "#dv #df"]:
        return jnp.atleast_2d(jnp.asarray(ridge(gate, step), params.dtype))

    gates = associations.gates
    coefficients = matrix(None)[None] if gates is None else jax.vmap(matrix)(jnp.asarray(gates))
    return weigh(associations.sample_weights, coefficients)
