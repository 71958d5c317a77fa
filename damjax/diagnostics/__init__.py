"""Known failure signs of a finished run, in words and with the number behind each.

| sign | number | likely causes |
|---|---|---|
| divergence | peak norm over the best memory's, or the first or median one if larger; infinite for NaN | rate |
| | excess loss, of memories that the projection keeps in the set | rate too large in a large set |
| | exponent p of the norm's growth t^p, where no best memory exists | no projection |
| plateau | excess loss, of memories in consensus or without what they want | consensus, delays, losses |
| | exponent p of t^p, as which regret comes in between T/4 and T | rate |
| oscillation | how opposite consecutive moves of equal length are: minus their correlation | rate, delays |
| boundary | norm of the best memory over the radius; in a box, share of its entries at a bound | set too small |
| | in other sets, the share of a step outward that the projection takes back | set too small |

What counts as a sign, and why, stands in ``damjax.diagnostics.thresholds``; of a boundary the set itself says it.

Excess loss: the regret per step over the last half in units of what could be learned, the loss per step of an empty
memory less that of the best memory. 0 is as good as the best memory, 1 as bad as none.

Exponent: regret that grows like sqrt(T) comes in like t^-1/2, regret that grows like T like t^0. It must be large
relative to the squared norms of the gradients too, since louder noise brings in more of both. The numbers of a plateau
are means over blocks of steps, above their thresholds by more than noise explains at the level of 1 %.

Without what they want are memories to which an interest never comes, or after half of the run only; the trace's Info
says how old the gradients are and how many are lost, and ``lateness`` what follows for random delays. Where every agent
applies one gradient a step, as by c_dogd, they must also recall their own associations better than halfway from the
best memory to the best one for these alone. An algorithm whose Info does not say ages and losses (they are None) is
never suspected of delays or losses; all else is looked for.

Moves: D_t = X_{t+s} - X_t, compared with D_{t+s} over the last half of the run at the worst length s. Noise around one
point gives 1/2 at most, a swing that lasts gives 1 where s is half its period, and a round trip tau with too large a
rate swings with half periods between tau and 2 tau.
"""

from damjax.diagnostics.diagnosing import diagnose as diagnose
from damjax.diagnostics.report import Finding as Finding

__all__ = ["Finding", "diagnose"]
