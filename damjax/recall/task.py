"""What agents learn, and what they are asked: the records that every recall task is made of."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from damjax._checks import check_array, check_instance, concrete
from damjax.types import ArrayLike, Associations

__all__ = ["NOBODY", "Questions", "Task", "check_task"]

NOBODY = -1  # no question, and nobody whose association it is about


class Questions(NamedTuple):
    """What every agent is asked, at most one question at a time.

    The leading axis is the steps of a run, where a question is put to the memory of its step, or a list of questions
    that are put to one memory.

    Attributes:
        keys: cues, (Q, N, dk).
        answers: the row of ``Task.candidates`` that is right, (Q, N); -1 where nothing is asked.
        agents: who has seen the association that is asked for, (Q, N); -1 where nothing is asked.
    """

    keys: Float[ArrayLike, "Q N dk"]
    answers: Int[ArrayLike, "Q N"]
    agents: Int[ArrayLike, "Q N"]


class Task(NamedTuple):
    """A recall task.

    Attributes:
        associations: what the agents see, keys (T, N, dk) and values (T, N, dv); those of sample weight 0 are missing.
        questions: what they are asked, one at every step, or afterwards.
        candidates: the responses among which a recall is sought, (V, dv).
    """

    associations: Associations
    questions: Questions
    candidates: Float[ArrayLike, "V dv"]


def check_task(task: Task) -> None:
    """Raise unless the parts of a task fit one another."""
    check_instance("task", task, Task, "damjax.recall.continuous_mqar(key, ...) draws one, from_arrays makes one")
    check_questions(task.questions, task.candidates)
    keys, asked = np.shape(task.associations.keys), np.shape(task.questions.keys)
    values, candidates = np.shape(task.associations.values), np.shape(task.candidates)
    if keys[1:] != asked[1:]:
        raise ValueError(
            f"task.questions.keys must be asked of the agents that see the associations, (Q, {keys[1]}, {keys[2]}), but"
            f" their shape is {asked}"
        )
    if values[2:] != candidates[1:]:
        raise ValueError(
            f"task.candidates must be responses like the values, (V, {values[2]}), but their shape is {candidates}"
        )


def check_questions(questions: Questions, candidates: Float[ArrayLike, "V dv"]) -> None:
    """Raise unless answers are among the candidates, and every question is about an agent."""
    check_instance("questions", questions, Questions, "a task holds them: task.questions")
    check_array("questions.keys", questions.keys, "Q N dk")
    check_array("candidates", candidates, "V dv")
    asked, num_candidates = np.shape(questions.keys)[:2], np.shape(candidates)[0]
    for name, rows, bound in (("answers", questions.answers, num_candidates), ("agents", questions.agents, asked[1])):
        if np.shape(rows) != asked:
            raise ValueError(f"questions.{name} must have shape {asked}, like the keys, but it is {np.shape(rows)}")
        values = concrete(rows)
        if values is not None and not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"questions.{name} must be integers, but their dtype is {values.dtype}")
        if values is not None and values.size and not NOBODY <= values.min() <= values.max() < bound:
            raise ValueError(
                f"questions.{name} must lie in 0 .. {bound - 1}, or be -1 where nothing is asked, but they range from"
                f" {values.min()} to {values.max()}"
            )
