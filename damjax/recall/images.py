"""Recall of images: scikit-learn's digits, completed or classified by agents that each see some of the classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from damjax._checks import check_choice, check_count, float_dtype, missing_extra
from damjax.recall.items import passes
from damjax.recall.task import Questions, Task
from damjax.types import Associations

__all__ = ["digits"]

NUM_CLASSES = 10
SMALLEST_CLASS = 174  # images of an eight, of which there are fewest


def digits(
    key: Key[Array, ""],
    *,
    num_steps: int,
    num_agents: int = 10,
    classes_per_agent: int = 2,
    task: str = "completion",
    num_held_out: int = 30,
    dtype: jax.typing.DTypeLike | None = None,
) -> Task:
    """Handwritten digits, 8 by 8 pixels: agents see images of some classes, and are asked about held-out ones of all.

    "completion": the upper half of an image is the key, the lower half the value, 32 pixels each. The candidates are
    the lower halves of the held-out images, so that NMSE is about the right image; its rank among so many alike says
    little.

    "classification": all 64 pixels are the key, the class as a one-hot vector of 10 the value. The candidates are the
    ten classes, ``jax.numpy.eye(10)``; the loss that belongs to it is ``damjax.objectives.cross_entropy(candidates)``.

    Pixels are between 0 and 1, less the mean image of the data set. So a memory of zeros has NMSE 1 on average, and
    linear ones need no bias.

    Classes are dealt to the agents round and round from a shuffled deck, so that as many agents see one as another,
    give or take one agent. Of every class 174 images are drawn, the size of the smallest class, so that shapes do not
    depend on the key: some of them are held out, and at every step an agent sees one of the others, each pass over
    those of its classes in a random order of its own.

    Args:
        key: typed PRNG key.
        num_steps: T.
        num_agents: N.
        classes_per_agent: how many of the ten classes an agent sees; N times this is at least 10.
        task: "completion" or "classification".
        num_held_out: H, images of every class that nobody sees and everyone is asked about, 1 to 173.
        dtype: of the task; jax's default float otherwise.

    Returns:
        A Task with associations (T, N, ..) and questions (10 H, N, ..) in the order of their classes. The agent whom a
        question is about is the asked one where it sees that class, else one that does.

    Raises:
        ValueError: a class that nobody sees, an unknown task, a number out of its range.
        ImportError: the extra ``recall`` is not installed.

    Example:
        >>> task = digits(jax.random.key(0), num_steps=100)
        >>> task.associations.keys.shape, task.associations.values.shape, task.candidates.shape
        ((100, 10, 32), (100, 10, 32), (300, 32))

    Source: the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI repository,
    CC BY 4.0, as scikit-learn ships it.
    """
    _check_sizes(num_agents, classes_per_agent, num_held_out)
    check_count("num_steps", num_steps)
    check_choice("task", task, ("completion", "classification"))
    pixels, labels = (jnp.asarray(array) for array in _data(float_dtype(dtype)))
    one_hot = jnp.eye(NUM_CLASSES, dtype=pixels.dtype)
    half = pixels.shape[1] // 2
    keys, values = (pixels[:, :half], pixels[:, half:]) if task == "completion" else (pixels, one_hot[labels])

    deck_key, split_key, order_key, agent_key = jax.random.split(key, 4)
    dealt = np.arange(num_agents * classes_per_agent).reshape(num_agents, -1) % NUM_CLASSES
    classes = jax.random.permutation(deck_key, NUM_CLASSES)[dealt]
    images = _shuffled(split_key)
    held_out, training = images[:, :num_held_out].reshape(-1), images[:, num_held_out:]

    own = training[classes].reshape(num_agents, -1)
    positions = passes(order_key, np.full(num_agents, own.shape[1]), num_steps)
    drawn = own[np.arange(num_agents)[None], positions]
    asked = (len(held_out), num_agents)
    classes_asked = np.repeat(np.arange(NUM_CLASSES), num_held_out)
    answers = np.arange(len(held_out)) if task == "completion" else classes_asked
    return Task(
        associations=Associations(keys[drawn], values[drawn]),
        questions=Questions(
            keys=jnp.broadcast_to(keys[held_out][:, None], (*asked, keys.shape[1])),
            answers=jnp.broadcast_to(jnp.asarray(answers, jnp.int32)[:, None], asked),
            agents=_whom(agent_key, classes)[classes_asked],
        ),
        candidates=values[held_out] if task == "completion" else one_hot,
    )


def _shuffled(key: Key[Array, ""]) -> Int[Array, "10 images"]:
    """As many images of every class, each class in random order."""
    labels = _data(np.dtype(np.float32))[1]
    luck = jax.random.uniform(key, labels.shape, jnp.float32)
    counts = np.bincount(labels)
    firsts = np.cumsum(counts) - counts
    return jnp.lexsort((luck, jnp.asarray(labels)))[firsts[:, None] + np.arange(SMALLEST_CLASS)[None]]


def _whom(key: Key[Array, ""], classes: Int[Array, "N C"]) -> Int[Array, "10 N"]:
    """Of each class, whom a question of each agent is about: itself where it sees the class, else one that does."""
    num_agents = len(classes)
    sees = jnp.any(classes[None] == np.arange(NUM_CLASSES)[:, None, None], axis=2)
    luck = jax.random.uniform(key, sees.shape, jnp.float32)
    other = jnp.argmax(jnp.where(sees, luck, -1), axis=1).astype(jnp.int32)
    return jnp.where(sees, jnp.arange(num_agents, dtype=jnp.int32)[None], other[:, None])


@functools.cache
def _data(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Pixels less their mean, (1797, 64), and classes, (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing_extra("digits needs scikit-learn", "recall") from error
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    return ((pixels - pixels.mean(axis=0)) / 16).astype(dtype), labels.astype(np.int32)


def _check_sizes(num_agents: int, classes_per_agent: int, num_held_out: int) -> None:
    for name, number, bound in (
        ("num_agents", num_agents, None),
        ("classes_per_agent", classes_per_agent, NUM_CLASSES),
        ("num_held_out", num_held_out, SMALLEST_CLASS - 1),
    ):
        check_count(name, number)
        if bound is not None and number > bound:
            raise ValueError(f"{name} must be at most {bound}, but it is {number}")
    if num_agents * classes_per_agent < NUM_CLASSES:
        raise ValueError(
            f"classes_per_agent must be at least {-(-NUM_CLASSES // num_agents)} with {num_agents} agents, so that"
            f" somebody sees every class, but it is {classes_per_agent}"
        )
