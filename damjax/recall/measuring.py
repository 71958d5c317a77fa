"""How well memories recall: ranks of the right answers, and the measures that follow from them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from damjax._arrays import product
from damjax._checks import check_array, check_choice, check_count, check_function, check_instance
from damjax.evaluation import num_agents_of
from damjax.recall.task import NOBODY, Questions, Task, check_task
from damjax.types import Associations, Info, Memories, Observer

__all__ = ["Answers", "ask", "judge", "observe_recalls", "recall_measures"]

ABOUT = ("all", "own", "others")
QUESTIONS_AT_ONCE = 64  # whose scores of all candidates are in memory together


class Answers(NamedTuple):
    """What the agents answered, question by question; of no meaning where nothing was asked.

    Attributes:
        ranks: how many candidates score at least as high as the right one, itself left out, (Q, N): 0 where the answer
            is right.
        errors: squared distances of the recalls from the right responses, (Q, N).
        sizes: squared norms of the right responses, (Q, N).
    """

    ranks: Int[Array, "Q N"]
    errors: Float[Array, "Q N"]
    sizes: Float[Array, "Q N"]


def ask(apply: Callable[[Any, Array], Array], params: Memories, task: Task) -> Answers:
    """Put all questions of a task to the same memories.

    Args:
        apply: of the memory, see ``damjax.recall.Memory``.
        params: X, one memory per agent, leaves (N, ..).
        task: whose questions are asked.

    Returns:
        Answers, as ``judge`` has them.

    Raises:
        ValueError: what is no function of (params, key); parts of the task that do not fit one another.

    Example:
        >>> import damjax
        >>> task = damjax.recall.continuous_mqar(jax.random.key(0), dim=64, length=16, num_pairs=4, vocabulary=64)
        >>> keys, values, _, written = task.associations
        >>> stored = jnp.einsum("tnv,tnk,tn->nvk", values, keys, written)  # linear attention
        >>> answers = ask(damjax.recall.memories.linear(64, 64).apply, stored, task)
        >>> float(recall_measures(answers, task.questions)["accuracy"])
        1.0
    """
    _check_apply(apply)
    check_task(task)
    asked = np.shape(task.questions.keys)
    if (num_agents := num_agents_of(params)) != asked[1]:
        raise ValueError(f"params must hold the memories of the {asked[1]} agents that are asked, but of {num_agents}")
    recalls = jax.vmap(jax.vmap(apply, in_axes=(0, 0)), in_axes=(None, 0))(params, jnp.asarray(task.questions.keys))
    return judge(recalls, task)


def observe_recalls(apply: Callable[[Any, Array], Array], task: Task) -> Observer:
    """An observer for ``damjax.simulate`` that puts the questions of a step to the memories before it.

    Args:
        apply: of the memory, see ``damjax.recall.Memory``.
        task: whose questions are asked, one for every step, (T, N, dk).

    Returns:
        ``observe(params, associations, info)``, which gives the recalls (N, dv); stacked over the run (T, N, dv), they
        are for ``judge``.

    Raises:
        ValueError: as ``ask``.

    Example:
        >>> import damjax
        >>> task = damjax.recall.continuous_mqar(jax.random.key(0), dim=64, length=32, num_pairs=8, vocabulary=64)
        >>> memory = damjax.recall.memories.linear(64, 64)
        >>> algorithm = damjax.ogd(memory.objective(), jnp.eye(1), learning_rate=1.0,
        ...     domain=damjax.domains.unconstrained())
        >>> _, recalls = damjax.simulate(algorithm, jnp.zeros((1, 64, 64)), task.associations,
        ...     observe=observe_recalls(memory.apply, task))
        >>> float(recall_measures(judge(recalls, task), task.questions)["accuracy"])
        1.0
    """
    _check_apply(apply)
    check_task(task)
    cues = jnp.asarray(task.questions.keys)

    def observe(params: Memories, associations: Associations, info: Info) -> Float[Array, "N dv"]:
        return jax.vmap(apply)(params, cues[info.time - 1])

    return observe


def judge(recalls: Float[Array, "Q N dv"], task: Task) -> Answers:
    """What recalls answer: of a recall z, the candidate c with the largest score <c, z>.

    Candidates that score as high as the right one count as higher, so that a memory that recalls nothing, or what is no
    number, has nothing right.

    Args:
        recalls: to every question of the task, from ``observe_recalls`` or any model.
        task: whose questions were asked.

    Returns:
        Answers.

    Raises:
        ValueError: recalls of another shape than the questions; parts of the task that do not fit one another.

    Example:
        >>> import damjax
        >>> task = damjax.recall.continuous_mqar(jax.random.key(0), dim=8, length=16, num_pairs=4, vocabulary=64)
        >>> right = task.candidates[task.questions.answers]
        >>> judge(right, task).ranks[task.questions.answers >= 0].tolist()
        [0, 0, 0, 0]
    """
    check_task(task)
    check_array("recalls", recalls, "Q N dv")
    expected = (*jnp.shape(task.questions.answers), jnp.shape(task.candidates)[1])
    if jnp.shape(recalls) != expected:
        raise ValueError(
            f"recalls must be those to the questions of the task, {expected}, but their shape is {jnp.shape(recalls)}"
        )
    recalls = jnp.asarray(recalls)
    candidates = jnp.asarray(task.candidates, recalls.dtype)
    answers = jnp.maximum(jnp.asarray(task.questions.answers), 0)

    def rank(asked: tuple[Array, Array]) -> Int[Array, "N"]:
        scores, answer = product(asked[0], candidates.T), asked[1]
        own = jnp.take_along_axis(scores, answer[:, None], axis=1)
        # So that a recall that is not a number beats nobody.
        return jnp.sum(~(scores < own), axis=1, dtype=jnp.int32) - 1

    right = candidates[answers]
    return Answers(
        # Together they are one product with the candidates, which are read once for many questions.
        jax.lax.map(rank, (recalls, answers), batch_size=QUESTIONS_AT_ONCE),
        jnp.sum((recalls - right) ** 2, axis=2),
        jnp.sum(right**2, axis=2),
    )


def _check_apply(apply: Any) -> None:
    check_function("apply", apply, "params, key", "memory.apply of damjax.recall.memories is one")


def recall_measures(
    answers: Answers, questions: Questions, *, about: str = "all", at: Sequence[int] = (1, 5, 10)
) -> dict[str, Float[Array, ""]]:
    """Accuracy, recall@k, mean reciprocal rank and normalised error of what was asked, over steps and agents.

        accuracy = mean 1{rank = 0},  recall@k = mean 1{rank < k},  MRR = mean 1 / (1 + rank),
        NMSE = sum ||z - v||^2 / sum ||v||^2

    Args:
        answers: from ``ask`` or ``judge``, (Q, N).
        questions: that were asked.
        about: "own" for those that agents were asked about what they have seen themselves, "others" for those about
            what others have seen, or "all".
        at: k of recall@k, at least 1.

    Returns:
        "accuracy", "recall_at_k" for every k, "mrr", "nmse", (), and "num_questions". Without a question of this kind
        the measures are NaN: there is nothing to measure.

    Raises:
        ValueError: an ``about`` that is none of these, a k that is no positive integer, shapes that do not meet.

    Example:
        >>> questions = Questions(jnp.ones((2, 1, 3)), jnp.array([[4], [-1]]), jnp.array([[0], [-1]]))
        >>> answers = Answers(jnp.array([[1], [0]]), jnp.array([[0.5], [9.0]]), jnp.array([[2.0], [1.0]]))
        >>> {name: float(value) for name, value in recall_measures(answers, questions, at=[1, 2]).items()}
        {'accuracy': 0.0, 'recall_at_1': 0.0, 'recall_at_2': 1.0, 'mrr': 0.5, 'nmse': 0.25, 'num_questions': 1.0}

    Source: [DDAM] sec. VI for self and cross NMSE.
    """
    check_instance("answers", answers, Answers, "damjax.recall.ask(apply, params, task) gives them")
    check_instance("questions", questions, Questions, "a task holds them: task.questions")
    check_choice("about", about, ABOUT)
    if isinstance(at, str) or not isinstance(at, Sequence):
        raise ValueError(f"at must be a list of the k of recall@k, such as (1, 5), but it is {at!r}")
    for k in at:
        check_count("at", k)
    if answers.ranks.shape != jnp.shape(questions.answers):
        raise ValueError(
            f"answers must be those to the questions, {jnp.shape(questions.answers)}, but their shape is"
            f" {answers.ranks.shape}"
        )
    dtype, asked = answers.errors.dtype, _asked(questions, about)
    number = jnp.sum(asked, dtype=dtype)

    def mean(quantity: Array) -> Float[Array, ""]:
        return jnp.sum(jnp.where(asked, quantity.astype(dtype), 0)) / number

    recalls = {f"recall_at_{k}": mean(answers.ranks < k) for k in at}
    return {
        "accuracy": mean(answers.ranks == 0),
        **recalls,
        "mrr": mean(1 / (1 + answers.ranks.astype(dtype))),
        "nmse": mean(answers.errors) / mean(answers.sizes),
        "num_questions": number,
    }


def _asked(questions: Questions, about: str) -> Bool[Array, "Q N"]:
    """Which questions are of this kind."""
    agents = jnp.asarray(questions.agents)
    asked = jnp.asarray(questions.answers) != NOBODY
    own = agents == jnp.arange(agents.shape[1], dtype=agents.dtype)[None]
    return {"all": asked, "own": asked & own, "others": asked & ~own}[about]
