"""Answers of few bits, unbiased and of the variance that is promised; questions of some steps, as in a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

import damjax
from damjax.channels import connect, periodic, quantised
from damjax.channels.answers import rounded
from tests import reference
from tests.cases import case, interests, trajectory

N, STEPS = 4, 25


def test_rounding_is_unbiased_and_has_the_variance_of_its_formula():
    """Mean and variance over 20000 draws, within five standard errors of x and of step^2 f (1 - f)."""
    draws = 20000
    numbers = jnp.array([[0.9, -0.31, 0.0, 0.2], [1e-3, -2e-3, 5e-4, 4e-4], [0.0, 0.0, 0.0, 0.0]])
    for bits in (2, 4, 8):
        keys = jax.random.split(jax.random.key(bits), draws)
        sent = np.asarray(jax.vmap(rounded, in_axes=(0, None, None, None))(keys, numbers, bits, 1))
        step = np.abs(numbers).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        share = np.divide(numbers, step, out=np.zeros(numbers.shape), where=step > 0) % 1
        variance = step**2 * share * (1 - share)
        np.testing.assert_array_less(np.abs(sent.mean(axis=0) - numbers), 5 * np.sqrt(variance / draws) + 1e-12)
        np.testing.assert_allclose(sent.var(axis=0), variance, rtol=0.1, atol=1e-16)
        assert (variance <= step**2 / 4).all()
        levels = sent / np.where(step > 0, step, 1)
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-9)
        assert (np.abs(sent) <= np.abs(numbers).max(axis=1, keepdims=True)).all()
        assert (sent[:, numbers == 0] == 0).all()


def problem(name="delta_net", num_steps=STEPS, dtype: npt.DTypeLike = np.float64):
    rng = np.random.default_rng(1)
    weights = interests(rng, N, keep_self=1.0)
    delays = rng.integers(1, 4, (N, N)).astype(np.int32) * (1 - np.eye(N, dtype=np.int32))
    return case(rng, name, num_agents=N, num_steps=num_steps, dtype=dtype), weights, delays


def bins_of_one_step(name, answers, keys):
    """What all agents get for their questions of one step, without delay, for many keys."""
    made, weights, _ = problem(name)
    seen = jax.tree.map(lambda field: field[3], made.stream)
    no_delay = np.zeros((N, N), np.int32)

    def gradient(key):
        channel = connect(made.objective, weights, no_delay, answers=answers and answers(key))
        params = jnp.asarray(made.params)
        return channel.exchange(channel.init(params), jnp.asarray(4), params, seen)[1]

    return np.asarray(jax.jit(jax.vmap(gradient))(keys))


@pytest.mark.parametrize("name", ["delta_net", "gated_linear_attention", "cross_entropy"])
def test_answers_are_unbiased(name):
    """Of linear memories, with and without a ridge part: a product of two rounded factors has the mean of theirs."""
    keys = jax.random.split(jax.random.key(0), 8000)
    (exact,) = bins_of_one_step(name, None, keys[:1])
    sent = bins_of_one_step(name, lambda key: quantised(3, key=key), keys)
    error = sent.std(axis=0) / np.sqrt(len(keys))
    assert (sent.std(axis=0) > 1e-4).any()
    np.testing.assert_array_less(np.abs(sent.mean(axis=0) - exact), 5 * error + 1e-12)


def test_what_an_agent_tells_itself_is_exact():
    made, _, _ = problem()
    alone = damjax.dam_togd(
        made.objective,
        np.eye(N),
        np.zeros((N, N), int),
        learning_rate=0.1,
        domain=damjax.domains.unconstrained(),
        answers=quantised(2, key=jax.random.key(0)),
    )
    exact = damjax.ogd(made.objective, np.eye(N), learning_rate=0.1, domain=damjax.domains.unconstrained())
    np.testing.assert_allclose(*(trajectory(a, made.params, made.stream)[0] for a in (alone, exact)), rtol=1e-10)


def run_of(bits, made, weights, delays, key=None):
    algorithm = damjax.dam_togd(
        made.objective,
        weights,
        delays,
        learning_rate=damjax.schedules.inverse_sqrt(0.3),
        domain=damjax.domains.frobenius_ball(2.0),
        answers=bits and quantised(bits, key=jax.random.key(5) if key is None else key),
    )
    return algorithm


def test_many_bits_are_nearly_exact_and_few_are_not():
    """In single precision; the other tests run in double."""
    runs, dtype = {}, np.float32
    for bits in (None, 16, 3):
        made, weights, delays = problem(dtype=dtype)
        algorithm = run_of(bits, made, weights, delays)
        runs[bits], _ = trajectory(algorithm, made.params, made.stream)
        assert runs[bits].dtype == dtype
    exact = runs[None]
    assert 0 < np.abs(runs[16] - exact).max() < 1e-3
    assert np.abs(runs[3] - exact).max() > 1e-2


def test_the_same_key_gives_the_same_draws_under_every_transformation():
    """Jitted, and vmapped over seeds in either way."""
    made, weights, delays = problem()
    keys = jax.random.split(jax.random.key(2), 3)

    def last(key):
        algorithm = run_of(4, made, weights, delays, key)
        return damjax.simulate(algorithm, jnp.asarray(made.params), made.stream)[0].params

    each = jnp.stack([jax.jit(last)(key) for key in keys])
    np.testing.assert_allclose(jax.vmap(last)(keys), each, rtol=1e-12)
    np.testing.assert_allclose(damjax.vmap_last(last)(keys), each, rtol=1e-12)
    assert np.abs(each[0] - each[1]).max() > 1e-4


def test_derivatives_are_those_of_the_mean():
    """A rounded number has its mean's derivative, where its own would be silently zero."""
    slope = jax.grad(lambda x: rounded(jax.random.key(0), x, 3, 1).sum())(jnp.array([0.3, -1.0]))
    assert slope.tolist() == [1.0, 1.0]


def rarely(problem, weights, delays, params, period, *, rate, project):
    """Descent on what arrives, message by message; those on the way know only the memory of the last question."""
    params, path, under_way = params.copy(), [params.copy()], []
    asked, since = params, 0
    clocks, oldest = [0] * N, []
    for time in range(1, problem.num_steps + 1):
        if (time - 1) % period == 0:
            asked, since = params.copy(), time
        for n in range(N):
            for m in range(N):
                memory = params[n] if n == m else asked[n]
                if weights[n, m] > 0:
                    answer = weights[n, m] * problem.gradient(memory, m, time)
                    under_way.append((time + delays[n, m], n, time if n == m else since, answer))
        now = [message for message in under_way if message[0] == time]
        after, ages = params.copy(), []
        for n in range(N):
            mine = [answer for _, owner, _, answer in now if owner == n]
            clocks[n] += bool(mine or clocks[n])
            if mine:
                after[n] = project(params[n] - rate(clocks[n]) * sum(mine))
            ages.append(max((time - since for _, owner, since, _ in now if owner == n), default=-1))
        params = after
        oldest.append(ages)
        path.append(params.copy())
    return np.stack(path), np.array(oldest)


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("name", ["delta_net", "cross_entropy"])
def test_periodic_questions_are_those_of_a_plain_loop(name, period):
    made, weights, delays = problem(name)
    channel = periodic(connect(made.objective, weights, delays), made.objective, weights, period)
    algorithm = damjax.algorithms.descend(
        channel,
        learning_rate=damjax.schedules.inverse_sqrt(0.3),
        domain=damjax.domains.frobenius_ball(2.0),
    )
    ours, trace = trajectory(algorithm, made.params, made.stream)
    theirs, ages = rarely(
        made.problem,
        weights,
        delays,
        made.params,
        period,
        rate=lambda count: 0.3 / np.sqrt(count),
        project=reference.ball(2.0),
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(trace.info.max_age, ages)


def test_what_is_refused(untyped):
    for bits in (1, 17, 2.5):
        with pytest.raises(ValueError, match="bits must be"):
            quantised(bits, key=jax.random.key(0))  # pyright: ignore[reportArgumentType]
    made, weights, delays = problem()
    with pytest.raises(ValueError, match="period must be a positive integer"):
        periodic(connect(made.objective, weights, delays), made.objective, weights, 0)
