"""The algorithms in slow NumPy, written from the protocol: real messages on real links, no delay tables, no JAX.

In DAM-TOGD every agent keeps its own associations; a query carries a memory down the tree, one link a step, and is
copied at the branches; a member answers with the gradient on the association that it stored when the query set out;
the answer climbs back, one link a step. ``delayed`` is the same with answers that take any time, or are lost.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# Embeddings of the classes in the cross-entropy memory of the tests, for responses of two entries.
OUTPUTS = np.array([[1.0, 0.2], [-0.7, 0.6], [0.1, -1.1], [0.8, -0.9]])


def gradient(name, params, feature, value, gate, time):
    """The gradients of the objectives, each written out from the table of the specification."""
    outer = np.outer(value, feature)
    match name:
        case "linear_attention" | "softmax_attention":
            return -outer
        case "gated_linear_attention":
            return -outer + (1 - gate) * params
        case "delta_net":
            return np.outer(params @ feature - value, feature)
        case "normalized_softmax_attention":
            return (params - outer) / time
        case "cross_entropy":
            shares = np.exp(OUTPUTS @ params @ feature)
            return np.outer(OUTPUTS.T @ shares / shares.sum(), feature) - outer
        case "gated_softmax_attention":
            return -outer / time + (1 - gate * (time - 1) / time) * params
    raise AssertionError(name)


def loss(name, params, feature, value, gate, time):
    """The losses of the objectives."""
    match name:
        case "linear_attention" | "softmax_attention":
            return -(params @ feature) @ value
        case "gated_linear_attention":
            return -(params @ feature) @ value + 0.5 * np.sum((1 - gate) * params**2)
        case "delta_net":
            return 0.5 * np.sum((params @ feature - value) ** 2)
        case "normalized_softmax_attention":
            return (-(params @ feature) @ value + 0.5 * np.sum(params**2)) / time
        case "cross_entropy":
            return np.log(np.sum(np.exp(OUTPUTS @ params @ feature))) - (params @ feature) @ value
        case "gated_softmax_attention":
            return -(params @ feature) @ value / time + 0.5 * np.sum((1 - gate * (time - 1) / time) * params**2)
    raise AssertionError(name)


def ball(radius):
    """Projection onto the Frobenius ball."""
    return lambda params: params * min(1.0, radius / max(np.sqrt((params**2).sum()), 1e-300))


@dataclass
class Problem:
    """An objective by name, its features of every cue (T, N, df), values (T, N, dv) and gates (a list, or None)."""

    name: str
    features: np.ndarray
    values: np.ndarray
    gates: Any = None

    def gradient(self, params, agent, time):
        gate = None if self.gates is None else self.gates[time - 1, agent]
        return gradient(self.name, params, self.features[time - 1, agent], self.values[time - 1, agent], gate, time)

    @property
    def num_steps(self):
        return len(self.features)


def ogd(problem, weights, params, *, rate, project):
    """X_1..X_{T+1} of full-information OGD; ``rate`` maps the count to a number."""
    params, trajectory = params.copy(), [params.copy()]
    for time in range(1, problem.num_steps + 1):
        after = params.copy()
        for n in range(len(params)):
            total = sum(weights[n, m] * problem.gradient(params[n], m, time) for m in range(len(params)))
            after[n] = project(params[n] - rate(time) * total)
        params = after
        trajectory.append(params.copy())
    return np.stack(trajectory)


def c_dogd(problem, mixing, params, *, rate, project, order):
    """X_1..X_{T+1} of consensus OGD."""
    params, trajectory = params.copy(), [params.copy()]
    agents = range(len(params))
    for time in range(1, problem.num_steps + 1):
        own = [rate(time) * problem.gradient(params[n], n, time) for n in agents]
        if order == "adapt_then_combine":
            adapted = [project(params[n] - own[n]) for n in agents]
            params = np.stack([sum(mixing[n, m] * adapted[m] for m in agents) for n in agents])
        else:
            params = np.stack([project(sum(mixing[n, m] * params[m] for m in agents) - own[n]) for n in agents])
        trajectory.append(params.copy())
    return np.stack(trajectory)


@dataclass
class Query:
    """A memory on its way down the tree of ``owner``, now at agent ``at``."""

    owner: int
    asked: int
    at: int
    memory: np.ndarray


@dataclass
class Reply:
    """A gradient on its way up the tree of ``owner``, now at agent ``at``."""

    owner: int
    member: int
    at: int
    gradient: np.ndarray


class Network:
    """Trees given as edges (parent, child); messages move one link per call of ``move``."""

    def __init__(self, trees):
        self.children = [{} for _ in trees]
        self.parent = [{} for _ in trees]
        for owner, tree in enumerate(trees):
            for parent, child in tree:
                self.children[owner].setdefault(parent, []).append(child)
                self.parent[owner][child] = parent

    def move(self, messages):
        moved = []
        for message in messages:
            if isinstance(message, Query):
                for child in self.children[message.owner].get(message.at, []):
                    moved.append(Query(message.owner, message.asked, child, message.memory))
            else:
                above = self.parent[message.owner][message.at]
                moved.append(Reply(message.owner, message.member, above, message.gradient))
        return moved

    def first_reply(self, owner, members):
        """Steps until the nearest member's answer can be back."""

        def hops(member):
            return 0 if member == owner else 1 + hops(self.parent[owner][member])

        return min(2 * hops(member) for member in members)


def dam_togd(problem, weights, trees, params, *, rate, project):
    """X_1..X_{T+1} of DAM-TOGD, and how many gradients each agent applied at each step, (T, N)."""
    num_agents = len(params)
    network = Network(trees)
    members = [set(np.flatnonzero(weights[n] > 0).tolist()) for n in range(num_agents)]
    first = [network.first_reply(n, members[n]) for n in range(num_agents)]
    params, trajectory, applied = params.copy(), [params.copy()], []
    flying = []
    for time in range(1, problem.num_steps + 1):
        here = network.move(flying)
        here += [Query(n, time, n, params[n].copy()) for n in range(num_agents)]
        queries = [message for message in here if isinstance(message, Query)]
        replies = [message for message in here if isinstance(message, Reply)]
        for query in queries:
            if query.at in members[query.owner]:
                answer = problem.gradient(query.memory, query.at, query.asked)
                replies.append(Reply(query.owner, query.at, query.at, answer))
        arrived = [reply for reply in replies if reply.at == reply.owner]
        flying = queries + [reply for reply in replies if reply.at != reply.owner]

        total, count = np.zeros_like(params), np.zeros(num_agents, int)
        for reply in arrived:
            total[reply.owner] += weights[reply.owner, reply.member] * reply.gradient
            count[reply.owner] += 1
        for n in range(num_agents):
            step = rate(time - first[n]) if time > first[n] else 0.0
            params[n] = project(params[n] - step * total[n])
        trajectory.append(params.copy())
        applied.append(count)
    return np.stack(trajectory), np.stack(applied)


class Delayed(NamedTuple):
    """What a run with delays did, step by step: memories X_1..X_{T+1}, and per step and agent, (T, N), what arrived.

    ``oldest`` and ``mean_age`` are -1 where nothing arrived; ``lost`` counts questions of the step without an answer;
    ``variance`` is what making up for losses adds to the squared norm, 0 where nothing is made up for.
    """

    params: np.ndarray
    numbers: np.ndarray
    oldest: np.ndarray
    mean_age: np.ndarray
    lost: np.ndarray
    variance: np.ndarray


@dataclass
class Answer:
    """A gradient on its way to ``owner``, which may be overtaken by later ones and meet several others."""

    owner: int
    asked: int
    due: int
    gradient: np.ndarray


def delayed(problem, weights, round_trips, params, *, rate, project, max_delay=np.inf, chances=None):
    """Descent on gradients that arrive whenever they do, message by message.

    ``round_trips(time)`` gives those of the questions of a step, (N, N), negative for what is lost; what is later than
    ``max_delay`` is lost too. With ``chances(time)``, the probabilities of an arrival, each weighs w_nm over its own.
    """
    agents = range(len(params))
    params, trajectory, under_way, seen = params.copy(), [params.copy()], [], []
    clocks = [0] * len(params)
    for time in range(1, problem.num_steps + 1):
        delays, certainty = round_trips(time), 1.0 if chances is None else chances(time)
        certainty = np.broadcast_to(certainty, weights.shape)
        lost, variance = [0] * len(params), [0.0] * len(params)
        for n in agents:
            for m in np.flatnonzero(weights[n]):
                answer = problem.gradient(params[n], m, time)
                variance[n] += weights[n, m] ** 2 * (1 / certainty[n, m] - 1) * np.sum(answer**2)
                if 0 <= delays[n, m] <= max_delay:
                    answer = weights[n, m] / certainty[n, m] * answer
                    under_way.append(Answer(n, time, time + int(delays[n, m]), answer))
                else:
                    lost[n] += 1
        arrived = [answer for answer in under_way if answer.due == time]
        under_way = [answer for answer in under_way if answer.due > time]
        after, ages = params.copy(), [[time - answer.asked for answer in arrived if answer.owner == n] for n in agents]
        for n in agents:
            mine = [answer.gradient for answer in arrived if answer.owner == n]
            clocks[n] += bool(mine or clocks[n])
            if mine:
                after[n] = project(params[n] - rate(clocks[n]) * sum(mine))
        seen.append(
            (
                [len(own) for own in ages],
                [max(own, default=-1) for own in ages],
                [np.mean(own) if own else -1.0 for own in ages],
                lost,
                variance,
            )
        )
        params = after
        trajectory.append(params.copy())
    return Delayed(np.stack(trajectory), *map(np.array, zip(*seen, strict=True)))
