"""Networks that change: trees for every epoch, and which messages are lost between two of them.

A timeline is a list of epochs, each with a graph and those who are present. A question uses the tree of the epoch in
which it was asked: it crosses link i of its path in step s + i - 1 -> s + i, and its answer comes back the same way. A
crossing that begins in step u needs the link in the graph of step u, and whoever receives it present in step u + 1;
else the message is lost. What is lost follows from the timeline alone, and concerns only questions of the last
``max_delay`` steps before a border: a table of bits for each.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int, UInt8

from damjax._checks import check_choice, check_count
from damjax.graphs import canonical
from damjax.routing.compile import Routes, compile_routes
from damjax.types import Graph
from damjax.weights.edges import SparseWeights
from damjax.weights.epochs import EpochWeights, over_epochs

__all__ = ["Epoch", "Timeline", "compile_timeline"]

UNREACHABLE = ("raise", "lost")
LOST = -1

Epoch = tuple[int, Graph, npt.ArrayLike | Collection[int] | None]
"""First step, 1-based; graph; who is present: booleans (N,), a collection of agents, or None for all."""


@dataclass(frozen=True)
class Timeline:
    """A network that changes, compiled; ``compile_timeline`` makes it. It goes wherever a table of delays goes.

    Attributes:
        first_steps: of the E epochs, 1-based, increasing from 1, (E,) int32.
        routes: of every epoch; absent agents have no trees, and nobody is routed to them.
        weights: of every epoch, those of absent agents given to those present; pass them to ``damjax.ogd``,
            ``dam_togd`` and ``damjax.regret``.
        delays: round trips of the questions of each epoch, (E, N, K) int32; -1 where nothing is asked, or nothing can
            come back.
        lost: bits, (E - 1, max_delay, N, ceil(K / 8)) uint8, as ``numpy.packbits`` packs the last axis: entry
            [e, i, n, k] says whether the question asked i + 1 steps before the border between the epochs e and e + 1 is
            lost on its way.
    """

    first_steps: Int[np.ndarray, "E"]
    routes: tuple[Routes, ...]
    weights: EpochWeights
    delays: Int[np.ndarray, "E N K"]
    lost: UInt8[np.ndarray, "borders D N bytes"]

    @property
    def present(self) -> Bool[np.ndarray, "E N"]:
        """Who takes part in each epoch."""
        return np.asarray(self.weights.present)

    @property
    def max_delay(self) -> int:
        """The longest round trip, in steps."""
        return int(self.delays.max(initial=0))

    def round_trips(self, step: int) -> Int[np.ndarray, "N K"]:
        """Of the questions of one step, 1-based; -1 for those that are lost or not asked.

        Example:
            >>> leaves = [(1, nx.path_graph(3), None), (10, nx.path_graph(3), [0, 1])]
            >>> timeline = compile_timeline(leaves, np.full((3, 3), 1 / 3))
            >>> [timeline.round_trips(step)[0].tolist() for step in (7, 8, 9)]  # agent 2 goes before the 8th arrives
            [[0, 2, 4], [0, 2, -1], [0, 2, -1]]
        """
        check_count("step", step)
        epoch = int(np.searchsorted(self.first_steps, step, side="right")) - 1
        delays = self.delays[epoch]
        if epoch + 1 < len(self.first_steps) and (before := int(self.first_steps[epoch + 1]) - step) <= self.max_delay:
            bits = np.unpackbits(self.lost[epoch, before - 1], axis=-1, count=delays.shape[1])
            return np.where(bits, LOST, delays)
        return delays

    def table(self, num_steps: int) -> Int[np.ndarray, "T N K"]:
        """``round_trips`` of the steps 1..T, to look at; a run never makes it."""
        check_count("num_steps", num_steps)
        return np.stack([self.round_trips(step) for step in range(1, num_steps + 1)])


def compile_timeline(
    epochs: Sequence[Epoch],
    weights: npt.ArrayLike | SparseWeights | Sequence[Any],
    *,
    method: str = "steiner",
    unreachable: str = "raise",
) -> Timeline:
    """For each epoch the trees and round trips, and for each border what is lost over it.

    Args:
        epochs: (first_step, graph, present) each. First steps are 1-based and increase from 1; graphs have the same
            nodes 0..N-1, whoever is present; ``present`` holds booleans, (N,), or is a collection of agents, or None
            for all. No tree leads over an absent agent.
        weights: (N, N), row-stochastic, or ``damjax.weights.SparseWeights``: in each epoch the weights of absent agents
            go to those present, in proportion to theirs. Or a list of one of them per epoch.
        method: of the trees, as for ``compile_routes``.
        unreachable: what becomes of interests in agents that are present but in another part of the network: "raise",
            or "lost": they are asked and never answered, while regret still counts them, until the network heals.

    Returns:
        Timeline.

    Raises:
        ValueError: epochs that do not begin at 1 or do not increase, graphs of different nodes, agents that do not
            exist; an interest that no path of its epoch joins; weights or a method as for ``compile_routes``.

    Example:
        >>> ring, broken = nx.cycle_graph(4), nx.path_graph(4)  # the link between 0 and 3 fails, and is mended
        >>> timeline = compile_timeline([(1, ring, None), (20, broken, None), (40, ring, None)], np.full((4, 4), 1 / 4))
        >>> timeline.delays[:, 0, 3].tolist(), timeline.max_delay
        ([2, 6, 2], 6)
        >>> timeline.table(20)[17:, 0, 3].tolist()  # asked in step 19, the answer would cross the link in step 20
        [2, -1, 6]
    """
    check_choice("unreachable", unreachable, UNREACHABLE)
    first_steps, graphs, present = _checked(epochs)
    changing = over_epochs(_as_numpy(weights), first_steps, present)
    wanted = np.asarray(changing.weights) > 0
    links = [_links_among(graph, here) for graph, here in zip(graphs, present, strict=True)]
    routes = []
    for epoch, first_step in enumerate(first_steps.tolist()):
        agents = None if changing.agents is None else np.asarray(changing.agents[epoch])
        asked = wanted[epoch] & _reachable(links[epoch], agents)
        if unreachable == "raise":
            _check_reached(first_step, wanted[epoch] & ~asked, agents)
        routes.append(_routes(links[epoch], np.asarray(changing.weights[epoch]), agents, asked, method))
    delays = np.stack([np.where(one.hops < 0, LOST, one.delays) for one in routes])
    lost = _lost(first_steps, [_codes(graph) for graph in graphs], present, routes, int(delays.max(initial=0)))
    return Timeline(first_steps.astype(np.int32), tuple(routes), changing, delays, lost)


def _checked(epochs: Sequence[Epoch]) -> tuple[np.ndarray, list[Graph], Bool[np.ndarray, "E N"]]:
    """First steps, plain graphs and who is present, or a ValueError for what is none."""
    if not epochs or any(len(epoch) != 3 for epoch in epochs):
        raise ValueError(
            f"epochs must be a list of (first_step, graph, present), one or more, but it is {epochs!r}; present may be"
            f" None for all"
        )
    graphs = [canonical(graph) for _, graph, _ in epochs]
    sizes = [graph.number_of_nodes() for graph in graphs]
    if len({*sizes}) > 1:
        raise ValueError(
            f"graphs must have the same nodes 0..N-1 in every epoch, but they have {sizes} nodes; keep absent agents as"
            f" nodes, graph.add_nodes_from(range({max(sizes)})), and leave them out of present"
        )
    present = np.stack([_as_mask(here, sizes[0]) for _, _, here in epochs])
    return np.array([first_step for first_step, _, _ in epochs]), graphs, present


def _as_mask(present: Any, num_agents: int) -> Bool[np.ndarray, "N"]:
    if present is None:
        return np.ones(num_agents, bool)
    entries = np.asarray(sorted(present) if isinstance(present, set | frozenset | range) else present)
    if entries.dtype == bool and entries.shape == (num_agents,):
        return entries
    mask = np.zeros(num_agents, bool)
    if entries.size == 0 and entries.ndim == 1:
        return mask
    if entries.ndim != 1 or not np.issubdtype(entries.dtype, np.integer):
        raise ValueError(
            f"present must hold {num_agents} booleans, or the agents that are present, but it is {present!r}"
        )
    if np.any(strangers := (entries < 0) | (entries >= num_agents)):
        raise ValueError(
            f"present must hold agents in 0..{num_agents - 1}, but it holds {entries[strangers].tolist()}; who takes"
            f" part in any epoch is a node of every graph"
        )
    mask[entries] = True
    return mask


def _as_numpy(weights: Any) -> Any:
    if isinstance(weights, SparseWeights):
        return SparseWeights(np.asarray(weights.agents), np.asarray(weights.weights))
    if isinstance(weights, list | tuple) and (isinstance(weights[0], SparseWeights) or np.ndim(weights[0]) == 2):
        return [_as_numpy(one) for one in weights]
    return np.asarray(weights)


def _links_among(graph: Graph, present: Bool[np.ndarray, "N"]) -> Graph:
    """The same nodes, with the links between those present."""
    links = nx.create_empty_copy(graph)
    links.add_edges_from(graph.subgraph(np.flatnonzero(present).tolist()).edges)
    return links


def _reachable(links: Graph, agents: Int[np.ndarray, "N K"] | None) -> Bool[np.ndarray, "N K"]:
    """Whether a path joins each agent and those its columns are about."""
    part = np.empty(links.number_of_nodes(), int)
    for number, members in enumerate(nx.connected_components(links)):
        part[list(members)] = number
    return part[:, None] == (part[None] if agents is None else part[agents])


def _check_reached(first_step: int, missing: Bool[np.ndarray, "N K"], agents: Int[np.ndarray, "N K"] | None) -> None:
    for agent, columns in enumerate(missing):
        if np.any(columns):
            others = np.flatnonzero(columns) if agents is None else np.sort(agents[agent, columns])
            raise ValueError(
                f"agent {agent} is interested in agents {others.tolist()}, but no path of the epoch that begins in step"
                f" {first_step} joins them; add links, give the epoch weights of its own, or pass unreachable='lost'"
            )


def _routes(
    links: Graph,
    weights: np.ndarray,
    agents: Int[np.ndarray, "N K"] | None,
    asked: Bool[np.ndarray, "N K"],
    method: str,
) -> Routes:
    """The routes to those who are asked; an agent that asks nobody has a tree of itself only."""
    rows = np.where(asked, weights, 0)
    silent = ~np.any(asked, axis=1)
    everyone = np.arange(len(rows))
    rows[silent, everyone[silent] if agents is None else 0] = 1
    table = rows / rows.sum(axis=1, keepdims=True)
    if agents is not None:
        table = SparseWeights(np.where(silent[:, None], everyone[:, None], agents), table)
    routes = compile_routes(links, table, method=method)
    hops = np.where(asked, routes.hops, -1).astype(np.int32)
    return dataclasses.replace(routes, hops=hops, delays=np.maximum(2 * hops, 0), agents=agents)


def _codes(graph: Graph) -> Int[np.ndarray, "links"]:
    """Every link as one number."""
    ends = np.array(graph.edges, int).reshape(-1, 2)
    return _code(ends[:, 0], ends[:, 1], graph.number_of_nodes())


def _code(one: np.ndarray, other: np.ndarray, num_agents: int) -> np.ndarray:
    return np.minimum(one, other) * num_agents + np.maximum(one, other)


def _walks(routes: Routes) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, "P R"]]:
    """The way of every question that leaves its agent, there and back: who asks, in which column, and the agents on it.

    Ways are as long as the longest; a message that is back stays where it is.
    """
    askers, columns, walks = [], [], []
    for agent in range(len(routes.trees)):
        paths = routes.paths(agent)
        for column, other in routes.others(agent).items():
            askers.append(agent)
            columns.append(column)
            walks.append(paths[other] + paths[other][-2::-1])
    length = max(map(len, walks), default=1)
    stretched = [walk + [walk[0]] * (length - len(walk)) for walk in walks]
    return np.array(askers, int), np.array(columns, int), np.array(stretched, int).reshape(-1, length)


def _lost(
    first_steps: Int[np.ndarray, "E"],
    codes: Sequence[np.ndarray],
    present: Bool[np.ndarray, "E N"],
    routes: Sequence[Routes],
    max_delay: int,
) -> UInt8[np.ndarray, "borders D N bytes"]:
    """The bits of ``Timeline.lost``."""
    num_epochs, (num_agents, num_columns) = len(first_steps), routes[0].hops.shape
    ends = [*first_steps.tolist()[1:], np.iinfo(int).max]
    lost = np.zeros((num_epochs - 1, max_delay, num_agents, -(-num_columns // 8)), np.uint8)
    for epoch, border in enumerate(ends[:-1]):
        askers, columns, walks = _walks(routes[epoch])
        longest = walks.shape[1] - 1
        stays = walks[:, 1:] == walks[:, :-1]
        crossed = _code(walks[:, 1:], walks[:, :-1], num_agents)
        # Crossing i of a question of step s begins in step s + i - 1. It finds its link and its receiver while the
        # epoch of the question lasts; of those after it, running counts say how many of any crossings are missing.
        later = [after for after in range(epoch + 1, num_epochs) if first_steps[after] < border + longest]
        no_link = {after: _running(~(stays | np.isin(crossed, codes[after]))) for after in later}
        no_receiver = {after: _running(~(stays | present[after][walks[:, 1:]])) for after in later}
        for before in range(1, min(max_delay, border - int(first_steps[epoch])) + 1):
            asked = border - before
            bits = np.zeros((num_agents, num_columns), bool)
            for after in later:
                begins, ends_at = (np.clip(step - asked, 0, longest) for step in (int(first_steps[after]), ends[after]))
                cut = no_link[after][:, ends_at] > no_link[after][:, begins]
                # Received one step later than sent: the crossing before the first of the epoch arrives in it.
                begins, ends_at = (
                    np.clip(step - asked - 1, 0, longest) for step in (int(first_steps[after]), ends[after])
                )
                cut |= no_receiver[after][:, ends_at] > no_receiver[after][:, begins]
                bits[askers, columns] |= cut
            lost[epoch, before - 1] = np.packbits(bits, axis=-1)
    return lost


def _running(missing: Bool[np.ndarray, "P R"]) -> Int[np.ndarray, "P R1"]:
    """How many of the first i crossings are missing, i from 0 on."""
    return np.pad(np.cumsum(missing, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
