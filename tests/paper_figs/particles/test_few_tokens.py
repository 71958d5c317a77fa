"""What the figures of few tokens show, with numbers: grids, landscapes, sharpness, noise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax import particles
from damjax.particles import binary, sampling
from paper_figs.particles import landscapes, noise, perfect_accuracy, sharpness, spikes
from tests.benchmarks.particles import autograd_loop, numpy_loop

pytestmark = pytest.mark.long


def test_first_perfect_steps_are_those_of_a_loop():
    protocol = dataclasses.replace(perfect_accuracy.Protocol(), size=4, num_steps=150)
    found = perfect_accuracy.compute(protocol)
    settings = np.stack([x.ravel() for x in np.meshgrid(*perfect_accuracy.grid(4), indexing="ij")]).T
    np.testing.assert_array_equal(found.ravel(), [numpy_loop(s, 150, stop_early=True) for s in settings])
    assert autograd_loop(settings[30], 150) == found.ravel()[30]
    # Never where both tokens have one embedding; for separable ones larger steps are sooner, at small step sizes.
    assert np.all(found[:, :, -1] == 151)
    assert np.all(np.diff(found[:, :3, :-1], axis=1) <= 0)
    frequencies, rates, overlaps = perfect_accuracy.grid(10)
    assert (frequencies[0], frequencies[-1]) == pytest.approx((0.5784, 0.9594), abs=1e-4)
    assert (rates[0], rates[-1], overlaps[0], overlaps[-1]) == pytest.approx((0.1, 10, 0.5, 1))


def test_the_spikes_of_the_figure_are_where_theory_says():
    protocol = dataclasses.replace(spikes.Protocol(), num_overlaps=13, num_rates=15, num_steps=300)
    grid = spikes.compute(protocol)
    inside = grid.rates[:, None] > grid.threshold[:, None, :]
    stable = grid.rates[:, None] < grid.stable[:, None, :]
    assert np.all(grid.amplitude[inside] > spikes.SMALLEST)
    assert np.all(grid.amplitude[stable] < 1e-12)
    assert np.all((grid.duration > 0) >= (grid.amplitude > spikes.SMALLEST))
    assert np.all(grid.duration[grid.amplitude < 1e-12] == 0)
    # Frequent against rare: outside the threshold nothing spikes later; near balance it does.
    outside = ~inside & (grid.amplitude > spikes.SMALLEST)
    assert not outside[2].any()
    assert outside[0].any()


def test_paths_lie_on_their_landscape():
    paths = landscapes.compute(dataclasses.replace(landscapes.Protocol(), num_steps=15))
    for (alpha, rate), (gamma, losses) in paths.items():
        np.testing.assert_array_equal(gamma[0], 0)
        on_it = [landscapes.landscape(alpha, 0.75, g[:1], g[1:])[0, 0] for g in gamma]
        np.testing.assert_allclose(losses, on_it, rtol=1e-9)
        falls = np.all(np.diff(losses) <= 0)
        assert falls == (rate < binary.spike_threshold(alpha, 0.75))


def test_sharpness_against_the_step_size():
    """Below 2 / eta all along: the loss only falls. Above it at the start: it leaves, and ends far below."""
    protocol = dataclasses.replace(sharpness.Protocol(), num_seeds=8, num_steps=300, random_rates=(3.0, 20.0))
    panels = sharpness.compute(protocol)
    ratios = {name: curve[0] for name, curve in panels["sharpness"].samples.items()}
    losses = {name: curve[0] for name, curve in panels["losses"].samples.items()}
    assert ratios[r"$\eta$ = 1"].max() < 1
    assert np.all(np.diff(losses[r"$\eta$ = 1"]) < 0)
    large = r"$\eta$ = 10"
    assert ratios[large][0] > 2
    assert ratios[large][-1] < 0.1
    assert np.any(np.diff(losses[large]) > 0)
    # No curve leaves the axis.
    assert min(ratio.min() for ratio in ratios.values()) > 1e-3
    mild, large = panels["random"].samples.values()
    assert np.all(mild < 1)
    assert np.all(large[:, 0] > 1)
    assert np.all(large[:, -1] < 0.3)


def test_sharpness_falls_as_one_over_t():
    """t times it tends to the largest eigenvalue of D K D / eta with D^2 = diag(K^{-1} 1), since
    p f(m) -> K^{-1} 1 / (eta c t)."""
    problem = particles.two_tokens(0.5, 0.7)
    eta, num_steps = 4.0, 5000
    scores = jax.jit(lambda: particles.simulate(jnp.zeros((2, 2)), problem, eta, num_steps)[-1])()
    found = binary.sharpness(particles.margins(scores, problem), problem)
    scale = jnp.sqrt(binary.support(problem))
    limit = jnp.linalg.eigvalsh(scale[:, None] * binary.signed_gram(problem) * scale[None])[-1] / eta
    assert num_steps * found == pytest.approx(float(limit), rel=0.01)


def interval(samples):
    """Ends of the 95% interval of a mean over seeds, Student's quantile for about 16."""
    half_width = 2.13 * np.std(samples, ddof=1) / np.sqrt(len(samples))
    return np.mean(samples) - half_width, np.mean(samples) + half_width


def test_noise_delays_settling():
    protocol = dataclasses.replace(
        noise.Protocol(),
        num_seeds=16,
        num_steps=1500,
        batch_sizes=(1, 64),
        shown_batches=(1, 64),
        noises=(0.0, 0.05, 0.2),
    )
    panels = noise.compute(protocol)
    by_batch = panels["batches"].samples
    for rate in ("1", "3"):
        small, large = by_batch[rf"$\eta$ = {rate}"].T
        full = by_batch[rf"$\eta$ = {rate}, full batch"][0, 0]
        assert interval(np.log(small / large))[0] > np.log(1.5)
        assert np.mean(large) == pytest.approx(full, rel=0.1)
    # Larger steps settle sooner on full batches, and later under label noise.
    assert by_batch[r"$\eta$ = 3, full batch"][0, 0] < by_batch[r"$\eta$ = 1, full batch"][0, 0] / 2
    noises = panels["noises"].samples
    for samples in noises.values():
        assert interval(samples[:, 2] - samples[:, 0])[0] > 0
    assert interval(noises[r"$\eta$ = 3"][:, 1] - noises[r"$\eta$ = 0.3"][:, 1])[0] > 0
    assert noises[r"$\eta$ = 3"][0, 0] < noises[r"$\eta$ = 0.3"][0, 0]
    # SGD on clean labels keeps the full batch's rate in the end.
    losses = panels["losses"].samples
    assert losses["B = 1"][:, -1].mean() == pytest.approx(losses["full batch"][0, -1], rel=0.15)


def test_noisy_labels_end_the_growth_of_margins():
    """The minimiser of soft targets with independent embeddings has their log-odds as margins."""
    problem = noise.tokens(noise.Protocol())
    soft = sampling.with_label_noise(problem, 0.2)
    scores = jax.jit(lambda: particles.simulate(jnp.zeros((6, 2)), soft, 4.0, 5000)[-1])()
    np.testing.assert_allclose(particles.margins(scores, problem), np.log(0.9 / 0.1), rtol=1e-4)
