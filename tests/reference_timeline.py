"""DAM-TOGD on a network that changes, in slow NumPy: real messages on links that vanish. No tables of delays, no JAX.

A query carries a memory down the tree of the epoch in which it set out, one link a step, and is copied at the branches;
a member answers with the gradient on the association that it stored when the query set out; the answer climbs back. A
message that is to cross a link that is not there, or to reach an agent that is not there, is gone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Epoch:
    """The network from one step on."""

    first_step: int
    links: set  # of frozensets of two agents
    present: set
    trees: list  # per agent its edges (parent, child)
    weights: np.ndarray  # (N, N), of everybody, as if nobody were absent


@dataclass
class Message:
    """On its way for ``owner``, now at agent ``at``; a gradient has a ``member``, whose answer it is, a query none."""

    owner: int
    asked: int
    at: int
    carried: Any
    member: Any = None


def epoch_of(epochs, step):
    return [epoch for epoch in epochs if epoch.first_step <= step][-1]


def weights_at(epochs, step):
    """Of those present among themselves; a row of zeros where there is nobody to be interested in."""
    epoch = epoch_of(epochs, step)
    weights = np.zeros_like(epoch.weights)
    for n in epoch.present:
        whole = sum(epoch.weights[n, m] for m in epoch.present)
        for m in epoch.present if whole > 0 else ():
            weights[n, m] = epoch.weights[n, m] / whole
    return weights


def next_places(message, epochs):
    """To whom a message is sent on."""
    tree = epoch_of(epochs, message.asked).trees[message.owner]
    if message.member is None:
        return [child for parent, child in tree if parent == message.at]
    return [parent for parent, child in tree if child == message.at]


def dam_togd(problem, epochs, params, *, rate, project, forget=False):
    """X_1..X_{T+1}, the steps that every answer took, (T, N, N), -1 for none, and how many arrived, (T, N)."""
    num_agents, num_steps = len(params), problem.num_steps
    params, trajectory, clocks = params.copy(), [params.copy()], [0] * num_agents
    took, numbers = np.full((num_steps, num_agents, num_agents), -1), np.zeros((num_steps, num_agents), int)
    tables = [weights_at(epochs, step) for step in range(1, num_steps + 1)]
    under_way = []
    for time in range(1, num_steps + 1):
        here = epoch_of(epochs, time).present
        arriving = []
        for message in under_way:
            for place in next_places(message, epochs):
                link_was_up = frozenset((message.at, place)) in epoch_of(epochs, time - 1).links
                if link_was_up and place in here:
                    carried = message.carried
                    arriving.append(Message(message.owner, message.asked, place, carried, message.member))
        arriving += [Message(n, time, n, params[n].copy()) for n in sorted(here)]
        answers = []
        for message in arriving:
            wanted = tables[message.asked - 1][message.owner, message.at] > 0
            if message.member is None and wanted:
                answer = problem.gradient(message.carried, message.at, message.asked)
                answers.append(Message(message.owner, message.asked, message.at, answer, message.at))
        under_way, slopes = [], np.zeros_like(params)
        for message in arriving + answers:
            if message.member is None or message.at != message.owner:
                under_way.append(message)
                continue
            slopes[message.owner] += tables[message.asked - 1][message.owner, message.member] * message.carried
            numbers[time - 1, message.owner] += 1
            took[message.asked - 1, message.owner, message.member] = time - message.asked
        for n in range(num_agents):
            if n not in here:
                params[n] = 0 * params[n] if forget else params[n]
                continue
            clocks[n] += bool(numbers[time - 1, n] or clocks[n])
            if clocks[n]:
                params[n] = project(params[n] - rate(clocks[n]) * slopes[n])
        trajectory.append(params.copy())
    # Of the questions that are still out nothing is known.
    return np.stack(trajectory), took, numbers
