"""Feasible sets of a memory: closed convex sets, each one small class.

Algorithms need no more of a set than a projection and a diameter. The best memory in hindsight, and so regret, asks for
``support`` too, the set's linear maximiser, from which Frank-Wolfe gaps follow. Everything else a set may answer has a
general answer in ``Domain``, which a set that knows better overrides:

| factory | the set |
|---|---|
| ``frobenius_ball(radius)`` | ||X||_F <= R |
| ``box(lower, upper)`` | lower <= X <= upper, entry by entry |
| ``unconstrained()`` | every memory |
| ``l1_ball(radius)`` | the absolute entries of X sum to R at most |
| ``nuclear_ball(radius)`` | the singular values of X sum to R at most |
| ``simplex(total, axis)`` | X >= 0, and its entries, all or along an axis, sum to a total |
| ``product(parts)`` | each part of a memory in a set of its own |
"""

from damjax.domains.balls import FrobeniusBall as FrobeniusBall
from damjax.domains.balls import frobenius_ball as frobenius_ball
from damjax.domains.boxes import Box as Box
from damjax.domains.boxes import Unconstrained as Unconstrained
from damjax.domains.boxes import box as box
from damjax.domains.boxes import unconstrained as unconstrained
from damjax.domains.domain import Boundary as Boundary
from damjax.domains.domain import Domain as Domain
from damjax.domains.domain import Face as Face
from damjax.domains.domain import as_domain as as_domain
from damjax.domains.domain import has_support as has_support
from damjax.domains.domain import with_support as with_support
from damjax.domains.nuclear import NuclearBall as NuclearBall
from damjax.domains.nuclear import nuclear_ball as nuclear_ball
from damjax.domains.products import Product as Product
from damjax.domains.products import product as product
from damjax.domains.simplices import L1Ball as L1Ball
from damjax.domains.simplices import Simplex as Simplex
from damjax.domains.simplices import l1_ball as l1_ball
from damjax.domains.simplices import simplex as simplex

__all__ = [
    "Boundary",
    "Box",
    "Domain",
    "Face",
    "FrobeniusBall",
    "L1Ball",
    "NuclearBall",
    "Product",
    "Simplex",
    "Unconstrained",
    "as_domain",
    "box",
    "frobenius_ball",
    "has_support",
    "l1_ball",
    "nuclear_ball",
    "product",
    "simplex",
    "unconstrained",
    "with_support",
]
