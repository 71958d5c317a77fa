"""Every sign that is looked for in a finished run, one after the other."""

import jax
import numpy as np

from damjax._checks import check_function, check_instance, concrete
from damjax._laws import check_linear_memory
from damjax.diagnostics.boundary import find_boundary
from damjax.diagnostics.divergence import find_divergence, not_finite
from damjax.diagnostics.measures import measure
from damjax.diagnostics.oscillation import find_oscillation
from damjax.diagnostics.plateau import find_plateau
from damjax.diagnostics.report import Finding
from damjax.diagnostics.thresholds import THRESHOLDS
from damjax.domains import Domain, with_support
from damjax.objectives import Objective
from damjax.simulation import Trace
from damjax.types import Associations, Stream
from damjax.weights.interests import Weights, stochastic_interests

__all__ = ["diagnose"]


def diagnose(
    objective: Objective,
    weights: Weights,
    domain: Domain,
    associations: Stream,
    trace: Trace,
) -> tuple[Finding, ...]:
    """Say which known failure signs a finished run shows; the package's table tells what is measured.

    Args:
        objective: the memory loss f.
        weights: W, (N, N), or SparseWeights, also for algorithms that never see it.
        domain: the feasible set, also of the best memories that the run is measured by; one of your own needs a
            ``support``.
        associations: the stream of the run, as arrays or as a function of the 1-based time.
        trace: what ``simulate`` records by default, of at least 32 steps. Gradients that come late or never are
            looked for only if its Info says ``max_age`` and ``num_lost``, as that of every algorithm of damjax does.

    Returns:
        The findings, none for a healthy run. Memories that became NaN or infinite are reported alone: nothing else can
        be measured. Plateau and boundary need a best memory, which linear losses and cross-entropy do not have on an
        unconstrained domain.

    Raises:
        ValueError: traced values, another observer's trace, too few steps, a stream of another length.

    Example:
        >>> import jax, jax.numpy as jnp, damjax
        >>> objective, weights, free = damjax.objectives.delta_net(), jnp.eye(2), damjax.domains.unconstrained()
        >>> stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=100)
        >>> def run(rate):
        ...     algorithm = damjax.ogd(objective, weights, learning_rate=rate, domain=free)
        ...     return damjax.simulate(algorithm, jnp.zeros((2, 5, 5)), stream)[1]
        >>> diagnose(objective, weights, free, stream, run(0.5))
        ()
        >>> [(finding.sign, finding.agents) for finding in diagnose(objective, weights, free, stream, run(2.0))]
        [('divergence', (0, 1))]
    """
    check_linear_memory(objective)
    domain = with_support(domain)
    _check(weights, associations, trace)
    finite = np.asarray(trace.info.finite)
    if not finite.all():
        return (not_finite(finite, domain),)
    run = measure(objective, weights, domain, associations, trace)
    return (*find_divergence(run), *find_plateau(run), *find_oscillation(run), *find_boundary(run))


def _check(weights: Weights, associations: Stream, trace: Trace) -> None:
    check_instance("trace", trace, Trace, "it must be what simulate records by default, without an observe")
    values = (weights, trace, None if callable(associations) else associations)
    if any(concrete(leaf) is None for leaf in jax.tree.leaves(values)):
        raise ValueError("weights, associations and trace must be concrete, but some are traced; diagnose outside jit")
    (num_steps, num_agents), least = trace.params.shape[:2], THRESHOLDS.min_steps
    stochastic_interests("weights", weights, num_agents)
    if (first := int(trace.info.time[0])) != 1:
        raise ValueError(f"trace must start with step 1 but starts with {first}; concatenate the traces of its parts")
    if num_steps < least:
        raise ValueError(f"trace must have at least {least} steps to tell a sign from chance, but has {num_steps}")
    if callable(associations):
        check_function("associations", associations, "time", "it gives the associations of a step")
    else:
        check_instance("associations", associations, Associations, "damjax.streams.from_arrays makes one")
        if (length := np.shape(associations.keys)[0]) != num_steps:
            raise ValueError(f"associations must have the {num_steps} steps of the trace, but have {length}")
