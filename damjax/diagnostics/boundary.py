"""Boundary: a set so small that it shuts out what the agents want."""

from damjax.diagnostics.measures import Run
from damjax.diagnostics.report import Finding, findings_of

__all__ = ["find_boundary"]


def find_boundary(run: Run) -> list[Finding]:
    """Whose best memory lies at the boundary of the set, by the set's own measure."""
    # The best memory of a linear loss always does.
    if run.best is None or run.objective.is_linear:
        return []
    if (boundary := run.domain.boundary(run.best.params)) is None:
        return []
    values, threshold, words = boundary
    end = "the set is likely too small, and regret is measured against the best of what it leaves; enlarge it."
    if not run.objective.bounded_below:
        end += " (Where the data are separable, it is on the boundary of every set, and that is no failure.)"
    return findings_of("boundary", values, values > threshold, threshold, lambda n: f"{words.format(values[n])}: {end}")
