"""First perfect step of two tokens over 10 x 10 x 10 settings x 1000 steps, beside loops over the settings."""

import functools
import importlib.util
import time

import jax
import numpy as np

from paper_figs.particles.perfect_accuracy import first_perfect_step, grid

NUM_AUTOGRAD_RUNS = 50


def numpy_loop(setting, num_steps, *, stop_early=False):
    """Plain NumPy on W, one setting at a time: the first t in 1..T with both tokens right, or T + 1."""
    frequency, rate, overlap = setting
    first = num_steps + 1
    inputs = np.array([[1.0, 0.0], [overlap, np.sqrt(1 - overlap**2)]])
    weights, targets = np.array([[frequency], [1 - frequency]]), np.eye(2)
    matrix = np.zeros((2, 2))
    for step in range(1, num_steps + 1):
        scores = inputs @ matrix.T
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        residual = weights * (targets - exponentials / exponentials.sum(axis=1, keepdims=True))
        matrix += rate * residual.T @ inputs
        if ((inputs @ matrix.T).argmax(axis=1) == (0, 1)).all():
            first = min(first, step)
            if stop_early:
                break
    return first


class Node:
    """A value on the tape, with what gave it and how its gradient goes back: the loop of a deep-learning framework."""

    def __init__(self, value, parents=()):
        self.value, self.parents, self.gradient = value, parents, 0.0

    def backward(self):
        """Gradients of this value in everything before it."""
        order, seen = [], set()

        def visit(node):
            if id(node) not in seen:
                seen.add(id(node))
                for parent, _ in node.parents:
                    visit(parent)
                order.append(node)

        visit(self)
        self.gradient = np.ones_like(self.value)
        for node in reversed(order):
            for parent, pull in node.parents:
                parent.gradient = parent.gradient + pull(node.gradient)


def linear(x, matrix):
    """x @ matrix.T."""
    return Node(x @ matrix.value.T, [(matrix, lambda g: g.T @ x)])


def cross_entropy(scores, targets, weights):
    """Weighted cross-entropy of rows of scores."""
    shifted = scores.value - scores.value.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    value = -(weights * targets * logs).sum()
    return Node(value, [(scores, lambda g: g * weights * (np.exp(logs) - targets))])


def autograd_loop(setting, num_steps):
    """The same through a tape, as a framework's training loop does it."""
    frequency, rate, overlap = setting
    inputs = np.array([[1.0, 0.0], [overlap, np.sqrt(1 - overlap**2)]])
    weights, targets, matrix = np.array([[frequency], [1 - frequency]]), np.eye(2), np.zeros((2, 2))
    first = num_steps + 1
    for step in range(1, num_steps + 1):
        parameter = Node(matrix)
        cross_entropy(linear(inputs, parameter), targets, weights).backward()
        matrix = matrix - rate * parameter.gradient
        if ((inputs @ matrix.T).argmax(axis=1) == (0, 1)).all():
            first = min(first, step)
    return first


def torch_loop(setting, num_steps):
    """The same in PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]

    frequency, rate, overlap = setting
    inputs = torch.tensor([[1.0, 0.0], [overlap, np.sqrt(1 - overlap**2)]], dtype=torch.float64)
    weights, targets = torch.tensor([frequency, 1 - frequency]), torch.arange(2)
    matrix = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    optimizer, first = torch.optim.SGD([matrix], lr=rate), num_steps + 1
    for step in range(1, num_steps + 1):
        optimizer.zero_grad()
        losses = torch.nn.functional.cross_entropy(inputs @ matrix.T, targets, reduction="none")
        (weights * losses).sum().backward()
        optimizer.step()
        if bool(((inputs @ matrix.T).argmax(dim=1) == targets).all()):
            first = min(first, step)
    return first


def table(num_steps: int) -> None:
    """Print the table; every result is compared with the NumPy loop's."""
    settings = np.stack([x.ravel() for x in np.meshgrid(*grid(10), indexing="ij")])
    num_runs = settings.shape[1]
    print(
        f"{'first perfect step of two tokens':44s} {'runs':>5s} {'compile s':>10s} {'s / 1000 runs':>14s} {'ratio':>9s}"
    )

    def report(name, seconds, runs, compile_seconds=0.0, baseline=None):
        scaled = seconds * 1000 / runs
        ratio = (baseline or scaled) / scaled
        print(f"{name:44s} {runs:5d} {compile_seconds:10.2f} {scaled:14.3f} {ratio:8.1f}x", flush=True)
        return scaled

    start = time.perf_counter()
    expected = np.array([numpy_loop(setting, num_steps) for setting in settings.T])
    baseline = report("NumPy, a loop over the settings", time.perf_counter() - start, num_runs)

    chosen = np.random.default_rng(0).choice(num_runs, NUM_AUTOGRAD_RUNS, replace=False)
    everything = np.arange(num_runs)
    loops = [
        ("the same, each run ends at its first", functools.partial(numpy_loop, stop_early=True), everything),
        ("a tape of gradients in NumPy, a loop", autograd_loop, chosen),
    ]
    if importlib.util.find_spec("torch"):
        loops.append(("PyTorch, a loop", torch_loop, chosen))
    for name, loop, which in loops:
        start = time.perf_counter()
        found = np.array([loop(settings[:, run], num_steps) for run in which])
        seconds = time.perf_counter() - start
        np.testing.assert_array_equal(found, expected[which])
        report(name, seconds, len(which), baseline=baseline)

    run = jax.vmap(functools.partial(first_perfect_step, num_steps=num_steps))
    for dtype in (np.float64, np.float32):
        jax.config.update("jax_enable_x64", dtype == np.float64)
        arguments = tuple(settings.astype(dtype))
        start = time.perf_counter()
        compiled = jax.jit(run).lower(*arguments).compile()
        compile_seconds = time.perf_counter() - start
        found, seconds = None, np.inf
        for _ in range(5):
            start = time.perf_counter()
            found = jax.block_until_ready(compiled(*arguments))
            seconds = min(seconds, time.perf_counter() - start)
        # In single precision a margin may cross zero one step sooner or later.
        agree = np.mean(np.asarray(found) == expected)
        assert agree == 1 if dtype == np.float64 else agree > 0.99, agree
        report(f"damjax, jax.vmap, {dtype.__name__}", seconds, num_runs, compile_seconds, baseline)
