"""The figure of traffic: its front is one, and nothing that is drawn lies below it."""

import dataclasses
import itertools

import numpy as np

from paper_figs import trees

SMALL = trees.Protocol(num_agents=20, radius=0.4, num_interests=7, knobs=(0.0, 1.0, 2.0, 5.0, 1e4), base_seed=3)


def test_the_front_is_convex_and_monotone_and_the_rest_lies_above():
    panels = trees.compute(SMALL)
    front, knobs = panels["trees"][trees.FRONT], np.array(SMALL.knobs)
    assert (np.diff(front.edges) >= 0).all()
    assert (np.diff(front.delay) <= 1e-9).all()
    assert (np.diff(front.bound) <= 1e-9).all()
    corners = [0, *(i for i in range(1, len(knobs)) if front.edges[i] > front.edges[i - 1])]
    slopes = [
        (front.delay[b] - front.delay[a]) / (front.edges[b] - front.edges[a]) for a, b in itertools.pairwise(corners)
    ]
    assert len(slopes) > 2
    assert (np.diff(slopes) >= -1e-9).all()
    # Half the round trip is the length, of which the knob counts two.
    worth = front.edges + knobs * front.delay
    for curve in panels["trees"].values():
        assert (worth[:, None] <= curve.edges + knobs[:, None] * curve.delay + 1e-9).all()
    fewest, shortest = (panels["trees"][name] for name in ("fewest edges", "shortest paths"))
    assert (fewest.edges, fewest.delay) == (front.edges[0], front.delay[0])
    assert shortest.delay == front.delay[-1]


def test_every_way_of_sending_costs_what_it_saves():
    sending = trees.compute(dataclasses.replace(SMALL, knobs=(1.0,)))["sending"]
    plain = sending["two factors"]
    assert sending["matrices"].bytes > plain.bytes
    assert sending["matrices"].bound == plain.bound
    for name in (f"factors of {trees.BITS} bits", f"questions every {trees.PERIOD} steps"):
        assert sending[name].bytes < plain.bytes
    assert sending["convergecast"].bytes < sending["matrices"].bytes
    assert sending["convergecast"].bound >= plain.bound
    assert sending[f"questions every {trees.PERIOD} steps"].bound > plain.bound
