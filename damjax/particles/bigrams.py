"""The bigram-with-triggers task: sequences of a bigram source in which a few triggers have outputs of their own.

Source: Bietti et al., Birth of a Transformer: a memory viewpoint, 2023, section 3.
"""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from damjax._checks import (
    check_array,
    check_count,
    check_distributions,
    check_instance,
    check_positive,
    concrete,
    float_dtype,
)
from damjax._pytrees import register_dataclass
from damjax.types import ArrayLike

__all__ = ["Batch", "Source", "Task", "sample", "source_from_text", "trigger_task", "zipf_source"]


class Source(NamedTuple):
    """A bigram source over V tokens.

    Attributes:
        marginal: distribution of the first token, (V,).
        transitions: pi(v | u) in row u and column v, (V, V); rows sum to one.
    """

    marginal: Float[ArrayLike, "V"]
    transitions: Float[ArrayLike, "V V"]


@register_dataclass(static=["length"])
@dataclasses.dataclass(frozen=True)
class Task:
    """A bigram source with triggers; ``trigger_task`` makes it, checked.

    Attributes:
        source: what every token but the triggers follows.
        triggers: q_k, (k,).
        outputs: the distribution from which every sequence draws the outputs o_k of its triggers, (V,).
        length: T, tokens a sequence; static, since it is a shape.
    """

    source: Source
    triggers: Int[Array, "k"]
    outputs: Float[ArrayLike, "V"]
    length: int


class Batch(NamedTuple):
    """Sequences and what is asked of them.

    Attributes:
        tokens: z_1 .. z_T, (B, T).
        targets: z_2 .. z_{T+1}, (B, T).
        mask: where the context tells the target: at a trigger that came earlier in the same sequence, (B, T).
    """

    tokens: Int[Array, "B T"]
    targets: Int[Array, "B T"]
    mask: Bool[Array, "B T"]


def source_from_text(
    text: str | Path, *, num_tokens: int | None = None, dtype: jax.typing.DTypeLike | None = None
) -> tuple[Source, str]:
    """The character bigrams of a text.

    Tokens are numbered by falling frequency of their characters. Pairs with a character that is left out are not
    counted; a character that nothing follows draws its successor from the marginal.

    Args:
        text: the text itself, or the ``pathlib.Path`` of a file in UTF-8.
        num_tokens: the most characters to keep, the most frequent ones; None for all.
        dtype: of the source; jax's default float otherwise.

    Returns:
        The source, and the alphabet: character v is token v.

    Raises:
        ValueError: a file that cannot be read, a file's name as a string, fewer than two distinct characters to keep.

    Example:
        >>> source, alphabet = source_from_text("abracadabra", num_tokens=3)
        >>> alphabet, [round(float(p), 2) for p in source.transitions[0]]
        ('abr', [0.0, 1.0, 0.0])
    """
    if num_tokens is not None:
        check_count("num_tokens", num_tokens)
    if not isinstance(text, (str, Path)):
        raise ValueError(f"text must be a text or a pathlib.Path, but it is of type {type(text).__name__}")
    dtype = float_dtype(dtype)
    if isinstance(text, Path):
        try:
            text = text.read_text(encoding="utf-8-sig")  # without a byte order mark
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"text must be a readable file in UTF-8, but reading {text} gave: {error}") from error
    elif _is_file(text):
        raise ValueError(f"text must be a text or a pathlib.Path, but it is the name of a file; pass Path({text!r})")
    text = text.removeprefix("\ufeff")
    ordered = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
    kept = ordered[:num_tokens]
    if len(kept) < 2:
        raise ValueError(
            f"text must leave at least 2 distinct characters, but it has {len(ordered)} and num_tokens={num_tokens};"
            f" give a longer text or a larger num_tokens"
        )
    index = {character: token for token, (character, _) in enumerate(kept)}
    tokens = np.array([index.get(character, -1) for character in text])
    before, after = tokens[:-1], tokens[1:]
    kept_pairs = (before >= 0) & (after >= 0)
    counts = np.zeros((len(kept), len(kept)))
    np.add.at(counts, (before[kept_pairs], after[kept_pairs]), 1.0)
    marginal = np.array([count for _, count in kept], float)
    counts = np.where(counts.sum(axis=1, keepdims=True) > 0, counts, marginal)
    source = Source(
        jnp.asarray(marginal / marginal.sum(), dtype),
        jnp.asarray(counts / counts.sum(axis=1, keepdims=True), dtype),
    )
    return source, "".join(index)


def _is_file(text: str) -> bool:
    """Whether the text is the name of a file; most texts are too long to be one."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def zipf_source(
    key: Key[Array, ""],
    num_tokens: int,
    exponent: float | ArrayLike = 1.0,
    *,
    dtype: jax.typing.DTypeLike | None = None,
) -> Source:
    """A random source with Zipf's marginal: p(v) ∝ (v + 1)^-exponent and pi(v | u) ∝ p(v) E_uv, E_uv ~ Exp(1).

    Args:
        key: typed PRNG key.
        num_tokens: V.
        exponent: of Zipf's law, non-negative; 0 makes all tokens alike.
        dtype: of the source; jax's default float otherwise.

    Raises:
        ValueError: a count that is not positive, a negative exponent.

    Example:
        >>> source = zipf_source(jax.random.key(0), 3)
        >>> [round(float(p), 2) for p in source.marginal]
        [0.55, 0.27, 0.18]
    """
    check_count("num_tokens", num_tokens)
    check_array("exponent", exponent, "")
    if (value := concrete(exponent)) is not None:
        check_positive("exponent", value, allow_zero=True)
    dtype = float_dtype(dtype)
    ranks = jnp.arange(1, num_tokens + 1, dtype=dtype)
    marginal = ranks ** -jnp.asarray(exponent, dtype)
    weights = marginal[None] * jax.random.exponential(key, (num_tokens, num_tokens), dtype)
    return Source(marginal / marginal.sum(), weights / weights.sum(axis=1, keepdims=True))


def trigger_task(
    source: Source,
    *,
    num_triggers: int = 5,
    length: int = 64,
    outputs: Float[ArrayLike, "V"] | None = None,
) -> Task:
    """Make the most frequent tokens of a source triggers.

    z_1 ~ marginal; z_{t+1} ~ pi(. | z_t), unless z_t = q_k: then z_{t+1} = o_k, drawn once a sequence.

    Args:
        source: V tokens.
        num_triggers: k < V; the triggers q_k are the k most frequent tokens, the same in every sequence.
        length: T >= 2, tokens a sequence.
        outputs: distribution of the outputs o_k, (V,); by default uniform over the tokens that are no triggers, so that
            no trigger leads to another.

    Raises:
        ValueError: shapes that do not meet, what is no distribution, too many triggers, a length below 2.

    Example:
        >>> task = trigger_task(zipf_source(jax.random.key(0), 10), num_triggers=3, length=16)
        >>> task.triggers.tolist(), task.length
        ([0, 1, 2], 16)
    """
    check_instance("source", source, Source, "zipf_source or source_from_text makes one")
    check_count("num_triggers", num_triggers)
    check_count("length", length)
    if length < 2:
        raise ValueError(f"length must be at least 2, so that a trigger can come back, but it is {length}")
    source = Source(*(jnp.asarray(part, jnp.result_type(float, *source)) for part in source))
    if source.marginal.ndim != 1:
        raise ValueError(f"source.marginal must have shape (V,), one entry a token, but it is {source.marginal.shape}")
    num_tokens = source.marginal.shape[0]
    if source.transitions.shape != (num_tokens, num_tokens):
        raise ValueError(
            f"source.transitions must have shape ({num_tokens}, {num_tokens}), a row and a column per entry of"
            f" source.marginal, but its shape is {source.transitions.shape}"
        )
    if num_triggers >= num_tokens:
        raise ValueError(
            f"num_triggers must be below the number of tokens, {num_tokens}, but it is {num_triggers};"
            f" take fewer triggers or a source of more tokens"
        )
    _, triggers = jax.lax.top_k(jnp.asarray(source.marginal), num_triggers)
    if outputs is None:
        others = jnp.ones(num_tokens, source.marginal.dtype).at[triggers].set(0)
        outputs = others / others.sum()
    if np.shape(outputs) != (num_tokens,):
        raise ValueError(
            f"outputs must have shape ({num_tokens},), one entry a token, but its shape is {np.shape(outputs)}"
        )
    distributions = {"source.marginal": source.marginal, "source.transitions": source.transitions, "outputs": outputs}
    for name, rows in distributions.items():
        if (values := concrete(rows)) is not None:
            check_distributions(name, values)
    return Task(source, triggers, jnp.asarray(outputs), length)


def _choose(uniform, cumulative):
    # Scaled by the last sum, which rounding may leave off one: no token of probability zero is drawn.
    sums = jnp.expand_dims(cumulative, tuple(range(uniform.ndim + 1 - cumulative.ndim)))
    return jnp.sum(uniform[..., None] * sums[..., -1:] >= sums, axis=-1, dtype=jnp.int32)


def sample(key: Key[Array, ""], task: Task, batch_size: int) -> Batch:
    """Draw sequences with their targets; a pure function of the key, made for ``jit`` and ``vmap``.

    Args:
        key: typed PRNG key.
        task: from ``trigger_task``.
        batch_size: B, sequences.

    Returns:
        Tokens, targets and mask, each (B, T).

    Raises:
        ValueError: a batch size that is not positive.

    Example:
        >>> task = trigger_task(zipf_source(jax.random.key(0), 10), num_triggers=3, length=16)
        >>> batch = sample(jax.random.key(1), task, 4)
        >>> batch.tokens.shape, batch.mask.dtype
        ((4, 16), dtype('bool'))
    """
    check_instance("task", task, Task, "trigger_task(source) makes one")
    check_count("batch_size", batch_size)
    first_key, output_key, walk_key = jax.random.split(key, 3)
    dtype = task.source.transitions.dtype
    marginal, rows, outputs = (jnp.cumsum(p, axis=-1) for p in (*task.source, task.outputs))
    num_tokens, num_triggers = marginal.shape[0], task.triggers.shape[0]
    # Column q_k holds o_k; V stands for "follow the source".
    drawn = _choose(jax.random.uniform(output_key, (batch_size, num_triggers), dtype), outputs)
    forced = jnp.full((batch_size, num_tokens), num_tokens, jnp.int32).at[:, task.triggers].set(drawn)

    def step(tokens, uniform):
        output = jnp.take_along_axis(forced, tokens[:, None], axis=1)[:, 0]
        following = jnp.where(output < num_tokens, output, _choose(uniform, rows[tokens]))
        return following, following

    first = _choose(jax.random.uniform(first_key, (batch_size,), dtype), marginal)
    _, later = jax.lax.scan(step, first, jax.random.uniform(walk_key, (task.length, batch_size), dtype))
    sequence = jnp.concatenate([first[:, None], later.T], axis=1)
    tokens = sequence[:, :-1]
    is_trigger = (tokens[..., None] == task.triggers.astype(tokens.dtype)[None, None]).any(axis=-1)
    earlier = jnp.tril(jnp.ones((task.length, task.length), bool), -1)
    repeated = ((tokens[:, :, None] == tokens[:, None, :]) & earlier[None]).any(axis=-1)
    return Batch(tokens, sequence[:, 1:], is_trigger & repeated)
