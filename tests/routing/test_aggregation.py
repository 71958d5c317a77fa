"""Replies that are added up on their way: the table of delays against real messages that wait for each other."""

import networkx as nx
import numpy as np
import pytest

import damjax
from damjax.routing import METHODS, compile_routes, convergecast, link_traffic
from tests import reference
from tests.cases import case, connected_graph, interests, trajectory


class Node:
    """An agent in the tree of another: it adds up its answer and those of its children, question by question."""

    def __init__(self):
        self.children, self.sums, self.missing = [], {}, {}

    def add(self, asked, answer):
        """Its own answer or that of a child; the sum once it is complete, as a list of one."""
        self.sums[asked] = self.sums.get(asked, 0) + answer
        self.missing[asked] = self.missing.get(asked, 1 + len(self.children)) - 1
        return [] if self.missing[asked] else [self.sums.pop(asked)]


def summed_on_the_way(problem, weights, trees, params, *, rate, project):
    """X_1..X_{T+1}, and how many sums moved in each step. Questions go down one link a step, sums go up one link a
    step; the root takes in what its children send when it comes, and its own answer at once."""
    agents = range(len(params))
    parent = [{child: above for above, child in tree} for tree in trees]
    nodes = [{at: Node() for at in (n, *parent[n])} for n in agents]
    for n in agents:
        for above, child in trees[n]:
            nodes[n][above].children.append(child)
    questions, sums, moved = [], [], []
    params, path, clocks = params.copy(), [params.copy()], [0 for _ in agents]
    for time in range(1, problem.num_steps + 1):
        total, arrived = np.zeros_like(params), {n for n in agents if weights[n, n] > 0}
        answers = [(n, asked, parent[n][at], answer) for n, asked, at, answer in sums]
        moved.append(len(answers))
        questions = [(n, s, child, memory) for n, s, at, memory in questions for child in nodes[n][at].children]
        answers += [
            (n, s, at, weights[n, at] * problem.gradient(memory, at, s) if weights[n, at] > 0 else 0 * memory)
            for n, s, at, memory in questions
        ]
        questions += [(n, time, n, params[n].copy()) for n in agents]
        sums = []
        for n, asked, at, answer in answers:
            if at == n:
                total[n] += answer
                arrived.add(n)
            else:
                sums += [(n, asked, at, complete) for complete in nodes[n][at].add(asked, answer)]
        after = params.copy()
        for n in agents:
            if weights[n, n] > 0:
                total[n] += weights[n, n] * problem.gradient(params[n], n, time)
            clocks[n] += bool(n in arrived or clocks[n])
            if clocks[n]:
                after[n] = project(params[n] - rate(clocks[n]) * total[n])
        params = after
        path.append(params.copy())
    return np.stack(path), moved


@pytest.mark.parametrize(("seed", "method"), enumerate((*METHODS, "steiner", "shortest_path", "exact")))
def test_the_table_gives_what_messages_do(seed, method):
    """DAM-TOGD with these delays is the protocol, and as many sums move as there are edges in the trees."""
    rng = np.random.default_rng(seed)
    num_agents = 7
    graph, weights = connected_graph(rng, num_agents, probability=0.1), interests(rng, num_agents, density=0.4)
    routes = convergecast(compile_routes(graph, weights, method=method))
    name = ("delta_net", "gated_linear_attention")[seed % 2]
    problem = case(rng, name, num_agents=num_agents, num_steps=30)
    algorithm = damjax.dam_togd(
        problem.objective,
        weights,
        routes.delays,
        learning_rate=damjax.schedules.inverse_sqrt(0.3),
        domain=damjax.domains.frobenius_ball(2.0),
    )
    ours, _ = trajectory(algorithm, problem.params, problem.stream)
    theirs, moved = summed_on_the_way(
        problem.problem,
        weights,
        routes.trees,
        problem.params,
        rate=lambda count: 0.3 / np.sqrt(count),
        project=reference.ball(2.0),
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert moved[-1] == routes.num_tree_edges
    assert link_traffic(routes, value_dim=2, feature_dim=3).reply.messages.sum() == moved[-1]
    assert routes.delays.dtype == np.int32


def test_everything_of_a_branch_is_as_late_as_its_deepest_leaf():
    """By hand: under 0 a branch of height two, with an interest on the way, and a leaf of its own."""
    graph = [(0, 1), (1, 2), (2, 3), (0, 4)]
    weights = np.eye(5)
    weights[0] = [0.2, 0.2, 0, 0.3, 0.3]
    routes = compile_routes(nx.Graph(graph), weights)
    summed = convergecast(routes)
    assert routes.delays[0].tolist() == [0, 2, 0, 6, 2]
    assert summed.delays[0].tolist() == [0, 6, 0, 6, 2]
    assert summed.summed
    assert not routes.summed
    assert summed.trees == routes.trees
