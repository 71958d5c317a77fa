"""Losses and comparators under weights that change, against sums written out step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import hindsight
from damjax.regret import personalized_losses, recovery_time, static_regret
from damjax.weights import SparseWeights, over_epochs
from damjax.weights.epochs import epoch_at
from tests.cases import DISTINCT, case, in_the_long_run, interests, over

BALL = damjax.domains.frobenius_ball(1.5)
FIRST_STEPS, HORIZONS, NUM_STEPS = [1, 6, 13], [4, 6, 20], 20
PRESENT = np.array([[True, True, True, True], [True, False, True, True], [True, True, False, False]])


def weights_by_step(weights):
    """(T, N, N), from the definition."""
    tables = []
    for step in range(1, NUM_STEPS + 1):
        here = PRESENT[sum(step >= first for first in FIRST_STEPS) - 1]
        table = weights * np.outer(here, here)
        sums = table.sum(axis=1, keepdims=True)
        tables.append(np.divide(table, sums, out=np.zeros_like(table), where=sums > 0))
    return np.stack(tables)


@pytest.mark.parametrize("sparse", [True, *in_the_long_run(False)])
@over(DISTINCT, common=("delta_net",))
def test_losses_and_comparators_are_sums_over_steps(name, sparse):
    rng = np.random.default_rng(0)
    weights = interests(rng, 4, density=0.7)
    # An agent that wants itself alone costs nothing while it is away, and nothing of anybody's else.
    weights[3] = [0, 0, 0, 1]
    problem = case(rng, name, num_agents=4, num_steps=NUM_STEPS)
    changing = over_epochs(damjax.weights.sparse(weights) if sparse else weights, FIRST_STEPS, PRESENT)
    by_step = weights_by_step(weights)
    params = 0.3 * rng.normal(size=(NUM_STEPS, *problem.params.shape))
    losses = personalized_losses(problem.objective, changing, params, problem.stream)
    # Every agent's own loss at every memory, from static weights that want one agent only.
    of_one = jax.vmap(
        lambda m: personalized_losses(problem.objective, jnp.eye(4)[jnp.full(4, m)], params, problem.stream)
    )
    own = jnp.moveaxis(of_one(jnp.arange(4)), 0, 2)
    np.testing.assert_allclose(losses, np.einsum("tnm,tnm->tn", by_step, own), rtol=1e-10, atol=1e-12)
    assert not np.any(losses[5:12, 1])
    assert not np.any(losses[12:, 2:])

    best = hindsight.best_in_hindsight(problem.objective, changing, BALL, problem.stream, HORIZONS)

    @jax.vmap
    @jax.vmap
    def cumulative(fixed):
        """Up to every horizon, of one memory per agent."""
        every = jnp.broadcast_to(fixed, (NUM_STEPS, *fixed.shape))
        sums = jnp.cumsum(personalized_losses(problem.objective, changing, every, problem.stream), axis=0)
        return sums[np.array(HORIZONS) - 1]

    # First the best memories themselves, then some beside them.
    away = np.concatenate([[0], np.full(20, 0.1)])[:, None, None, None, None]
    tried = np.asarray(best.params) + away * rng.normal(size=(21, *best.params.shape))
    sums = jnp.diagonal(cumulative(jax.vmap(jax.vmap(jax.vmap(BALL.project)))(tried)), axis1=1, axis2=2)
    at_best, *others = jnp.swapaxes(sums, 1, 2)
    scale = 1 + np.abs(np.asarray(best.loss))
    np.testing.assert_allclose(best.loss, at_best, rtol=1e-8, atol=1e-9)
    assert np.all(best.gap <= 1e-4 * scale)
    assert np.all(np.asarray(best.loss - best.gap) <= np.array(others) + 1e-9 * scale)
    regret = static_regret(losses, problem.objective, changing, BALL, problem.stream, HORIZONS)
    sums = np.cumsum(losses, axis=0)[np.array(HORIZONS) - 1]
    np.testing.assert_allclose(regret, sums - best.loss, rtol=1e-10, atol=1e-12)
    # Agent 3 has had no step since the 13th.
    np.testing.assert_allclose(
        hindsight.best_in_hindsight(problem.objective, changing, BALL, problem.stream, [12]).loss[0, 3],
        best.loss[2, 3],
        rtol=1e-7,
        atol=1e-9,
    )


def test_weights_that_do_not_change_are_static_ones():
    rng = np.random.default_rng(1)
    weights = interests(rng, 4)
    problem = case(rng, "delta_net", num_agents=4, num_steps=NUM_STEPS)
    changing = over_epochs(weights, FIRST_STEPS, np.ones((3, 4), bool))
    static, same = (
        hindsight.best_in_hindsight(problem.objective, table, BALL, problem.stream, HORIZONS)
        for table in (weights, changing)
    )
    np.testing.assert_allclose(same.loss, static.loss, rtol=1e-10)
    np.testing.assert_allclose(same.params, static.params, rtol=1e-8)
    algorithms = [damjax.ogd(problem.objective, table, learning_rate=0.1, domain=BALL) for table in (weights, changing)]
    finals = [damjax.simulate(algorithm, problem.params, problem.stream)[0].params for algorithm in algorithms]
    np.testing.assert_allclose(*finals, rtol=1e-12)


def test_full_information_rests_while_an_agent_is_away():
    rng = np.random.default_rng(2)
    weights = interests(rng, 4)
    problem = case(rng, "delta_net", num_agents=4, num_steps=NUM_STEPS)
    changing = over_epochs(weights, FIRST_STEPS, PRESENT)
    by_step, params = weights_by_step(weights), problem.params.copy()
    clocks = np.zeros(4, int)
    for step in range(1, NUM_STEPS + 1):
        here = PRESENT[sum(step >= first for first in FIRST_STEPS) - 1]
        clocks += here
        slopes = np.stack(
            [
                sum(by_step[step - 1, n, m] * problem.problem.gradient(params[n], m, step) for m in range(4))
                for n in range(4)
            ]
        )
        moved = params - (0.4 / np.sqrt(np.maximum(clocks, 1)))[:, None, None] * slopes
        params = np.where(here[:, None, None], jax.vmap(BALL.project)(moved), params)
    algorithm = damjax.ogd(problem.objective, changing, learning_rate=damjax.schedules.inverse_sqrt(0.4), domain=BALL)
    state, _ = damjax.simulate(algorithm, problem.params, problem.stream)
    np.testing.assert_allclose(state.params, params, rtol=1e-10)
    assert state.clock.tolist() == clocks.tolist()


def test_agents_that_change_from_epoch_to_epoch():
    """An edge list per epoch is a matrix per epoch."""
    rng = np.random.default_rng(3)
    matrices = [interests(rng, 4) for _ in FIRST_STEPS]
    edges = [damjax.weights.sparse(table) for table in matrices]
    columns = max(table.num_interests for table in edges)
    lists = []
    for matrix in matrices:
        order = np.argsort(-matrix, axis=1, kind="stable")[:, :columns]
        lists.append(SparseWeights(order, np.take_along_axis(matrix, order, axis=1)))
    problem = case(rng, "delta_net", num_agents=4, num_steps=NUM_STEPS)
    both = [over_epochs(tables, FIRST_STEPS, PRESENT) for tables in (matrices, lists)]
    dense, sparse = (
        hindsight.best_in_hindsight(problem.objective, table, BALL, problem.stream, HORIZONS) for table in both
    )
    np.testing.assert_allclose(sparse.loss, dense.loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recovery_times(dtype):
    """A window of two whose mean must be within a tenth: seen by hand."""
    twin = np.full((10, 3), 2.0, dtype)
    losses = twin.copy()
    losses[4:7, 0] = 3  # steps 5, 6 and 7
    losses[4:, 1] = 2.5
    found = jax.jit(lambda x, y: recovery_time(x, y, 5, window=2, tolerance=0.1))(losses, twin)
    assert found.dtype == dtype
    assert found.tolist() == [3.0, np.inf, 0.0]
    # Better than the twin is well; what was before the border does not count.
    losses[:, 2], losses[3, 0] = 1, 9
    assert recovery_time(losses, twin, 5, window=2, tolerance=0.1).tolist() == [3.0, np.inf, 0.0]
    # A negative loss has a size as well.
    assert float(recovery_time(np.full(9, -1.0), np.full(9, -1.04), 2, window=3)) == 0
    assert float(recovery_time(np.full(9, -1.0), np.full(9, -1.06), 2, window=3)) == np.inf
    borders = jax.vmap(lambda border: recovery_time(losses[:, 0], twin[:, 0], border, window=2, tolerance=0.1))
    assert borders(jnp.array([1, 4, 6, 8])).tolist() == [0, 4, 2, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recovery_time(np.ones(9), np.ones(8), 2), "must have one shape"),
        (lambda: recovery_time(np.ones(9), np.ones(9), 2, window=9), "border must be a step with a window of 9 steps"),
        (lambda: recovery_time(np.ones(9), np.ones(9), 0, window=2), "border must be"),
        (lambda: over_epochs(np.eye(4), [1, 3], PRESENT), r"present must be booleans of shape \(E, N\) = \(2, N\)"),
        (lambda: over_epochs(np.eye(4), [0, 3, 5], PRESENT), "first_steps must increase from 1"),
        (lambda: over_epochs(np.eye(3), FIRST_STEPS, PRESENT), r"weights must have shape \(4, 4\)"),
        (
            lambda: static_regret(
                np.ones((20, 4)),
                damjax.objectives.delta_net(),
                over_epochs(np.eye(4), FIRST_STEPS, PRESENT)._replace(weights=np.full((3, 4, 4), 0.5)),
                BALL,
                damjax.Associations(np.ones((20, 4, 2)), np.ones((20, 4, 2))),
                [20],
            ),
            r"weights.weights\[0\] must be row-stochastic",
        ),
        (
            lambda: damjax.ogd(
                damjax.objectives.delta_net(),
                over_epochs(np.eye(4), FIRST_STEPS, PRESENT),
                learning_rate=1.0,
                domain=BALL,
                absent="sleep",
            ),
            "absent must be one of keep, empty",
        ),
    ],
)
def test_wrong_calls(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_epoch_is_looked_up_without_a_loop():
    """XLA for GPUs cannot compile a scan that reads a table where a loop in it has found the place."""
    epochs = jax.jit(jax.vmap(epoch_at, in_axes=(None, 0)))
    assert epochs(jnp.array([1, 6, 13]), jnp.array([1, 5, 6, 12, 13, 99])).tolist() == [0, 0, 1, 1, 2, 2]
    assert "while" not in jax.jit(epoch_at).lower(jnp.array([1, 6, 13]), 7).as_text()
