"""The Transformer of the particle study at test time: its output memory, learned online by agents on a network."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from damjax._arrays import product
from damjax._checks import check_count, check_instance, float_dtype
from damjax.particles import bigrams
from damjax.particles.transformer import Model, Params, readout
from damjax.recall.memories.memory import Memory
from damjax.recall.task import NOBODY, Questions, Task
from damjax.types import Associations

__all__ = ["bigram_recall", "output_memory"]

SEQUENCES_AT_ONCE = 64  # that are read together


class Place(NamedTuple):
    """A place of a sequence where the context tells the next token.

    Attributes:
        key: what the output memory is asked with there, and what its recall is added to, (2 d,).
        target: the next token, -1 in a sequence without such a place, ().
    """

    key: Float[Array, "*batch cue"]
    target: Int[Array, "*batch"]


def output_memory(dim: int, *, dtype: jax.typing.DTypeLike | None = None) -> Memory:
    """The output memory W_O of a ``damjax.particles.transformer.Model``, as a memory of agents: W_O c + x'.

    Its cue holds both c and the residual stream x', so that the scores of the recall are the logits of the model. With
    the loss of ``damjax.objectives.cross_entropy(model.unembeddings)`` an agent does what the training of the model
    does, for this one matrix.

    Args:
        dim: d of the model.
        dtype: of the parameters; jax's default float otherwise.

    Returns:
        A Memory of a matrix (d, d), which begins as zeros, and takes cues (2 d,).

    Raises:
        ValueError: a size that is no positive integer.

    Example:
        >>> memory = output_memory(2)
        >>> memory.apply(jnp.array([[0.0, 1.0], [0.0, 0.0]]), jnp.array([3.0, 4.0, 0.5, 0.5])).tolist()
        [4.5, 0.5]
    """
    check_count("dim", dim)
    dtype = float_dtype(dtype)

    def apply(params: Float[Array, "d d"], key: Float[Array, "cue"]) -> Float[Array, "d"]:
        return product(params, key[:dim]) + key[dim:]

    return Memory(lambda key: jnp.zeros((dim, dim), dtype), apply)


def bigram_recall(
    key: Key[Array, ""],
    params: Params,
    model: Model,
    task: bigrams.Task,
    *,
    num_agents: int,
    num_steps: int,
    num_questions: int = 128,
) -> Task:
    """Bigrams with triggers as a recall task at test time, for the output memory of a Transformer that is frozen else.

    The tokens that can be outputs are dealt out to the agents. In the sequences of an agent the triggers lead to its
    own tokens only; in those that it is asked about they lead to anyone's. Of every sequence one place counts, drawn
    among those where the context tells the next token; a sequence without one is an association that is missing.

    Args:
        key: typed PRNG key.
        params: the trained memories; those of the attention are read, W_O is not.
        model: the fixed parts.
        task: of the model's sizes, from ``damjax.particles.bigrams.trigger_task``.
        num_agents: N, at most the tokens that can be outputs.
        num_steps: T.
        num_questions: Q, of every agent, asked at the end.

    Returns:
        A Task of cues (2 d,) for ``output_memory`` and values (d,), the unembeddings of the next tokens; these are the
        candidates, token by token.

    Raises:
        ValueError: sizes of model and task that do not meet, more agents than outputs.

    Example:
        >>> from damjax.particles import transformer
        >>> source = bigrams.trigger_task(bigrams.zipf_source(jax.random.key(0), 12), num_triggers=3, length=16)
        >>> model = transformer.draw_model(jax.random.key(1), num_tokens=12, length=16, dim=64)
        >>> trained = transformer.ideal(model, source)
        >>> task = bigram_recall(jax.random.key(2), trained, model, source, num_agents=3, num_steps=20)
        >>> task.associations.keys.shape, task.questions.keys.shape
        ((20, 3, 128), (128, 3, 128))
    """
    check_instance("task", task, bigrams.Task, "damjax.particles.bigrams.trigger_task(source) makes one")
    sizes = {"num_agents": num_agents, "num_steps": num_steps, "num_questions": num_questions}
    for name, size in sizes.items():
        check_count(name, size)
    deal_key, seen_key, asked_key = jax.random.split(key, 3)
    holders = _dealt(deal_key, task, num_agents)
    own = jnp.where(holders[None] == jnp.arange(num_agents, dtype=holders.dtype)[:, None], task.outputs[None], 0)
    outputs = jnp.concatenate([own, jnp.asarray(task.outputs)[None]])

    def places(key: Key[Array, ""], whose: Int[Array, ""], count: int) -> Place:
        shares = outputs[whose]
        return _places(key, params, model, dataclasses.replace(task, outputs=shares / jnp.sum(shares)), count)

    def of_agents(key: Key[Array, ""], whose: Int[Array, "N"], count: int) -> Place:
        keys = jax.random.split(key, num_agents)
        drawn = jax.lax.map(lambda at: places(at[0], at[1], count), (keys, whose))
        return jax.tree.map(lambda field: jnp.swapaxes(field, 0, 1), drawn)

    seen = of_agents(seen_key, jnp.arange(num_agents), num_steps)
    asked = of_agents(asked_key, jnp.full(num_agents, num_agents), num_questions)
    candidates = jnp.asarray(model.unembeddings)
    return Task(
        Associations(
            keys=seen.key,
            values=candidates[jnp.maximum(seen.target, 0)],
            sample_weights=(seen.target != NOBODY).astype(candidates.dtype),
        ),
        Questions(
            keys=asked.key,
            answers=asked.target,
            agents=jnp.where(asked.target == NOBODY, NOBODY, holders[jnp.maximum(asked.target, 0)]),
        ),
        candidates,
    )


def _dealt(key: Key[Array, ""], task: bigrams.Task, num_agents: int) -> Int[Array, "V"]:
    """Whose token it is: those that can be outputs go round and round, in a random order; -1 for all others."""
    possible = jnp.asarray(task.outputs) > 0
    num_tokens, num_triggers = possible.shape[0], task.triggers.shape[0]
    if num_agents > num_tokens - num_triggers:
        raise ValueError(
            f"num_agents must be at most the {num_tokens - num_triggers} tokens that are no triggers, but it is"
            f" {num_agents}; every agent needs a token of its own"
        )
    order = jnp.argsort(jnp.where(possible, jax.random.uniform(key, (num_tokens,)), 2))
    turns = jnp.arange(num_tokens, dtype=jnp.int32) % num_agents
    return jnp.where(possible, jnp.zeros(num_tokens, jnp.int32).at[order].set(turns), NOBODY)


def _places(key: Key[Array, ""], params: Params, model: Model, task: bigrams.Task, count: int) -> Place:
    """One place each of so many sequences."""
    sample_key, place_key = jax.random.split(key)
    batch = bigrams.sample(sample_key, task, count)
    noise = jax.random.gumbel(place_key, batch.mask.shape)

    def one(sequence: tuple[Array, ...]) -> Place:
        tokens, targets, mask, noise = sequence
        place = jnp.argmax(jnp.where(mask, noise, -jnp.inf))
        cues, residual = readout(params, model, tokens)
        target = jnp.where(jnp.any(mask), targets[place], NOBODY)
        return Place(jnp.concatenate([cues[place], residual[place]]), target.astype(jnp.int32))

    return jax.lax.map(one, (*batch, noise), batch_size=SEQUENCES_AT_ONCE)
