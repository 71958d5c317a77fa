"""Who gets which gradient when: what lies between the agents' questions and the gradients that they apply.

Agent n asks with its memory; agent m answers with the gradient on the association that it saw in the same step; the
answer arrives a round trip later. A ``Channel`` keeps what is under way and says what arrives:

- ``full_information``: everything at once; ``own_gradients``: only what concerns the agent itself;
- ``residual_rings``: static round trips of linear memories, of whose gradients only the two factors travel;
- ``arrival_bins``: any round trips, of memories of any shape.

``connect`` chooses between the last two; they are equal wherever both can serve.

How long round trips take, and which questions are never answered, says a table, a ``Law``, or a function of the
time. A law is a pure function of its key and the time, so every algorithm and setting sees the same delays:
``geometric``, ``exponential``, ``uniform`` and ``pareto`` draw them one by one, ``per_link`` link by link; under
``congestion`` all are late together, under ``bursts`` whole blocks; ``lossy`` loses messages of another law, and
``table`` is what you write down.

``quantised`` answers have a few bits a number, ``periodic`` questions are asked in some steps only.
"""

from damjax.channels.answers import Asked as Asked
from damjax.channels.answers import periodic as periodic
from damjax.channels.answers import quantised as quantised
from damjax.channels.bins import Bins as Bins
from damjax.channels.bins import arrival_bins as arrival_bins
from damjax.channels.channel import Arrivals as Arrivals
from damjax.channels.channel import Channel as Channel
from damjax.channels.connecting import connect as connect
from damjax.channels.immediate import full_information as full_information
from damjax.channels.immediate import own_gradients as own_gradients
from damjax.channels.laws import EpochDelays as EpochDelays
from damjax.channels.laws import Law as Law
from damjax.channels.laws import bursts as bursts
from damjax.channels.laws import congestion as congestion
from damjax.channels.laws import exponential as exponential
from damjax.channels.laws import geometric as geometric
from damjax.channels.laws import lossy as lossy
from damjax.channels.laws import pareto as pareto
from damjax.channels.laws import per_link as per_link
from damjax.channels.laws import table as table
from damjax.channels.laws import uniform as uniform
from damjax.channels.rings import Rings as Rings
from damjax.channels.rings import residual_rings as residual_rings

__all__ = [
    "Arrivals",
    "Asked",
    "Bins",
    "Channel",
    "EpochDelays",
    "Law",
    "Rings",
    "arrival_bins",
    "bursts",
    "congestion",
    "connect",
    "exponential",
    "full_information",
    "geometric",
    "lossy",
    "own_gradients",
    "pareto",
    "per_link",
    "periodic",
    "quantised",
    "residual_rings",
    "table",
    "uniform",
]
