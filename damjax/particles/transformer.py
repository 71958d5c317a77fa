"""A two-layer attention-only Transformer whose trainable matrices are associative memories.

With x_t = w_E(z_t) + p_t and causal attention,

    x'_t = x_t + W_OV sum_s softmax_s(x_t' W_K1 x_s) x_s
    logits_t = W_U (x'_t + W_O W_V sum_s softmax_s(x'_t' W_K2 x'_s) x'_s)

where embeddings, positions, W_U, W_OV and W_V stay random and nearly orthonormal, and W_K1 (where the previous token
is), W_K2 (what to look for) and W_O (what to say) are learned from zero. Together they make an induction head.

Source: Bietti et al., Birth of a Transformer: a memory viewpoint, 2023, section 4.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from damjax._arrays import product, promoting, softplus
from damjax._checks import check_array, check_count, check_instance, concrete, float_dtype
from damjax._scan import check_loop, scan, warn_if_not_finite
from damjax.particles import bigrams
from damjax.particles.bigrams import Batch, Task
from damjax.particles.dynamics import TOO_LARGE_A_STEP
from damjax.types import ArrayLike

__all__ = [
    "Model",
    "Params",
    "Record",
    "accuracy",
    "draw_model",
    "forward",
    "ideal",
    "loss",
    "margins",
    "part_by_part",
    "readout",
    "train",
    "whole",
    "zeros",
]


class Model(NamedTuple):
    """The parts that stay as they were drawn.

    Attributes:
        embeddings: w_E(v), (V, d).
        positions: p_t, (T, d).
        unembeddings: w_U(v), (V, d).
        previous_value: W_OV of the first layer, (d, d).
        value: W_V of the second layer, (d, d).
    """

    embeddings: Float[ArrayLike, "V d"]
    positions: Float[ArrayLike, "T d"]
    unembeddings: Float[ArrayLike, "V d"]
    previous_value: Float[ArrayLike, "d d"]
    value: Float[ArrayLike, "d d"]


class Params(NamedTuple):
    """The trainable memories, (d, d) each; the same record holds whatever else comes one per memory.

    Attributes:
        previous: W_K1, from a position to the one before it.
        key: W_K2, from a trigger to the place after its earlier occurrence.
        output: W_O, from a token seen to the token said.
    """

    previous: Float[ArrayLike, "..."]
    key: Float[ArrayLike, "..."]
    output: Float[ArrayLike, "..."]


class Record(NamedTuple):
    """What each training step saw on its fresh minibatch, before its update; a leading axis of steps on every field.

    Attributes:
        loss: cross-entropy on the mask, in nats.
        accuracy: on the mask.
        mean: mean margin of each memory; of the output memory over the tokens that can be outputs.
        worst: least margin of each memory, over the same entries.
    """

    loss: Float[Array, "steps"]
    accuracy: Float[Array, "steps"]
    mean: Params
    worst: Params


def _check_model(model: Model) -> None:
    check_instance("model", model, Model, "damjax.particles.transformer.draw_model(key, ...) draws one")


def _check_parts(model: Model, params: Params) -> None:
    _check_model(model)
    check_instance("params", params, Params, "damjax.particles.transformer.zeros(model) makes them")


def _check_tokens(name: str, tokens: Any, model: Model) -> None:
    """Raise unless the concrete ``tokens`` are among those of the model."""
    values = concrete(tokens)
    if values is not None and values.size and (values.min() < 0 or values.max() >= len(model.embeddings)):
        raise ValueError(
            f"{name} must lie in 0 .. {len(model.embeddings) - 1}, the tokens of the model, but they range from"
            f" {values.min()} to {values.max()}; draw the model with the num_tokens of the task's source"
        )


def _check_sizes(model: Model, task: Task) -> None:
    """Raise unless the task's tokens and positions are the model's."""
    _check_model(model)
    check_instance("task", task, Task, "damjax.particles.bigrams.trigger_task(source) makes one")
    num_tokens, length = task.source.marginal.shape[0], task.length
    if num_tokens != len(model.embeddings) or length > len(model.positions):
        raise ValueError(
            f"model must have the {num_tokens} tokens of the task and at least its length, {length}, but it has"
            f" {len(model.embeddings)} tokens and {len(model.positions)} positions; draw it with the task's sizes"
        )


def draw_model(
    key: Key[Array, ""], *, num_tokens: int, length: int, dim: int, dtype: jax.typing.DTypeLike | None = None
) -> Model:
    """Draw the fixed parts: independent Gaussian entries of variance 1/d, so that vectors have norms near one.

    Args:
        key: typed PRNG key.
        num_tokens: V.
        length: T, of the longest sequence.
        dim: d.
        dtype: of the model; jax's default float otherwise.

    Raises:
        ValueError: a size that is not a positive integer.

    Example:
        >>> model = draw_model(jax.random.key(0), num_tokens=5, length=8, dim=16)
        >>> model.positions.shape, model.value.shape
        ((8, 16), (16, 16))
    """
    for name, number in (("num_tokens", num_tokens), ("length", length), ("dim", dim)):
        check_count(name, number)
    dtype = float_dtype(dtype)
    counts = (num_tokens, length, num_tokens, dim, dim)
    keys = jax.random.split(key, len(counts))
    return Model(*(jax.random.normal(k, (n, dim), dtype) / dim**0.5 for k, n in zip(keys, counts, strict=True)))


def zeros(model: Model) -> Params:
    """Empty memories, where training starts.

    Example:
        >>> zeros(draw_model(jax.random.key(0), num_tokens=5, length=8, dim=16)).key.shape
        (16, 16)
    """
    _check_model(model)
    return Params(*(jnp.zeros_like(model.value) for _ in Params._fields))


def ideal(model: Model, task: Task, strength: float | ArrayLike = 10.0) -> Params:
    """The memories that solve the task, as sums of outer products; ``strength`` multiplies each.

    W_K1 = sum_t p_t p_{t-1}', W_K2 = sum_k w_E(q_k) (W_OV w_E(q_k))', W_O = sum_v w_U(v) (W_V w_E(v))'.

    Raises:
        ValueError: a task that is not of the model's sizes.

    Example:
        >>> task = bigrams.trigger_task(bigrams.zipf_source(jax.random.key(0), 5), num_triggers=2, length=8)
        >>> ideal(draw_model(jax.random.key(1), num_tokens=5, length=8, dim=16), task).output.shape
        (16, 16)

    Note: v runs over the tokens that can be outputs, in the paper over all. The first position has only itself to look
    at, so that a trigger there is found as if it came after itself; summed over all tokens, W_O would then say it.
    """
    _check_sizes(model, task)
    check_array("strength", strength, "")
    tokens, positions, answers, previous_value, value = map(jnp.asarray, model)
    asked, told = tokens[task.triggers], jnp.where((jnp.asarray(task.outputs) > 0)[:, None], tokens, 0)
    sums = Params(
        previous=product(positions[1:].T, positions[:-1]),
        key=product(asked.T, product(asked, previous_value.T)),
        output=product(answers.T, product(told, value.T)),
    )
    return jax.tree.map(lambda matrix: jnp.asarray(strength, matrix.dtype) * matrix, sums)


def _attend(x, memory):
    scores = product(x, memory, jnp.swapaxes(x, -1, -2))
    causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    return product(jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1), x)


def forward(params: Params, model: Model, tokens: Int[ArrayLike, "*B T"]) -> Float[Array, "*B T V"]:
    """The logits of the next token at every position.

    Raises:
        ValueError: sequences longer than the model's positions, tokens that the model does not have.

    Example:
        >>> model = draw_model(jax.random.key(0), num_tokens=5, length=8, dim=16)
        >>> forward(zeros(model), model, jnp.array([0, 3, 1])).shape
        (3, 5)
    """
    x, attended = _second_layer(params, model, _checked_tokens(params, model, tokens))
    x = x + product(attended, product(params.output, model.value).T)
    return product(x, model.unembeddings.T)


def _checked_tokens(params: Params, model: Model, tokens: Int[ArrayLike, "*B T"]) -> Int[Array, "*B T"]:
    """Sequences that the model can read, or a ValueError."""
    _check_parts(model, params)
    check_array("tokens", tokens, "...")
    tokens = jnp.asarray(tokens)
    if tokens.ndim == 0 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(
            f"tokens must be integers (.., T), but they have shape {tokens.shape} and dtype {tokens.dtype}"
        )
    length = tokens.shape[-1]
    if length > len(model.positions):
        raise ValueError(
            f"tokens must hold sequences of at most {len(model.positions)} tokens, the positions of the model, but"
            f" they hold {length}; draw the model with a larger length"
        )
    _check_tokens("tokens", tokens, model)
    return tokens


def _second_layer(
    params: Params, model: Model, tokens: Int[Array, "*B T"]
) -> tuple[Float[Array, "*B T d"], Float[Array, "*B T d"]]:
    """The residual stream x' of every position, and what the second layer's attention reads there."""
    x = jnp.asarray(model.embeddings)[tokens]
    x = x + jnp.broadcast_to(model.positions[: tokens.shape[-1]], x.shape)
    x = x + product(_attend(x, params.previous), model.previous_value.T)
    return x, _attend(x, params.key)


def readout(
    params: Params, model: Model, tokens: Int[ArrayLike, "*B T"]
) -> tuple[Float[Array, "*B T d"], Float[Array, "*B T d"]]:
    """What the output memory is asked with at every position, and what its recall is added to.

    The logits are W_U (x' + W_O c), with the cue c = W_V sum_s softmax_s(x'_t' W_K2 x'_s) x'_s; W_O is not read.

    Args:
        params: the memories; those of the attention count.
        model: fixed parts.
        tokens: as for ``forward``.

    Returns:
        Cues c and the residual stream x', (.., T, d) each.

    Raises:
        ValueError: as ``forward``.

    Example:
        >>> model = draw_model(jax.random.key(0), num_tokens=5, length=8, dim=16)
        >>> params = zeros(model)._replace(output=jnp.eye(16))
        >>> cues, residual = readout(params, model, jnp.array([0, 3, 1]))
        >>> logits = (residual + cues @ params.output.T) @ model.unembeddings.T
        >>> bool(jnp.allclose(logits, forward(params, model, jnp.array([0, 3, 1])), atol=1e-5))
        True
    """
    residual, attended = _second_layer(params, model, _checked_tokens(params, model, tokens))
    return product(attended, jnp.asarray(model.value).T), residual


def _evaluate(params, model, batch):
    check_instance("batch", batch, Batch, "damjax.particles.bigrams.sample(key, task, batch_size) draws one")
    logits = forward(params, model, batch.tokens)
    count = jnp.maximum(batch.mask.sum(), 1).astype(logits.dtype)
    is_target = jax.nn.one_hot(batch.targets, logits.shape[-1], dtype=bool)
    beyond = logits - jnp.take_along_axis(logits, batch.targets[..., None], axis=-1)
    # log(1 + odds against the target), which is no 0 where the model is sure, as the logarithm of 1 is.
    nats = softplus(jax.nn.logsumexp(jnp.where(is_target, -jnp.inf, beyond), axis=-1))
    hits = (logits.argmax(axis=-1).astype(batch.targets.dtype) == batch.targets).astype(nats.dtype)
    right = jnp.where(jnp.isnan(nats), nats, hits)  # the argmax of NaN is a token like any other
    return tuple(jnp.where(batch.mask, entries, 0).sum() / count for entries in (nats, right))


def loss(params: Params, model: Model, batch: Batch) -> Float[Array, ""]:
    """Cross-entropy in nats, on the mask only; 0 where the mask is empty.

    Elsewhere the best answer is the bigram table, which this model has no part to store: there the loss would only add
    noise to the memories.

    Example:
        >>> task = bigrams.trigger_task(bigrams.zipf_source(jax.random.key(0), 9), num_triggers=3, length=16)
        >>> model = draw_model(jax.random.key(1), num_tokens=9, length=16, dim=128)
        >>> batch = bigrams.sample(jax.random.key(2), task, 8)
        >>> bool(loss(ideal(model, task), model, batch) < loss(zeros(model), model, batch))
        True
    """
    return _evaluate(params, model, batch)[0]


def accuracy(params: Params, model: Model, batch: Batch) -> Float[Array, ""]:
    """How often the largest logit is the target, on the mask only.

    Example:
        >>> task = bigrams.trigger_task(bigrams.zipf_source(jax.random.key(0), 9), num_triggers=3, length=16)
        >>> model = draw_model(jax.random.key(1), num_tokens=9, length=16, dim=256)
        >>> batch = bigrams.sample(jax.random.key(2), task, 8)
        >>> bool(accuracy(ideal(model, task), model, batch) > 0.8)
        True
    """
    return _evaluate(params, model, batch)[1]


def _margins(scores, targets, allowed):
    rows = jnp.arange(len(scores))
    others = jnp.where(allowed.at[rows, targets].set(False), scores, -jnp.inf)
    return scores[rows, targets] - others.max(axis=1)


def margins(params: Params, model: Model, triggers: Int[ArrayLike, "k"]) -> Params:
    """By how much each memory scores the right answer above the best wrong one.

    With the scores of the memories, each margin the entry named minus the largest other one of its row:

    - previous, (T - 1,): p_t' W_K1 p_s, s = t - 1 among all s <= t, for t = 1 .. T - 1 from 0;
    - key, (k,): w_E(q_k)' W_K2 W_OV w_E(v), v = q_k;
    - output, (V,): w_U(u)' W_O W_V w_E(v), u = v.

    Raises:
        ValueError: a trigger that is no token of the model.

    Example:
        >>> task = bigrams.trigger_task(bigrams.zipf_source(jax.random.key(0), 5), num_triggers=2, length=8)
        >>> model = draw_model(jax.random.key(1), num_tokens=5, length=8, dim=256)
        >>> previous, key, output = margins(ideal(model, task), model, task.triggers)
        >>> bool(previous.min() > 0), bool(key.min() > 0), bool(output[2:].min() > 0)
        (True, True, True)
    """
    _check_parts(model, params)
    check_array("triggers", triggers, "k")
    _check_tokens("triggers", triggers, model)
    triggers = jnp.asarray(triggers)
    tokens, positions, answers, previous_value, value = map(jnp.asarray, model)
    times, every = jnp.arange(1, len(positions)), jnp.arange(len(tokens))
    key = product(tokens[triggers], params.key, product(tokens, previous_value.T).T)
    output = product(tokens, product(params.output, value).T, answers.T)
    previous = product(positions[1:], params.previous, positions.T)
    past = jnp.arange(len(positions))[None] <= times[:, None]
    return Params(
        previous=_margins(previous, times - 1, past),
        key=_margins(key, triggers, jnp.ones(key.shape, bool)),
        output=_margins(output, every, jnp.ones(output.shape, bool)),
    )


def whole(num_steps: int) -> Params:
    """Gates for ``train``: every memory moves at every step.

    Example:
        >>> whole(3).key.tolist()
        [1.0, 1.0, 1.0]
    """
    check_count("num_steps", num_steps)
    return Params(*(jnp.ones(num_steps) for _ in Params._fields))


def part_by_part(num_steps: int) -> Params:
    """Gates for ``train``: the output memory for a third of the steps, then the key memory, then the previous tokens.

    From the top down, since a memory's gradient says little until those above it hold something.

    Example:
        >>> part_by_part(3).key.tolist()
        [0.0, 1.0, 0.0]
    """
    check_count("num_steps", num_steps)
    part = jnp.arange(num_steps) * 3 // num_steps
    return Params(*((part == turn).astype(jnp.result_type(float)) for turn in (2, 1, 0)))


def _check_training(optimizer, gates):
    fix = "damjax.particles.transformer.whole(num_steps) makes such gates"
    check_instance("optimizer", optimizer, optax.GradientTransformation, "optax.sgd(1.0) is one")
    check_instance("gates", gates, Params, fix)
    shapes = [np.shape(gate) for gate in gates]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise ValueError(
            f"gates must hold three vectors of one length, the steps, but their shapes are {shapes}; {fix}"
        )


def train(
    key: Key[Array, ""],
    model: Model,
    task: Task,
    optimizer: optax.GradientTransformation,
    gates: Params,
    *,
    batch_size: int = 32,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> tuple[Params, Record]:
    """Train the memories from zero on a fresh minibatch a step; a pure function of the key.

    Gates multiply each memory's gradient before the optimizer, and its update after: at 0 a memory is frozen and leaves
    no trace in a momentum.

    Args:
        key: typed PRNG key; step t draws from it folded with t.
        model: fixed parts.
        task: from ``bigrams.trigger_task``, of the model's sizes.
        optimizer: any optax transformation.
        gates: one vector per memory, one entry per step, from ``whole`` or ``part_by_part``.
        batch_size: sequences a step.
        checkpoint_every: for reverse-mode derivatives of long runs, as for ``damjax.simulate``.
        unroll: steps in one turn of the compiled loop, as for ``damjax.simulate``.

    Returns:
        The memories after the last step, and the record, one entry a step.

    Raises:
        ValueError: sizes of model and task that do not meet, gates of several lengths, what is no optimizer.

    Warns:
        RuntimeWarning: the memories ended as NaN or infinity; under jit the record tells.

    Example:
        >>> task = bigrams.trigger_task(bigrams.zipf_source(jax.random.key(0), 9), num_triggers=2, length=8)
        >>> model = draw_model(jax.random.key(1), num_tokens=9, length=8, dim=16)
        >>> _, record = train(jax.random.key(2), model, task, optax.sgd(1.0), whole(5), batch_size=4)
        >>> record.accuracy.shape, record.mean.key.shape
        ((5,), (5,))
    """
    _check_sizes(model, task)
    _check_training(optimizer, gates)
    check_loop(checkpoint_every, unroll)
    mask = Params(jnp.array(True), jnp.array(True), jnp.asarray(task.outputs) > 0)

    def step(carry, now):
        params, state = carry
        time, gate = now
        batch = bigrams.sample(jax.random.fold_in(key, time), task, batch_size)
        (value, right), grads = jax.value_and_grad(_evaluate, has_aux=True)(params, model, batch)
        gated = jax.tree.map(lambda slope, factor: slope * factor.astype(slope.dtype), grads, gate)
        updates, state = promoting(optimizer.update, gated, state, params)
        before = margins(params, model, task.triggers)
        mean = jax.tree.map(lambda margin, where: margin.mean(where=where), before, mask)
        worst = jax.tree.map(lambda margin, where: margin.min(where=where, initial=jnp.inf), before, mask)
        params = jax.tree.map(
            lambda old, move, g: old + g.astype(old.dtype) * move.astype(old.dtype), params, updates, gate
        )
        return (params, state), Record(value, right, mean, worst)

    start = zeros(model)
    gates = jax.tree.map(lambda gate: jnp.asarray(gate, model.value.dtype), gates)
    num_steps = len(gates.key)
    (params, _), record = scan(
        step,
        (start, optimizer.init(start)),
        (jnp.arange(num_steps), gates),
        num_steps=num_steps,
        checkpoint_every=checkpoint_every,
        unroll=unroll,
    )
    warn_if_not_finite(params, TOO_LARGE_A_STEP)
    return params, record
