"""What traffic buys: the front of bound against traffic, and where the known trees and ways of sending lie."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import damjax
from damjax import bounds
from damjax.routing import Routes, compile_routes, convergecast, link_traffic
from damjax.weights import SparseWeights
from paper_figs.figure import Figure, Picture
from paper_figs.panels import letter, note
from paper_figs.sweeps import Sweep, quiet

FRONT = "exact, as λ grows"
LIGHT = "light, as λ grows"
NAMED = {
    "fewest edges": "exact",
    "Steiner": "steiner",
    "Mehlhorn": "steiner_mehlhorn",
    "shortest paths": "shortest_path",
}
BITS = 8
PERIOD = 4
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Protocol:
    """The network, who wants whom, and the runs that the bound is about; lambda in edges per step of round trip."""

    num_agents: int = 40
    radius: float = 0.25
    num_interests: int = 8
    value_dim: int = 5
    key_dim: int = 5
    num_steps: int = 2000
    knobs: tuple[float, ...] = (0.0, *(float(knob) for knob in np.geomspace(0.5, 200.0, 14).round(3)))
    base_seed: int = 0


QUICK = {"num_agents": 12, "radius": 0.5, "num_interests": 4, "knobs": (0.0, 5.0, 50.0)}
CLAIM = "One knob leads from the fewest edges to the shortest paths, and every further edge buys less"


class Curve(NamedTuple):
    """Trees or ways of sending, point by point.

    Attributes:
        knob: lambda, NaN of what has none, (points,).
        edges: of the tree of an agent, mean over agents, (points,).
        delay: weighted mean round trip of an agent, mean over agents, steps, (points,).
        bytes: that cross all links in a step, (points,).
        bound: the weighted-delay bound on the regret over all steps at its best rate, mean over agents, (points,).
    """

    knob: np.ndarray
    edges: np.ndarray
    delay: np.ndarray
    bytes: np.ndarray
    bound: np.ndarray


def draw_network(protocol: Protocol) -> tuple[nx.Graph, SparseWeights]:
    """The network and the weights of the figure."""
    graph = damjax.graphs.random_geometric(protocol.num_agents, protocol.radius, seed=protocol.base_seed)
    weights = damjax.weights.sparse_dirichlet(
        jax.random.key(protocol.base_seed), protocol.num_agents, protocol.num_interests
    )
    return graph, weights


@functools.partial(jax.jit, static_argnames="num_steps")
def best_bound(weights: SparseWeights, delays: jax.Array, num_steps: int) -> jax.Array:
    """The weighted-delay bound of every agent at its best rate, losses of slope 1 and memories of norm at most 1."""
    constants = bounds.Constants(jnp.ones(delays.shape[0], delays.dtype), 2.0)
    scale = bounds.optimal_scale(weights, delays, constants)
    return bounds.weighted_delay(weights, delays, constants, scale=scale, horizon=num_steps)


def measure(
    protocol: Protocol,
    weights: SparseWeights,
    all_routes: Sequence[Routes],
    *,
    knobs: Sequence[float] = (),
    **sent: Any,
) -> Curve:
    """The points of trees; ``sent`` says how, in the words of ``link_traffic``."""
    points = []
    for routes in all_routes:
        # In the worst case an answer is about the memory of a whole period before.
        stale = np.where(routes.hops > 0, routes.delays + sent.get("period", 1) - 1, 0).astype(float)
        bound = best_bound(weights, stale, protocol.num_steps)
        _, query, reply = link_traffic(routes, value_dim=protocol.value_dim, feature_dim=protocol.key_dim, **sent)
        points.append(
            (
                routes.num_tree_edges / protocol.num_agents,
                np.sum(np.asarray(weights.weights) * stale, axis=1).mean(),
                query.bytes.sum() + reply.bytes.sum(),
                np.mean(bound),
            )
        )
    return Curve(np.array(knobs or [np.nan] * len(points)), *np.array(points, float).T)


def compute(protocol: Protocol, sweep: Sweep = quiet) -> dict[str, dict[str, Curve]]:
    """All numbers of the figure; there are no runs, so nothing for ``sweep`` to do."""
    graph, weights = draw_network(protocol)
    by_knob = {
        method: [compile_routes(graph, weights, method=method, traffic_weight=knob) for knob in protocol.knobs]
        for method in ("exact", "light")
    }
    named = {name: compile_routes(graph, weights, method=method) for name, method in NAMED.items()}

    def front(all_routes: Sequence[Routes], **sent: Any) -> Curve:
        return measure(protocol, weights, all_routes, knobs=protocol.knobs, **sent)

    def one(routes: Routes) -> Curve:
        return measure(protocol, weights, [routes])

    exact = by_knob["exact"]
    trees = {FRONT: front(exact), LIGHT: front(by_knob["light"])} | {name: one(tree) for name, tree in named.items()}
    trees["fewest edges, convergecast"] = one(convergecast(named["fewest edges"]))
    sending = {
        "two factors": front(exact),
        "matrices": front(exact, rank_one=False),
        f"factors of {BITS} bits": front(exact, bits=BITS),
        f"questions every {PERIOD} steps": front(exact, period=PERIOD),
        "convergecast": front([convergecast(routes) for routes in exact]),
    }
    return {"trees": trees, "bound": trees, "sending": sending}


def draw(figure: Picture, panels: Mapping[str, Mapping[str, Curve]], protocol: Protocol) -> None:
    """Draw the numbers."""
    axes = figure.subplots(1, 3)
    titles = {
        "trees": ("delay against edges", "edges", "delay"),
        "bound": ("the bound against bytes", "bytes", "bound"),
        "sending": ("ways of sending, exact trees", "bytes", "bound"),
    }
    labels = {
        "edges": "edges of a tree (messages of a question)",
        "delay": "weighted mean round trip (steps)",
        "bytes": "bytes per step, all links",
        "bound": "bound on the regret per agent (cumulative loss)",
    }
    for place, (kind, (title, x, y)) in zip(axes, titles.items(), strict=True):
        for marker, (name, curve) in zip(MARKERS, panels[kind].items(), strict=False):
            line = "none" if len(curve.knob) == 1 else ":" if name == LIGHT else "-"
            place.plot(getattr(curve, x), getattr(curve, y), marker=marker, linestyle=line, markersize=5, label=name)
        place.set(title=title, xlabel=labels[x], ylabel=labels[y])
        place.legend(fontsize=7)
    letter(axes)
    note(
        figure,
        f"{protocol.num_agents} agents at random places, linked when nearer than {protocol.radius:g}; each wants"
        f" {protocol.num_interests}, itself among them. Losses of slope 1, memories of norm at most 1, T ="
        f" {protocol.num_steps}; memories {protocol.value_dim} x {protocol.key_dim}, floats of 4 bytes.\nThe"
        " weighted-delay bound at its best rate constant; in (c) an answer to a question of one step in"
        f" {PERIOD} counts as {PERIOD - 1} steps later, and the variance of rounded answers is left out.",
    )


def tabulate(panels: Mapping[str, Mapping[str, Curve]], protocol: Protocol) -> dict[str, list[dict[str, Any]]]:
    """A row for every point of the first and the last panel; the second shows the first's."""
    return {
        "": [
            {"panel": kind, "curve": name} | dict(zip(Curve._fields, point, strict=True))
            for kind in ("trees", "sending")
            for name, curve in panels[kind].items()
            for point in zip(*(field.tolist() for field in curve), strict=True)
        ]
    }


def facts(panels: Mapping[str, Mapping[str, Curve]], protocol: Protocol) -> dict[str, Any]:
    """What it takes to make the figure again, beside its protocol: the network."""
    return {"graph": sorted(draw_network(protocol)[0].edges)}


FIGURE = Figure("trees", __doc__, CLAIM, Protocol(), QUICK, compute, draw, (12.5, 3.6), tables=tabulate, facts=facts)
