"""What counts as a sign: the thresholds of the diagnoses, each with the reason for its value.

A reason is derived where that is possible. The others are measured on ten agents of the linear model, with personal
means on [-1, 1], variances on [0, 1] and sigma = 0.1, over 100, 400 and 1000 steps, three or five seeds of each:
healthy runs of OGD and DAM-TOGD at rates 0.5 / sqrt(t) and 1.5 / sqrt(t), and runs made to show the sign. How near a
memory is to the boundary, the set itself says: see ``damjax.domains.Domain.boundary``.
"""

from typing import NamedTuple

__all__ = ["THRESHOLDS", "Thresholds"]


class Thresholds(NamedTuple):
    """Where each number of a run begins to be a sign, and why there.

    Attributes:
        min_steps: the fewest steps of a run. The blocks of ``num_blocks`` and ``num_late_blocks`` have one and two
            steps then; of fewer, chance decides slopes and correlations.
        norm_ratio: of the peak norm to the usual one. At most 1.5 in healthy runs and 3 in those that swing; 4e7 and
            more after 400 steps at the rate 1.5 without a projection.
        projected_share: of the last half's steps whose memory the projection moved. 0 in healthy runs, 0.97 and more
            where a ball keeps a memory that would run away, 0.38 to 0.73 where it cuts off swings.
        projected_excess: the excess loss of a memory that the projection keeps. 1 is that of an empty memory, by
            definition: to learn nothing would be better.
        growth_exponent: p of the norm's t^p. Half the exponent 1/2 of a random walk, the slowest growth without end
            that noise makes; log t, as which the norms of separable classes grow, has 1 / log t, less from step 55 on.
        plateau_exponent: p of the t^p, as which regret comes in. Midway between -1/2 of regret like sqrt(T), which the
            theory promises, and 0 of regret like T, which is no learning.
        negligible_excess: of what could be learned, for swings and for plateaus that only the exponent tells of.
            Healthy runs are left with at most 0.013 after 100 steps, 0.003 after 400: less is not worth a word.
        attributed_excess: likewise where consensus or gradients that don't come show as the cause, which no healthy
            run has. Consensus in that problem, whose best memories differ by a tenth, costs 0.001 to 0.04.
        num_blocks: into which the steps from T/4 on are cut to fit the exponent. In the fewest steps each has one.
        trend_quantile: standard errors by which the exponent must be above its threshold: Student's 99 % quantile,
            one-sided, with the 14 degrees of freedom of 16 blocks and two parameters.
        num_late_blocks: into which the last half is cut for the error of its mean. In the fewest steps each has two.
        mean_quantile: standard errors by which the excess must be above its threshold: likewise, with 7.
        consensus_spread: how far the memories are apart, relative to the best ones. At most 0.28 by consensus, at
            least 0.98 in all other runs.
        alike_spread: how far the best memories are apart, relative to their norms, below which consensus costs
            nothing. 0.07 to 0.34 among random interests, 0.002 to 0.004 among those that are alike but for a
            hundredth, where no cost of consensus was seen.
        num_overdue: how many interests are without a gradient in time. Static delays give a whole number, random ones
            a number near it: midway between none and one.
        overdue_errors: standard errors by which it must be above 0. At 3, of 200 agents with 1, 10 or 40 interests and
            round trips between 0 and 20 or 30 steps in a run of 200, up to 40 % of them lost, at most one was accused;
            an interest that never came was seen in all of them.
        lost_share: of the last half's questions. With more than half of all lost, some interest lacks more than half.
        chance_of_losses: that losses by chance leave no late step without one, below which they are no chance. With
            ten agents and a thousandth each, one run in a hundred errs, as elsewhere.
        half_way: of the best memory's norm. With a hundredth of the right rate a memory reaches 0.13 of it, healthy
            ones 0.92 and more, those of large rates more than 1.
        opposition: minus the correlation of consecutive moves. Midway between 1/2 of noise around one point and 1 of a
            swing that lasts. At most 0.68 in healthy runs; 0.96 and more where the rate is too large for 20 steps.
        rounding: relative differences below it are those of sums in single precision, a few times 6e-8 each.
    """

    min_steps: int = 32
    norm_ratio: float = 10.0
    projected_share: float = 0.1
    projected_excess: float = 1.0
    growth_exponent: float = 0.25
    plateau_exponent: float = -0.25
    negligible_excess: float = 0.01
    attributed_excess: float = 0.001
    num_blocks: int = 16
    trend_quantile: float = 2.62
    num_late_blocks: int = 8
    mean_quantile: float = 3.0
    consensus_spread: float = 0.6
    alike_spread: float = 0.01
    num_overdue: float = 0.5
    overdue_errors: float = 3.0
    lost_share: float = 0.5
    chance_of_losses: float = 0.001
    half_way: float = 0.5
    opposition: float = 0.75
    rounding: float = 1e-6


THRESHOLDS = Thresholds()
