"""Convergecast: replies that are added up on their way."""

import dataclasses

import numpy as np

from damjax._checks import check_instance
from damjax.routing.compile import Routes

__all__ = ["convergecast"]


def convergecast(routes: Routes) -> Routes:
    """The same trees, with inner nodes that add up the weighted replies: one message per tree edge instead of path.

    A node answers when it has its own gradient and the answers of all its children, so everything of the branch of a
    child c of the root arrives at once, as late as the latest of it: after 2 (1 + H_c) steps, with H_c the height of
    the subtree of c, on links of length 1. An agent's own gradient has no delay. The sum of gradients is a matrix
    whatever they are; weights are known to those who answer.

    Args:
        routes: of ``compile_routes``, the questions of which go the same way.

    Returns:
        Routes with these delays and ``summed``; ``traffic``, ``link_traffic`` and ``link_load`` count accordingly.

    Raises:
        ValueError: routes that are none.

    Example:
        >>> import networkx as nx, numpy as np
        >>> from damjax.routing import compile_routes
        >>> routes = compile_routes(nx.path_graph(4), np.full((4, 4), 1 / 4))
        >>> routes.delays[1].tolist(), convergecast(routes).delays[1].tolist()
        ([2, 0, 2, 4], [2, 0, 4, 4])
    """
    check_instance("routes", routes, Routes, "compile_routes makes them")
    delays = routes.delays.copy()
    for agent, tree in enumerate(routes.trees):
        branch: dict[int, int] = {}
        for parent, child in tree:
            branch[child] = branch.get(parent, child)
        others = routes.others(agent)
        columns, of_branch = list(others), np.array([branch[other] for other in others.values()], int)
        latest = np.zeros(len(delays), delays.dtype)
        np.maximum.at(latest, of_branch, delays[agent, columns])
        delays[agent, columns] = latest[of_branch]
    return dataclasses.replace(routes, delays=delays, summed=True)
