"""The data, the weights and the schedules: distributions, pairing, shapes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import schedules, streams, weights


def key(seed=0):
    return jax.random.key(seed)


def test_the_stream_obeys_its_model():
    stream, targets = streams.linear_model(key(), num_agents=4, num_steps=4000, key_dim=3, value_dim=2, noise_std=0.3)
    keys, noise = np.asarray(stream.keys), np.asarray(stream.values) - np.einsum("nij,tnj->tni", targets, stream.keys)
    assert abs(keys).max() <= 1
    assert keys.min() < -0.99
    np.testing.assert_allclose(keys.mean(), 0, atol=4 * (3**-0.5) / keys.size**0.5)
    np.testing.assert_allclose(keys.var(), 1 / 3, rtol=0.02)
    np.testing.assert_allclose(noise.std(), 0.3, rtol=0.02)
    assert abs(np.corrcoef(keys[:-1, 0, 0], keys[1:, 0, 0])[0, 1]) < 0.06


def test_targets_mix_a_common_part_and_personal_ones():
    model = streams.draw_linear_model(key(), num_agents=3, num_steps=1)
    np.testing.assert_allclose(model.targets(1.0), np.broadcast_to(model.common, (3, 5, 5)))
    np.testing.assert_allclose(model.targets(0.0), model.personal)
    np.testing.assert_allclose(model.targets(0.25), 0.25 * model.common[None] + 0.75 * model.personal)


@pytest.mark.parametrize(
    ("intervals", "mean", "variance"),
    [
        ({}, (-5.0, 5.0), (0.0, 50.0)),
        ({"personal_mean": (2.0, 4.0), "personal_variance": (1.0, 3.0)}, (2.0, 4.0), (1.0, 3.0)),
    ],
)
def test_the_draws_have_their_distributions(intervals, mean, variance):
    """A thousand agents with 400 entries each: moments of a uniform law, (low + high) / 2 and (high - low)^2 / 12, and
    an agent's own scatter, which its 400 entries leave in its mean and variance."""
    model = jax.vmap(
        lambda k: streams.draw_linear_model(k, num_agents=50, num_steps=1, key_dim=20, value_dim=20, **intervals)
    )(jax.random.split(key(), 20))
    common, personal = np.asarray(model.common), np.asarray(model.personal).reshape(-1, 400)
    assert (common > 0).all()
    np.testing.assert_allclose(common.mean(), 2, rtol=0.03)  # chi-squared(2)
    np.testing.assert_allclose(common.var(), 4, rtol=0.08)
    means, variances = personal.mean(axis=1), personal.var(axis=1, ddof=1)
    widths = np.diff(mean)[0], np.diff(variance)[0]
    scatter = 3 * np.sqrt(np.max(variance) / 400), 0.2 * np.max(variance)
    for values, ends, width, slack in zip((means, variances), (mean, variance), widths, scatter, strict=True):
        np.testing.assert_allclose(values.mean(), np.mean(ends), atol=0.04 * width)
        np.testing.assert_allclose([values.min(), values.max()], ends, atol=0.01 * width + slack)
    np.testing.assert_allclose(means.var(), widths[0] ** 2 / 12 + np.mean(variance) / 400, rtol=0.1)
    square = np.mean(variances**2) / (1 + 2 / 399)  # of a normal sample's variance: sigma^4 (1 + 2 / (n - 1))
    np.testing.assert_allclose(square - variances.mean() ** 2, widths[1] ** 2 / 12, rtol=0.15)
    assert abs(np.corrcoef(means, variances)[0, 1]) < 0.12


def test_intervals_shape_the_same_draws_and_may_be_traced():
    """One point wide, an interval fixes the value; the same key gives the same standard normals for all of them."""
    draw = functools.partial(streams.draw_linear_model, key(), num_agents=3, num_steps=4)
    normal = draw(personal_mean=(0.0, 0.0), personal_variance=(1.0, 1.0)).personal
    np.testing.assert_allclose(
        draw(personal_mean=(7.0, 7.0), personal_variance=(4.0, 4.0)).personal, 7 + 2 * normal, rtol=1e-12
    )
    wide = jax.jit(lambda low, top: draw(personal_mean=(low, 5.0), personal_variance=(0.0, top)))(-5.0, 50.0)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), wide, draw())
    moved, fixed = draw(personal_mean=(5.0, 15.0)), draw()
    np.testing.assert_allclose(moved.personal, fixed.personal + 10, rtol=1e-12)
    np.testing.assert_array_equal(moved.keys, fixed.keys)
    np.testing.assert_array_equal(moved.noise, fixed.noise)


def test_correlation_and_noise_are_paired():
    low, _ = streams.linear_model(key(), num_steps=5, correlation=0.0)
    high, _ = streams.linear_model(key(), num_steps=5, correlation=1.0)
    np.testing.assert_array_equal(low.keys, high.keys)
    silent, targets = streams.linear_model(key(), num_steps=5, noise_std=0.0)
    np.testing.assert_allclose(silent.values, np.einsum("nij,tnj->tni", targets, silent.keys), rtol=1e-10)
    loud, _ = streams.linear_model(key(), num_steps=5, noise_std=2.0)
    soft, _ = streams.linear_model(key(), num_steps=5, noise_std=1.0)
    np.testing.assert_allclose(loud.values - silent.values, 2 * (soft.values - silent.values), atol=1e-12)


def test_any_step_made_alone_equals_the_stored_stream():
    stream, targets = streams.linear_model(key(), num_steps=9)
    model = streams.draw_linear_model(key(), num_steps=9)
    for time in (1, 4, 9):
        alone = model.associations(targets, time)
        np.testing.assert_allclose(alone.keys, stream.keys[time - 1])
        np.testing.assert_allclose(alone.values, stream.values[time - 1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes(dtype):
    stream, targets = streams.linear_model(key(), num_steps=2, dtype=dtype)
    assert {stream.keys.dtype, stream.values.dtype, targets.dtype} == {jnp.dtype(dtype)}
    assert weights.dirichlet(key(), 3, dtype=dtype).dtype == dtype


def test_steps_past_the_end_are_nan_and_not_the_last_one_again():
    model = streams.draw_linear_model(key(), num_steps=5)
    assert np.isfinite(model.associations(model.targets(0.5), 5).values).all()
    assert np.isnan(model.associations(model.targets(0.5), 6).values).all()


def test_arrays_of_the_user_are_kept():
    keys, values = np.ones((4, 2, 3)), np.zeros((4, 2, 5))
    stream = streams.from_arrays(keys, values, np.full((4, 2), 0.5))
    assert stream.keys.shape == (4, 2, 3)
    assert stream.gates is not None
    assert stream.gates.shape == (4, 2)


nan = np.full((4, 2, 3), np.nan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (np.ones((4, 2)), np.ones((4, 2, 3))),
            "keys must have shape (steps, agents, entries), but",
        ),
        ((np.ones((4, 2, 3)), np.ones((5, 2, 3))), "values must start with the steps and agents of keys, (4, 2)"),
        ((np.ones((4, 2, 3)), nan), "values must be finite, but values[0, 0, 0] is nan"),
        (
            (np.ones((4, 2, 3)), np.ones((4, 2, 3)), np.full((4, 2), 1.5)),
            "gates must be in (0, 1], but gates[0, 0] is 1.5",
        ),
        ((np.ones((4, 2, 3)), np.ones((4, 2, 3)), np.full((4, 3), 0.5)), "gates must start with"),
    ],
)
def test_bad_arrays(untyped, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        streams.from_arrays(*arguments)


ones = np.ones((4, 2, 3))


def changed(entry, shape=(4, 2, 3)):
    array = np.linspace(0.1, 0.9, np.prod(shape)).reshape(shape)
    array[(1, 0, 2)[: len(shape)]] = entry
    return array


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((changed(1e39), ones), "keys must be representable in float32, but keys[1, 0, 2] is 1e+39, which becomes inf"),
        ((changed(1e-46), ones), "keys must be representable in float32, but keys[1, 0, 2] is 1e-46, which becomes 0"),
        (
            (ones, np.full((4, 2, 1), 2**32 + 1)),
            "values must be representable in float32, but values[0, 0, 0] is 42949",
        ),
        ((ones, ones, changed(1e-46, (4, 2))), "gates must be representable in float32, but gates[1, 0] is 1e-46"),
        ((1.7e9 + changed(0.0), ones), "keys must be told apart in float32, but keys[0, 0, 0] is 1700000000.1"),
        ((ones, ones.astype(str)), "values must hold real numbers, but their dtype is <U"),
        ((ones.astype(object), ones), "keys must hold real numbers, but their dtype is object; use .astype(float)"),
        ((ones.astype("datetime64[s]"), ones), "keys must hold real numbers, but their dtype is datetime64[s]"),
        ((ones.astype(complex), ones), "keys must hold real numbers, but their dtype is complex128"),
    ],
)
def test_arrays_are_checked_as_they_will_be_used(untyped, arguments, message):
    """In single precision, as jax has it by default; with float64 most of them pass."""
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(ValueError, match=re.escape(message)):
        streams.from_arrays(*arguments)


def test_arrays_come_in_one_dtype(untyped):
    for arguments, expected in (
        ((ones.astype(np.float32), ones), jnp.float64),
        ((ones.astype(int), ones.astype(np.float32)), jnp.float32),
        ((ones.astype(int), ones.astype(bool)), jnp.float64),
        ((jnp.asarray(ones, jnp.bfloat16), jnp.asarray(ones, jnp.bfloat16)), jnp.bfloat16),
        ((1.7e9 + changed(0.0), ones), jnp.float64),
        ((ones.tolist(), ones.tolist()), jnp.float64),
    ):
        stream = streams.from_arrays(*arguments)  # pyright: ignore[reportArgumentType]
        assert stream.keys.dtype == stream.values.dtype == expected
        np.testing.assert_array_equal(stream.values, 1)
    # A column that never changes is as good in single precision.
    jax.config.update("jax_enable_x64", False)
    assert streams.from_arrays(0.1 * ones, ones).keys.dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps must be a positive integer, but it is 0"),
        ({"key_dim": -1}, "key_dim must be"),
        ({"num_agents": 3.0}, "num_agents must be a positive integer, but it is 3.0"),
        ({"noise_std": "loud"}, "noise_std must be a real number, but it is 'loud'"),
        ({"correlation": 1.5}, "correlation must lie in [0, 1], but it is 1.5"),
        ({"noise_std": -0.1}, "noise_std must be finite and non-negative"),
        ({"personal_mean": 3.0}, "personal_mean must be a pair of numbers (low, high), but it is 3.0; (x, x) fixes"),
        ({"personal_mean": (1.0, "a")}, "personal_mean must be a real number, but it is 'a'"),
        ({"personal_mean": (2.0, 1.0)}, "personal_mean must be an interval (low, high) with low <= high, but it is (2"),
        ({"personal_mean": (0.0, np.inf)}, "personal_mean must have finite ends, but one of them is inf"),
        ({"personal_variance": (-1.0, 1.0)}, "personal_variance must be an interval of non-negative numbers, but one"),
    ],
)
def test_bad_models(untyped, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        streams.linear_model(key(), **settings)


@pytest.mark.long
def test_dirichlet_rows_have_their_mean_and_spread():
    """Mean alpha / sum(alpha), variance mean (1 - mean) / (1 + sum(alpha))."""
    num_agents, concentration, self_factor = 4, 0.7, 3.0
    draws = jax.vmap(lambda k: weights.dirichlet(k, num_agents, concentration=concentration, self_factor=self_factor))(
        jax.random.split(key(), 20000)
    )
    total = concentration * (num_agents - 1 + self_factor)
    mean = (np.ones((4, 4)) + (self_factor - 1) * np.eye(4)) * concentration / total
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.01)
    np.testing.assert_allclose(draws.var(axis=0), mean * (1 - mean) / (1 + total), atol=0.005)
    np.testing.assert_allclose(draws.sum(axis=2), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dirichlet_at_tiny_concentrations_is_near_one_hot_and_finite(dtype):
    rows = np.asarray(weights.dirichlet(key(), 10, concentration=0.001, dtype=dtype))
    assert np.isfinite(rows).all()
    assert np.median(rows.max(axis=1)) > 0.99
    damjax.routing.compile_routes(damjax.graphs.paper_network(), rows)


@pytest.mark.parametrize("settings", [{"concentration": 0.0}, {"self_factor": -1.0}, {"concentration": np.nan}])
def test_bad_dirichlet(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be finite and positive"):
        weights.dirichlet(key(), 3, **settings)


def test_schedules():
    count = jnp.array([1.0, 4.0, 9.0])
    np.testing.assert_allclose(schedules.inverse_sqrt(0.6)(count), [0.6, 0.3, 0.2])
    np.testing.assert_allclose(schedules.power(2.0, 1.0)(count), 2 / count)
    np.testing.assert_allclose(schedules.power(2.0, 0.0)(count), 2)
    np.testing.assert_allclose(schedules.inverse_sqrt(jnp.array([1.0, 2.0, 3.0]))(count), [1, 1, 1])
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        schedules.inverse_sqrt(0.0)
    with pytest.raises(ValueError, match="exponent must be finite and non-negative"):
        schedules.power(1.0, -0.5)
