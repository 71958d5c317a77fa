import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax.particles import bigrams, transformer
from damjax.recall import ask, bigram_recall, output_memory, recall_measures

N, V, LENGTH, DIM = 3, 12, 24, 128


def parts():
    source = bigrams.trigger_task(bigrams.zipf_source(jax.random.key(0), V), num_triggers=3, length=LENGTH)
    model = transformer.draw_model(jax.random.key(1), num_tokens=V, length=LENGTH, dim=DIM)
    return source, model, transformer.ideal(model, source)


def test_the_scores_of_the_twin_are_the_logits_of_the_model():
    source, model, params = parts()
    params = params._replace(output=jnp.asarray(np.random.default_rng(0).normal(size=(DIM, DIM))))
    tokens = bigrams.sample(jax.random.key(2), source, 4).tokens
    cues, residual = transformer.readout(params, model, tokens)
    memory = output_memory(DIM)
    keys = jnp.concatenate([cues, residual], axis=-1)
    scores = jax.vmap(jax.vmap(lambda key: memory.apply(params.output, key)))(keys) @ model.unembeddings.T
    np.testing.assert_allclose(scores, transformer.forward(params, model, tokens), rtol=1e-10, atol=1e-10)


def test_one_step_of_an_agent_is_the_gradient_of_training():
    """With the mask on one place, the gradient in W_O of the model's loss is that of the agent's objective."""
    source, model, params = parts()
    batch = bigrams.sample(jax.random.key(3), source, 1)
    place = int(jnp.argmax(batch.mask[0]))
    only = batch._replace(mask=jnp.zeros_like(batch.mask).at[0, place].set(True))
    expected = jax.grad(lambda output: transformer.loss(params._replace(output=output), model, only))(params.output)
    cues, residual = transformer.readout(params, model, batch.tokens)
    objective = output_memory(DIM).objective(damjax.objectives.cross_entropy(model.unembeddings))
    key = jnp.concatenate([cues[0, place], residual[0, place]])
    target = model.unembeddings[batch.targets[0, place]]
    np.testing.assert_allclose(objective.gradient(params.output, key, target), expected, rtol=1e-8, atol=1e-10)


def test_agents_see_their_own_tokens_and_are_asked_for_all():
    source, model, params = parts()
    task = bigram_recall(jax.random.key(4), params, model, source, num_agents=N, num_steps=60, num_questions=200)
    values, weights = np.asarray(task.associations.values), np.asarray(task.associations.sample_weights)
    tokens = np.argmin(np.sum((values[:, :, None] - np.asarray(model.unembeddings)) ** 2, axis=-1), axis=-1)
    own = [set(tokens[weights[:, n] > 0, n].tolist()) for n in range(N)]
    assert sum(len(each) for each in own) == len(set.union(*own)) == V - 3
    assert not set.union(*own) & set(np.asarray(source.triggers).tolist())
    answers, agents = np.asarray(task.questions.answers), np.asarray(task.questions.agents)
    for answer, agent in zip(answers[answers >= 0], agents[answers >= 0], strict=True):
        assert int(answer) in own[int(agent)]
    np.testing.assert_array_equal(answers < 0, agents < 0)
    shares = np.bincount(agents[agents >= 0], minlength=N) / np.sum(agents >= 0)
    np.testing.assert_allclose(shares, 1 / N, atol=0.1)


@pytest.mark.long
def test_agents_teach_one_another_what_the_model_knew():
    """Alone an agent says its own tokens; together they come near the memory that was made for the task."""
    source, model, params = parts()
    task = bigram_recall(jax.random.key(5), params, model, source, num_agents=N, num_steps=150, num_questions=100)
    memory = output_memory(DIM)
    objective = memory.objective(damjax.objectives.cross_entropy(model.unembeddings))
    start, delays = jnp.zeros((N, DIM, DIM)), np.where(np.eye(N) > 0, 0, 2)

    def accuracy(weights):
        algorithm = damjax.dam_togd(
            objective, weights, delays, learning_rate=2.0, domain=damjax.domains.unconstrained()
        )
        state, _ = damjax.simulate(algorithm, start, task.associations, observe=lambda *step: None)
        answers = ask(memory.apply, state.params, task)
        return [float(recall_measures(answers, task.questions, about=about)["accuracy"]) for about in ("own", "others")]

    central = ask(memory.apply, jnp.broadcast_to(params.output, start.shape), task)
    central = float(recall_measures(central, task.questions)["accuracy"])
    alone, together = accuracy(np.eye(N)), accuracy(np.full((N, N), 1 / N))
    assert alone[0] > 0.9
    assert alone[1] < 0.2
    assert min(together) > central - 0.1


def test_more_agents_than_tokens_are_refused():
    source, model, params = parts()
    with pytest.raises(ValueError, match="num_agents must be at most the 9 tokens"):
        bigram_recall(jax.random.key(0), params, model, source, num_agents=10, num_steps=5)
