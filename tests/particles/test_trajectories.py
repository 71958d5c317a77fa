"""What is read off a run of losses."""

import jax.numpy as jnp
import pytest

import damjax
from damjax.particles import trajectories


@pytest.mark.long
def test_readings_of_a_run():
    losses = jnp.array([1.0, 0.5, 0.75, 0.6, 0.25, 0.3, 0.2])
    assert trajectories.spike_amplitude(losses) == pytest.approx(0.25)
    assert trajectories.spike_duration(losses) == 3
    plateau = 0.65 + 1e-12 * jnp.sin(jnp.arange(50.0))
    assert trajectories.spike_duration(plateau) == 0
    assert trajectories.spike_duration(plateau, tolerance=0.0) > 20
    never = jnp.zeros(4, bool)
    assert trajectories.first_time(never) == trajectories.settling_time(never) == 4
    assert trajectories.first_time(~never) == trajectories.settling_time(~never) == 0
    # t / 2 is rounded down; 1 / (t + 9) falls as 1 / t to within 10% of the exponent from t near 9 / .07.
    time = jnp.arange(4000.0)
    settled = trajectories.settling_time(trajectories.in_logarithmic_regime(1 / (time + 9)))
    assert 110 < settled < 140
    assert not trajectories.in_logarithmic_regime(1 / jnp.sqrt(time + 1)).any()
    assert not trajectories.in_logarithmic_regime(jnp.ones(100)).any()
    assert jnp.all(damjax.vmap_last(trajectories.spike_duration)(jnp.stack([losses, losses])) == 3)


def test_spikes_of_extreme_losses():
    infinite = jnp.array([jnp.inf, jnp.inf, 1.0, 0.5, 0.75])
    assert trajectories.spike_amplitude(infinite) == 0.25
    assert jnp.isnan(trajectories.spike_amplitude(infinite.at[2].set(jnp.nan)))
    # A rise by one unit in the last place is more than 1e-7.
    rise = jnp.array([1.0, 1 + 2.0**-23], jnp.float32)
    assert trajectories.spike_duration(rise, tolerance=1e-7) == 1
    assert trajectories.spike_duration(rise, tolerance=1.3e-7) == 0
