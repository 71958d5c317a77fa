"""Laws of delay and loss: pure functions of a key and the time, that go wherever a table of delays goes.

One class a law; ``Law`` says what they have in common, and what one of your own must do.
"""

from damjax.channels.laws.blocks import bursts as bursts
from damjax.channels.laws.congested import congestion as congestion
from damjax.channels.laws.epochs import EpochDelays as EpochDelays
from damjax.channels.laws.independent import exponential as exponential
from damjax.channels.laws.independent import geometric as geometric
from damjax.channels.laws.independent import pareto as pareto
from damjax.channels.laws.independent import uniform as uniform
from damjax.channels.laws.law import Law as Law
from damjax.channels.laws.links import per_link as per_link
from damjax.channels.laws.losses import lossy as lossy
from damjax.channels.laws.tables import table as table

__all__ = [
    "EpochDelays",
    "Law",
    "bursts",
    "congestion",
    "exponential",
    "geometric",
    "lossy",
    "pareto",
    "per_link",
    "table",
    "uniform",
]
