"""The closed forms of two classes against the particle system, optimisation, and every check value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from damjax import particles
from damjax.particles import binary, embeddings, trajectories

MILD, LARGE = 1.0, 10.0


@pytest.fixture(scope="module")
def check_runs():
    """The two runs of the check values: scores, margins, losses at eta = 10 and at eta = 1."""
    jax.config.update("jax_enable_x64", True)
    problem = embeddings.two_tokens(0.95, 0.75)

    def run(learning_rate):
        scores = particles.simulate(jnp.zeros((2, 2)), problem, learning_rate, 1000)
        return jax.vmap(lambda s: (particles.margins(s, problem), particles.loss(s, problem)))(scores)

    return {eta: tuple(map(np.asarray, jax.jit(run)(eta))) for eta in (MILD, LARGE)}


def test_large_steps_spike(check_runs):
    margins, losses = check_runs[LARGE]
    np.testing.assert_allclose(margins[1], [5.125, -4.625], rtol=1e-12)
    np.testing.assert_allclose(losses[:6], [0.6931, 1.163, 0.498, 0.753, 0.644, 1.349], atol=6e-4)
    assert losses.argmax() == 5
    assert losses.max() == pytest.approx(1.348663, abs=1e-6)
    # Some token is wrong at t = 1, 3-6, 8, 10, 12, 14 and never after. At t = 4 it is the frequent one, with the rare
    # one right; the rare one is wrong at all the others.
    rare, frequent = (np.flatnonzero(margins[1:, token] < 0) + 1 for token in (1, 0))
    assert rare.tolist() == [1, 3, 5, 6, 8, 10, 12, 14]
    assert frequent.tolist() == [4]


def test_small_steps_forget_and_recover(check_runs):
    margins, losses = check_runs[MILD]
    assert np.all(np.diff(losses) < 0)
    assert np.flatnonzero(margins[1:, 1] < 0).tolist() == list(range(51))
    assert margins[:, 1].argmin() == 6
    assert margins[6, 1] == pytest.approx(-0.887, abs=5e-4)


def test_the_spike_threshold():
    assert binary.spike_threshold(0.95, 0.75) == pytest.approx(5.439203, abs=1e-6)
    assert binary.spike_threshold(0.95, 0.25) == pytest.approx(5.439203, abs=1e-6)
    assert jnp.isinf(binary.spike_threshold(0.3, 0.75))
    assert jnp.isinf(binary.spike_threshold(-0.5, 0.75))
    alpha, p = (x.ravel() for x in np.meshgrid(np.linspace(0.05, 1, 20), np.linspace(0.5, 0.99, 15)))
    threshold = np.asarray(binary.spike_threshold(alpha, p, 3.0))
    for a, q, rate in zip(alpha, p, threshold, strict=True):
        if a * q <= 1 - q + 1e-9:
            assert np.isinf(rate)
            continue
        loss = lambda eta, a=a, q=q: (  # noqa: E731
            q * np.logaddexp(0, -eta * 3 * (q - a * (1 - q)) / 2)
            + (1 - q) * np.logaddexp(0, -eta * 3 * (1 - q - a * q) / 2)
            - np.log(2)
        )
        low = high = 1e-6
        while loss(high) < 0:
            high *= 2
        assert rate == pytest.approx(scipy.optimize.brentq(loss, low, high, xtol=1e-13), rel=1e-8)
    # The rare token's only way to be unharmed is a small step: the derivative agrees with a difference quotient.
    slope = jax.jit(jax.grad(binary.spike_threshold, argnums=(0, 1, 2)))(0.9, 0.7, 2.0)
    for i, derivative in enumerate(slope):
        at = [0.9, 0.7, 2.0]
        up, down = at.copy(), at.copy()
        up[i], down[i] = up[i] + 1e-6, down[i] - 1e-6
        expected = (binary.spike_threshold(*up) - binary.spike_threshold(*down)) / 2e-6
        assert derivative == pytest.approx(float(expected), rel=1e-6)
    twice = jax.jit(jax.grad(jax.grad(binary.spike_threshold)))(0.95, 0.75)
    first = jax.jit(jax.grad(binary.spike_threshold))
    assert twice == pytest.approx(float((first(0.95 + 1e-5, 0.75) - first(0.95 - 1e-5, 0.75)) / 2e-5), rel=1e-5)
    # The same embedding for both, about as frequent: eta c = 8 in the limit, where everything cancels.
    np.testing.assert_allclose(binary.spike_threshold(1.0, 0.5 + np.geomspace(1e-8, 1e-3, 6)), 4, rtol=1e-5)
    assert binary.spike_threshold(jnp.float32(1), jnp.float32(0.5001)) == pytest.approx(4, rel=1e-5)
    assert jnp.isinf(binary.spike_threshold(0.5, 1.0))
    single = binary.spike_threshold(*(jnp.asarray(x, jnp.float32) for x in (0.95, 0.75, 2.0)))
    assert single.dtype == jnp.float32
    assert single == pytest.approx(5.439203, rel=1e-5)


@pytest.mark.long
def test_where_spikes_are():
    """At once above the threshold and only there; none at all below 2 / sharpness; in between some come later."""
    alpha, p, eta = (
        x.ravel() for x in np.meshgrid(np.linspace(0.3, 1, 12), np.linspace(0.5, 0.95, 10), np.geomspace(0.1, 100, 25))
    )

    def run(alpha, p, eta):
        problem = embeddings.two_tokens(alpha, p)
        dynamics = particles.descent(particles.particle_system(2, 2), eta)
        observe = lambda s: particles.loss(s, problem)  # noqa: E731
        _, losses = particles.evolve(dynamics, jnp.zeros((2, 2)), problem, 400, observe=observe)
        return losses[1] > losses[0], trajectories.spike_amplitude(losses), trajectories.spike_duration(losses)

    at_once, amplitude, duration = jax.jit(jax.vmap(run))(alpha, p, eta)
    inside = eta > binary.spike_threshold(alpha, p)
    np.testing.assert_array_equal(at_once, inside)
    assert 0.1 < inside.mean() < 0.5
    stable = eta < 2 / binary.sharpness_at_zero(alpha, p)
    assert not np.any(stable & inside)
    assert np.all(amplitude[stable] < 1e-12)
    assert np.all(duration[amplitude > 1e-12] >= 1)
    later = np.asarray(amplitude > 1e-3) & ~inside
    assert 0.01 < later.mean() < 0.2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_flow_margins_solve_their_equation(dtype):
    start, drive = (
        jnp.asarray(x.ravel(), dtype)
        for x in np.meshgrid([-300.0, -90.0, -5.0, 0.0, 3.0, 60.0, 200.0], [0.0, 1e-6, 0.5, 30.0, 1e4, 1e30])
    )
    margins = binary.flow_margins(start, drive, jnp.ones((), dtype))
    assert margins.dtype == dtype
    assert jnp.isfinite(margins).all()
    start, drive, margins = (np.asarray(x, np.longdouble) for x in (start, drive, margins))
    # m = m_0 + a t - (e^m - e^{m_0}), in a precision in which nothing overflows.
    left, right = margins + np.exp(margins), start + np.exp(start) + drive
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-12
    sensitivity = (1 + np.exp(margins)) * np.maximum(1, np.abs(margins)) + np.exp(start)
    assert np.all(np.abs(left - right) <= 4 * tolerance * np.maximum(sensitivity, np.abs(drive)))


def test_flow_margins_are_lambert_w():
    time = jnp.geomspace(1e-3, 500, 30)
    for start, rate in ((0.0, 1.0), (-2.0, 0.3), (1.5, 1.2)):
        constant = start + np.exp(start) + rate * np.asarray(time)
        expected = constant - scipy.special.lambertw(np.exp(constant)).real
        np.testing.assert_allclose(binary.flow_margins(start, rate, time), expected, rtol=1e-10, atol=1e-12)
    assert binary.flow_margins(0, 2, 3) == pytest.approx(float(binary.flow_margins(0.0, 2.0, 3.0)))
    # m' = a f(m), m'' = -a^2 f(m)^2 f(-m).
    twice = jax.jit(jax.grad(jax.grad(binary.flow_margins, argnums=2), argnums=2))(0.5, 2.0, 3.0)
    falls = jax.nn.sigmoid(-binary.flow_margins(0.5, 2.0, 3.0))
    assert twice == pytest.approx(float(-4 * falls**2 * (1 - falls)), rel=1e-9)
    by_time = jax.jit(jax.vmap(jax.grad(binary.flow_margins, argnums=2), in_axes=(None, None, 0)))(0.5, 2.0, time)
    np.testing.assert_allclose(by_time, 2 * jax.nn.sigmoid(-binary.flow_margins(0.5, 2.0, time)), rtol=1e-9)


def orthogonal_problem(frequencies):
    num_tokens = len(frequencies)
    norms = jnp.linspace(0.5, 1.5, num_tokens)
    classes = np.arange(num_tokens) % 2
    outputs = jnp.array([[1.0, 0.3], [-0.2, 1.0]])
    return particles.from_embeddings(jnp.diag(norms), outputs, frequencies, particles.one_hot(classes, 2)), norms


def test_orthogonal_tokens_follow_the_closed_form():
    problem, norms = orthogonal_problem(embeddings.zipf(6))
    distance = binary.output_distance(problem)
    assert distance == pytest.approx(1.2**2 + 0.7**2)
    dynamics = particles.flow(particles.particle_system(6, 2), 0.7)
    state, trace = jax.jit(lambda: particles.evolve(dynamics, jnp.zeros((6, 2)), problem, 30))()
    rates = distance * problem.frequencies * norms**2
    expected = jax.vmap(lambda t: binary.flow_margins(0.0, rates, t))(0.7 * jnp.arange(31.0))
    np.testing.assert_allclose(jax.vmap(lambda s: particles.margins(s, problem))(trace), expected, rtol=1e-7, atol=1e-8)
    assert state.step == 30


@pytest.mark.parametrize("learning_rate", [0.1, 3.0, 50.0, 1000.0])
def test_discrete_margins_are_ahead_of_the_flow_and_the_loss_is_bounded(learning_rate):
    problem, norms = orthogonal_problem(embeddings.zipf(6))
    time = jnp.arange(1, 2001)

    def run():
        scores = particles.simulate(jnp.zeros((6, 2)), problem, learning_rate, 2000)[1:]
        return jax.vmap(lambda s: (particles.margins(s, problem), particles.loss(s, problem)))(scores)

    margins, losses = jax.jit(run)()
    rates = learning_rate * binary.output_distance(problem) * problem.frequencies * norms**2
    flow = binary.flow_margins(0.0, rates, time[:, None])
    assert jnp.all(margins >= flow * (1 - 1e-12))
    bound = binary.flow_loss_bound(problem, learning_rate, time)
    flow_losses = jnp.sum(problem.frequencies[None] * jax.nn.softplus(-flow), axis=1)
    assert jnp.all(losses <= bound)
    assert jnp.all(flow_losses <= bound)
    # Late, the bound is 1.0795 times the loss.
    if learning_rate == 50:  # larger steps overshoot, and stay far below it
        assert losses[-1] == pytest.approx(float(bound[-1] / 1.0795), rel=0.03)


def test_the_constant_of_the_bound_is_the_least():
    drive = jnp.geomspace(1e-3, 1e6, 20001)
    constants = drive * jax.nn.softplus(-binary.flow_margins(0.0, drive, 1.0))
    assert 1.0794 < constants.max() <= binary.LOSS_CONSTANT
    assert constants[-1] == pytest.approx(1.0, abs=1e-4)


def test_losses_and_margins_of_correlated_tokens_reach_their_limits():
    """t L -> 1' K^{-1} 1 / (eta c), m_x - log(eta c t p_x / (K^{-1} 1)_x) -> 0, for several correlations at once."""
    key = jax.random.key(0)
    grams = jnp.stack(
        [
            embeddings.toeplitz(0.3 ** jnp.arange(4.0)),
            embeddings.block(4, 2, 0.6),
            0.6 * embeddings.wishart(key, 4, 12) + 0.4 * jnp.eye(4),
        ]
    )
    targets = particles.one_hot([0, 1, 0, 1], 2)
    eta, num_steps = 4.0, 20000

    def run(gram):
        problem = particles.Problem(gram, jnp.eye(2), embeddings.zipf(4), targets)
        dynamics = particles.descent(particles.particle_system(4, 2), eta)
        state, _ = particles.evolve(dynamics, jnp.zeros((4, 2)), problem, num_steps, observe=lambda s: None)
        return (
            num_steps * particles.loss(state.params, problem) / binary.loss_limit(problem, eta),
            particles.margins(state.params, problem) - binary.margin_asymptote(problem, eta, num_steps),
            binary.support(problem),
        )

    ratio, difference, support = jax.jit(jax.vmap(run))(grams)
    assert jnp.all(support > 0)
    np.testing.assert_allclose(ratio, 1, atol=0.01)
    np.testing.assert_allclose(difference, 0, atol=0.02)


@pytest.mark.parametrize(("alpha", "same_class"), [(0.5, False), (0.2, True), (-0.2, False), (0.0, False)])
def test_the_limits_of_two_tokens(alpha, same_class):
    problem = embeddings.two_tokens(alpha, 0.8, same_class=same_class)
    s = 1 if same_class else -1
    assert binary.loss_limit(problem, 3.0) == pytest.approx(2 / (1 + s * alpha) / 6)
    scores = jax.jit(lambda: particles.simulate(jnp.zeros((2, 2)), problem, 3.0, 8000)[-1])()
    first, second = particles.margins(scores, problem)
    assert first - second == pytest.approx(np.log(4), abs=0.01)
    assert 6 * 8000 * particles.loss(scores, problem) == pytest.approx(2 / (1 + s * alpha), rel=0.01)


def test_interference():
    """The rare margin falls at a step of the flow exactly where the condition says, from any margins."""
    rng = np.random.default_rng(0)

    def moves(scores, problem):
        margins = particles.margins(scores, problem)
        return margins, particles.margins(particles.step(scores, problem, 1e-3), problem)

    moves = jax.jit(moves)
    for _ in range(200):
        alpha, p = rng.uniform(-1, 1), rng.uniform(0.5, 0.99)
        same = bool(rng.integers(2))
        scores = jnp.asarray(rng.normal(size=(2, 2)) * 2)
        gram = np.array([[1, alpha], [alpha, 1]])
        problem = particles.Problem(gram, np.eye(2), np.array([p, 1 - p]), np.eye(2)[[0, 0 if same else 1]])
        margins, moved = moves(scores, problem)
        assert bool(moved[1] < margins[1]) == bool(binary.interferes(alpha, same, [p, 1 - p], margins))
    assert binary.interferes(0.34, False, [0.75, 0.25], [0.0, 0.0])
    assert not binary.interferes(0.33, False, [0.75, 0.25], [0.0, 0.0])


def test_sharpness_of_two_classes():
    problem = embeddings.two_tokens(0.95, 0.75)
    expected = 0.25 * (1 + np.sqrt(1 - 4 * 0.75 * 0.25 * (1 - 0.95**2)))
    assert binary.sharpness_at_zero(0.95, 0.75) == pytest.approx(expected)
    assert binary.sharpness(jnp.zeros(2), problem) == pytest.approx(expected)
    correlated = particles.Problem(
        embeddings.wishart(jax.random.key(0), 5, 9),
        jnp.array([[1.0, 0.2], [0.2, 0.5]]),
        embeddings.zipf(5),
        particles.one_hot([0, 1, 1, 0, 1], 2),
    )
    scores = jax.random.normal(jax.random.key(1), (5, 2))
    largest = particles.sharpness(
        particles.particle_system(5, 2), scores, correlated, key=jax.random.key(2), num_iterations=2000, tolerance=1e-12
    )
    assert largest == pytest.approx(
        float(binary.sharpness(particles.margins(scores, correlated), correlated)), rel=1e-7
    )


EXTREME = np.array([1e-12, 1e-8, 1e-7, 1e-3, 0.2, 0.4999])


@pytest.mark.parametrize("alpha", [-1.0, -0.95, 0.0, 0.5, 0.95, 0.999, 1.0])
def test_closed_forms_of_two_tokens_in_single_precision(alpha):
    """Nothing that the input holds exactly is lost, as 1e-8 is in 1 - (1 - p)."""
    frequencies = EXTREME.astype(np.float32)
    for formula in (binary.spike_threshold, binary.sharpness_at_zero):
        single = formula(jnp.float32(alpha), frequencies)
        exact = formula(float(np.float32(alpha)), frequencies.astype(float))
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, exact, rtol=1e-5)
    # By the equation, far from where it cancels: p_2 = p, and the frequent token costs nothing at this step size.
    if alpha == 0.95:
        np.testing.assert_allclose(binary.spike_threshold(0.95, 1e-7), np.log(2) / (1e-7 * 0.95), rtol=1e-6)


def two_classes(output_gram):
    return particles.Problem(np.eye(2), output_gram, np.array([0.5, 0.5]), np.eye(2)).astype(jnp.float32)


@pytest.mark.parametrize(
    ("gram", "distance"),
    [
        ([[1, 1 - 2.0**-24], [1 - 2.0**-24, 1]], 2.0**-23),
        ([[1 + 2.0**-23, 1], [1, 1]], 2.0**-23),
        ([[1, 1 - 2.0**-20], [1 - 2.0**-20, 1 + 2.0**-23]], 2.0**-19 + 2.0**-23),
    ],
)
def test_the_distance_of_outputs_that_nearly_coincide(gram, distance):
    assert binary.output_distance(two_classes(np.array(gram, np.float32))) == distance


def test_limits_beyond_the_range_of_products():
    """Frequencies, step sizes and times whose product is not: margins are its logarithm."""
    eta, time = np.array([1e-30, 1e-30, 1, 1e30], np.float32), np.array([1e-30, 1e30, 1e30, 1e30], np.float32)
    problem = two_classes(np.eye(2))
    asymptotes = jax.vmap(lambda eta, time: binary.margin_asymptote(problem, eta, time)[0])(eta, time)
    # eta c t p, c p = 1.
    np.testing.assert_allclose(asymptotes, np.log(eta.astype(float)) + np.log(time.astype(float)), rtol=1e-6, atol=1e-5)


def test_interference_of_sure_memories():
    """f(100) is 0 in float32: of two sure tokens the one that is less sure pulls more."""
    margins = np.array([[100, 101], [101, 100], [-5, 150], [200, 300], [95, 95]], np.float32)
    falls = binary.interferes(jnp.float32(0.9), False, np.full((5, 2), 0.5, np.float32), margins)
    assert falls.tolist() == [True, False, True, True, False]
    frequencies = np.array([[1e-30, 1]] * 2, np.float32)
    # 1e-30 f(0) beside f(60) and f(80): e^-69 = 1e-30.
    rare = binary.interferes(jnp.float32(0.9), False, frequencies, np.array([[0, 60], [0, 80]], np.float32))
    assert rare.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_limits_of_tokens_that_coincide(dtype):
    """1 / (1 + s alpha) at s alpha = 1 is 1/2; at s alpha = -1 the loss falls more slowly than 1 / t."""
    same = particles.two_tokens(-1.0, 0.75).astype(dtype)  # of different classes: s = -1
    np.testing.assert_allclose(binary.support(same), 0.5, rtol=1e-5)
    np.testing.assert_allclose(binary.loss_limit(same, 1.0), 0.5, rtol=1e-5)
    expected = np.log(2.0 * 10 * np.array([0.75, 0.25]) / 0.5)
    np.testing.assert_allclose(binary.margin_asymptote(same, 1.0, 10.0), expected, rtol=1e-5)
    near = binary.support(particles.two_tokens(-0.999, 0.75).astype(dtype))
    np.testing.assert_allclose(near, 1 / 1.999, rtol=1e-4)
    assert jnp.isinf(binary.loss_limit(particles.two_tokens(1.0, 0.75).astype(dtype), 1.0))


def test_a_nan_is_no_step_without_spikes():
    numbers = np.array([[np.nan, 0.75, 2.0], [0.2, np.nan, 2.0], [0.2, 0.75, np.nan]])
    assert jnp.isnan(jax.jit(jax.vmap(binary.spike_threshold))(*numbers.T)).all()


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: particles.binary.spike_threshold(2.0, 0.75), r"alpha must lie in \[-1, 1\]"),
        (lambda: particles.binary.spike_threshold(0.5, 1.5), r"frequency must lie in \[0, 1\]"),
        (lambda: particles.binary.spike_threshold(0.5, 0.7, -1.0), "output_distance must be finite and positive"),
        (
            lambda: particles.binary.output_distance(particles.Problem(np.eye(1), np.eye(3), np.ones(1), np.eye(1, 3))),
            "problem must have two classes",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
