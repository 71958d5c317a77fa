"""Routing trees and their compilation to static hop and delay tables. Plain networkx and numpy, no jax.

Agent n sends its memory down a tree that reaches every agent it is interested in, and the gradients come back up the
same tree; one link takes one step, or as many as it is long. So the gradient of agent m reaches n after
tau_nm = 2 length_n(m) steps ([DAM] sec. 4), and everything that an algorithm needs to know of the network is the table
of these delays. ``compile_routes`` finds the trees, between little traffic and little delay; ``convergecast`` sends
fewer and later answers up the same ones; ``traffic``, ``link_traffic`` and ``link_load`` count what travels.
"""

from damjax.routing.aggregation import convergecast as convergecast
from damjax.routing.compile import METHODS as METHODS
from damjax.routing.compile import Routes as Routes
from damjax.routing.compile import compile_routes as compile_routes
from damjax.routing.crossings import Crossings as Crossings
from damjax.routing.crossings import LinkLoad as LinkLoad
from damjax.routing.crossings import LinkTraffic as LinkTraffic
from damjax.routing.crossings import PathLinks as PathLinks
from damjax.routing.crossings import Traffic as Traffic
from damjax.routing.crossings import equal_budget_steps as equal_budget_steps
from damjax.routing.crossings import link_load as link_load
from damjax.routing.crossings import link_traffic as link_traffic
from damjax.routing.crossings import path_links as path_links
from damjax.routing.crossings import traffic as traffic
from damjax.routing.timeline import Timeline as Timeline
from damjax.routing.timeline import compile_timeline as compile_timeline

__all__ = [
    "METHODS",
    "Crossings",
    "LinkLoad",
    "LinkTraffic",
    "PathLinks",
    "Routes",
    "Timeline",
    "Traffic",
    "compile_routes",
    "compile_timeline",
    "convergecast",
    "equal_budget_steps",
    "link_load",
    "link_traffic",
    "path_links",
    "traffic",
]
