"""MQAR in continuous form: tokens are random unit vectors, and nothing was trained before."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from damjax._checks import (
    check_array,
    check_between,
    check_count,
    check_instance,
    check_positive,
    concrete,
    float_dtype,
)
from damjax.recall.task import NOBODY, Questions, Task
from damjax.recall.tokens import Sequences, mqar
from damjax.types import ArrayLike, Associations

__all__ = ["continuous_mqar", "embed_sequences", "unit_vectors"]


def continuous_mqar(
    key: Key[Array, ""],
    *,
    dim: int,
    length: int,
    num_pairs: int,
    num_agents: int = 1,
    weights: Float[ArrayLike, "N N"] | None = None,
    vocabulary: int = 8192,
    power: float | ArrayLike = 0.01,
    num_rewritten: int = 0,
    correlation: float | ArrayLike = 0.0,
    noise_std: float | ArrayLike = 0.0,
    distractors: float | ArrayLike = 0.0,
    dtype: jax.typing.DTypeLike | None = None,
) -> Task:
    """Multi-query associative recall as a stream of associations, with questions on the way.

    The sequences of ``damjax.recall.mqar``, every token of which is a random unit vector: a step is two places, so that
    T = L / 2. In the first steps every agent sees its pairs, a key and a value each; from then on, in the steps of its
    questions, it is asked for the value of a key. Where it is not, the two random tokens are an association that is
    missing, or a distractor.

    Args:
        key: typed PRNG key.
        dim: d, of keys and values.
        length: as for ``mqar``.
        num_pairs: as for ``mqar``.
        num_agents: as for ``mqar``.
        weights: as for ``mqar``.
        vocabulary: as for ``mqar``.
        power: as for ``mqar``.
        num_rewritten: as for ``mqar``.
        correlation: rho in [0, 1], near the cosine of two keys; see ``unit_vectors``.
        noise_std: of the noise on the cue of a question, whose norm is about this: N(0, noise_std^2 I / d) is added.
        distractors: sample weight of the random tokens between the questions, >= 0; 0 where they are missing. A
            question is no association.
        dtype: of the vectors; jax's default float otherwise.

    Returns:
        A Task with associations and questions (T, N, ..), and the whole vocabulary as candidates.

    Raises:
        ValueError: as ``mqar``; a correlation outside of [0, 1], a noise_std or distractors that are negative.

    Example:
        >>> import damjax
        >>> task = continuous_mqar(jax.random.key(0), dim=32, length=32, num_pairs=4, vocabulary=64)
        >>> task.associations.keys.shape, task.candidates.shape, int((task.questions.answers >= 0).sum())
        ((16, 1, 32), (64, 32), 4)
    """
    check_count("dim", dim)
    dtype = float_dtype(dtype)
    _check_scale("noise_std", noise_std)
    token_key, vector_key, noise_key = jax.random.split(key, 3)
    sequences = mqar(
        token_key,
        length=length,
        num_pairs=num_pairs,
        num_agents=num_agents,
        weights=weights,
        vocabulary=vocabulary,
        power=power,
        num_rewritten=num_rewritten,
    )
    keys_key, values_key = jax.random.split(vector_key)
    half = vocabulary // 2
    keys = unit_vectors(keys_key, half, dim, correlation=correlation, dtype=dtype)
    embeddings = jnp.concatenate([keys, unit_vectors(values_key, vocabulary - half, dim, dtype=dtype)])
    task = embed_sequences(sequences, embeddings, distractors=distractors)
    scale = jnp.asarray(noise_std, dtype) / dim**0.5
    noise = scale * jax.random.normal(noise_key, task.questions.keys.shape, dtype)
    return task._replace(questions=task.questions._replace(keys=task.questions.keys + noise))


def unit_vectors(
    key: Key[Array, ""],
    count: int,
    dim: int,
    *,
    correlation: float | ArrayLike = 0.0,
    dtype: jax.typing.DTypeLike | None = None,
) -> Float[Array, "count d"]:
    """Random unit vectors: sqrt(1 - rho) g_i + sqrt(rho) g_0 with independent g ~ N(0, I), divided by its norm.

    Args:
        key: typed PRNG key.
        count: how many.
        dim: d.
        correlation: rho in [0, 1]; the cosine of any two of them tends to it as d grows.
        dtype: of the vectors; jax's default float otherwise.

    Returns:
        (count, d).

    Raises:
        ValueError: a size that is no positive integer, a correlation outside of [0, 1].

    Example:
        >>> drawn = unit_vectors(jax.random.key(0), 3, 10000, correlation=0.6)
        >>> jnp.round(drawn @ drawn.T, 1).tolist()
        [[1.0, 0.6..., 0.6...], [0.6..., 1.0, 0.6...], [0.6..., 0.6..., 1.0]]
    """
    check_count("count", count)
    check_count("dim", dim)
    check_array("correlation", correlation, "")
    if (value := concrete(correlation)) is not None:
        check_between("correlation", value, 0.0, 1.0)
    dtype = float_dtype(dtype)
    own_key, common_key = jax.random.split(key)
    share = jnp.asarray(correlation, dtype)
    common = jax.random.normal(common_key, (1, dim), dtype)
    drawn = jnp.sqrt(1 - share) * jax.random.normal(own_key, (count, dim), dtype) + jnp.sqrt(share) * common
    return drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)


def embed_sequences(
    sequences: Sequences, embeddings: Float[ArrayLike, "V d"], *, distractors: float | ArrayLike = 0.0
) -> Task:
    """Sequences of tokens as a task: two places are a step, a token is its row of the embeddings.

    Args:
        sequences: from ``damjax.recall.mqar``.
        embeddings: of the vocabulary, (V, d), such as ``unit_vectors`` or those of a trained model.
        distractors: sample weight of two random tokens; 0 where they are missing.

    Returns:
        A Task with associations and questions (T, N, ..), and the embeddings as candidates.

    Raises:
        ValueError: tokens beyond the embeddings, distractors that are negative.

    Example:
        >>> drawn = mqar(jax.random.key(0), length=8, num_pairs=2, vocabulary=16)
        >>> task = embed_sequences(drawn, jnp.eye(16))
        >>> task.associations.keys.shape, task.associations.sample_weights[:, 0].tolist()
        ((4, 1, 16), [1.0, 1.0, 0.0, 0.0])
    """
    check_instance("sequences", sequences, Sequences, "damjax.recall.mqar(key, ...) draws them")
    check_array("embeddings", embeddings, "V d")
    _check_scale("distractors", distractors)
    tokens, embeddings = concrete(sequences.tokens), jnp.asarray(embeddings)
    if tokens is not None and tokens.max(initial=0) >= len(embeddings):
        raise ValueError(
            f"embeddings must have a row for every token, up to {tokens.max()}, but there are {len(embeddings)} rows"
        )
    firsts, targets, agents, written = (field[::2] for field in sequences)
    keys, asked = embeddings[firsts], targets != NOBODY
    between = jnp.where(asked, 0, jnp.asarray(distractors, keys.dtype))
    return Task(
        associations=Associations(
            keys=keys,
            values=embeddings[sequences.tokens[1::2]],
            sample_weights=jnp.where(written, 1, between).astype(keys.dtype),
        ),
        questions=Questions(keys, targets.astype(jnp.int32), agents.astype(jnp.int32)),
        candidates=embeddings,
    )


def _check_scale(name: str, number: float | ArrayLike) -> None:
    check_array(name, number, "")
    if (value := concrete(number)) is not None:
        check_positive(name, value, allow_zero=True)
