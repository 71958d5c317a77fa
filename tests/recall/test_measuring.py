import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax.recall import Answers, Questions, Task, ask, judge, memories, observe_recalls, recall_measures

Q, N, V, D = 12, 3, 7, 4
RNG = np.random.default_rng(0)


def random_task(dtype="float64"):
    """Questions about random candidates, some of them none; as many steps as questions."""
    answers = RNG.integers(-1, V, (Q, N)).astype(np.int32)
    agents = np.where(answers < 0, -1, RNG.integers(0, N, (Q, N))).astype(np.int32)
    draw = lambda *shape: jnp.asarray(RNG.normal(size=shape), dtype)  # noqa: E731
    stream = damjax.Associations(draw(Q, N, D), draw(Q, N, D))
    return Task(stream, Questions(draw(Q, N, D), jnp.asarray(answers), jnp.asarray(agents)), draw(V, D))


def by_hand(params, task, about, at):
    """The measures in loops over questions."""
    candidates, rows = np.asarray(task.candidates, float), []
    for q in range(Q):
        for n in range(N):
            answer, agent = int(task.questions.answers[q, n]), int(task.questions.agents[q, n])
            if answer < 0 or (about == "own" and agent != n) or (about == "others" and agent == n):
                continue
            memory = params[n] if np.ndim(params) == 3 else params[q, n]
            recall = np.asarray(memory, float) @ np.asarray(task.questions.keys[q, n], float)
            scores = candidates @ recall
            rank = sum(scores[c] >= scores[answer] for c in range(V) if c != answer)
            rows.append((rank, np.sum((recall - candidates[answer]) ** 2), np.sum(candidates[answer] ** 2)))
    ranks, errors, sizes = np.array(rows).T
    measures = {"accuracy": np.mean(ranks == 0), "mrr": np.mean(1 / (1 + ranks)), "nmse": errors.sum() / sizes.sum()}
    return measures | {f"recall_at_{k}": np.mean(ranks < k) for k in at} | {"num_questions": len(ranks)}


@pytest.mark.parametrize("about", ["all", "own", "others"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_measures_of_one_memory(about, dtype):
    task, params = random_task(dtype), jnp.asarray(RNG.normal(size=(N, D, D)), dtype)
    apply = memories.linear(D, D).apply
    measures = recall_measures(ask(apply, params, task), task.questions, about=about, at=(1, 3))
    expected = by_hand(params, task, about, (1, 3))
    assert measures.keys() == expected.keys()
    for name, value in measures.items():
        assert value.dtype == dtype
        np.testing.assert_allclose(value, expected[name], rtol=1e-10 if dtype == "float64" else 1e-5, err_msg=name)


def test_questions_on_the_way_are_put_to_the_memories_of_their_step():
    task, memory = random_task(), memories.linear(D, D)
    algorithm = damjax.ogd(
        memory.objective(), np.full((N, N), 1 / N), learning_rate=0.1, domain=damjax.domains.unconstrained()
    )
    observe = observe_recalls(memory.apply, task)
    _, (recalls, params) = damjax.simulate(
        algorithm, jnp.zeros((N, D, D)), task.associations, observe=lambda *step: (observe(*step), step[0])
    )
    measures = recall_measures(judge(recalls, task), task.questions, about="others")
    for name, value in by_hand(np.asarray(params), task, "others", (1, 5, 10)).items():
        np.testing.assert_allclose(measures[name], value, rtol=1e-10)


def test_a_memory_that_recalls_nothing_or_no_number_has_nothing_right():
    task, apply = random_task(), memories.linear(D, D).apply
    for empty in (jnp.zeros((N, D, D)), jnp.full((N, D, D), jnp.nan)):
        measures = recall_measures(ask(apply, empty, task), task.questions)
        assert float(measures["accuracy"]) == 0
        assert float(measures["recall_at_5"]) == 0


def test_without_questions_of_a_kind_there_is_nothing_to_measure():
    questions = Questions(jnp.ones((2, 1, 3)), jnp.zeros((2, 1), jnp.int32), jnp.zeros((2, 1), jnp.int32))
    answers = Answers(jnp.zeros((2, 1), jnp.int32), jnp.ones((2, 1)), jnp.ones((2, 1)))
    others = recall_measures(answers, questions, about="others")
    assert int(others["num_questions"]) == 0
    assert np.isnan(others["accuracy"])
    assert float(recall_measures(answers, questions, about="own")["accuracy"]) == 1


def test_measures_go_through_a_sweep():
    def run(key, correlation):
        task = damjax.recall.continuous_mqar(
            key, dim=16, length=32, num_pairs=8, vocabulary=64, correlation=correlation
        )
        memory = memories.linear(16, 16)
        algorithm = damjax.ogd(memory.objective(), jnp.eye(1), learning_rate=1.0, domain=damjax.domains.unconstrained())
        start = memory.init(key)[None]
        observe = observe_recalls(memory.apply, task)
        _, recalls = damjax.simulate(algorithm, start, task.associations, observe=observe)
        return recall_measures(judge(recalls, task), task.questions, at=(1,))

    results = damjax.sweep(run, keys=jax.random.split(jax.random.key(0), 4), correlation=[0.0, 0.9], progress=False)
    mean = np.asarray(results["accuracy"]).mean(axis=1)
    assert mean[0] > 0.8
    assert mean[0] >= mean[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: task._replace(candidates=jnp.ones((V, D + 1))), "candidates must be responses like the values"),
        (lambda task: task._replace(candidates=jnp.ones((2, D))), "answers must lie in 0 .. 1"),
        (
            lambda task: task._replace(questions=task.questions._replace(agents=jnp.full((Q, N), N, jnp.int32))),
            "agents must lie in",
        ),
        (
            lambda task: task._replace(questions=task.questions._replace(answers=jnp.ones((Q, N)))),
            "answers must be integers",
        ),
        (
            lambda task: task._replace(questions=task.questions._replace(answers=jnp.ones((Q, 1), jnp.int32))),
            "answers must have shape",
        ),
        (
            lambda task: task._replace(associations=damjax.Associations(jnp.ones((Q, N, 9)), jnp.ones((Q, N, D)))),
            "asked of the agents that see the associations",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ask(memories.linear(D, D).apply, jnp.zeros((N, D, D)), change(random_task()))
