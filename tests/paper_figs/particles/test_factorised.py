"""Tuning of the memories of equal size."""

import dataclasses

import jax
import numpy as np

from paper_figs.particles import common, factorised


def test_step_sizes_are_tuned_on_other_seeds_and_an_edge_of_the_grid_is_told():
    shapes = (factorised.Shape("full", 1, 8, (1.0, 2.0, 3.0)), factorised.Shape("rank", 4, 8, (1.0, 2.0, 3.0)))
    protocol = factorised.Protocol(shapes=shapes, num_seeds=3, num_tuning_seeds=2)
    losses, drawn = {1.0: np.nan, 2.0: 0.5, 3.0: 0.7}, {}

    def sweep(name, run, *, keys, shape, rate, **options):
        drawn[name] = set(map(tuple, np.asarray(jax.random.key_data(keys))))
        finals = [losses[of] if name.startswith("full") else of for name, of in zip(shape, rate, strict=True)]
        points = len(common.log_times(protocol.num_steps))
        curves = np.tile(np.array(finals)[:, None, None], (1, len(keys), points))
        return {"losses": curves, "errors": curves, "recalled": np.ones((len(rate), len(keys), protocol.num_tokens))}

    panels = factorised.compute(protocol, sweep)
    assert panels["losses"].columns["learning_rate"] == {"full, d = 8": (2.0,), "rank 4, d = 8": (1.0,)}
    assert not drawn["tuning"] & drawn["runs"]
    assert [len(keys) for keys in drawn.values()] == [2, 3]
    figure = dataclasses.replace(factorised.FIGURE, protocol=protocol).picture(panels)
    assert "at the edge of its grid for rank 4, d = 8." in figure.texts[0].get_text()
