"""The paper's claims as tests with confidence intervals, and experiments whose outcome is known."""

import itertools

import numpy as np
import pytest

import damjax
from paper_figs.experiment import ALGORITHMS, average_regret, tuned_regret
from paper_figs.problems import Protocol, Setting, draw_case
from paper_figs.sweeps import quiet

# The claims, at a size that takes seconds: 12 seeds, T = 1000, constants near the tuned ones of the full figure.
CLAIMS = Protocol(num_seeds=12, num_tuning_seeds=12, num_steps=1000, rate_constants=(0.4, 0.7, 1.0, 1.6, 2.5))


@pytest.mark.long
@pytest.mark.optimized
def test_what_the_figure_claims():
    """In one test: the runs that all claims are about are made once, whatever the number of workers."""
    regret = regret_of_claims()
    for claim in (
        ogd_and_dam_togd_keep_falling_and_c_dogd_reaches_a_plateau,
        the_gap_opens_as_targets_differ,
        where_all_targets_are_one_all_methods_are_alike,
        only_c_dogd_pays_for_interests_of_ones_own,
        personal_targets_are_a_stress_for_consensus_only,
        the_numbers_are_those_of_an_independent_trial,
    ):
        claim(regret)


def regret_of_claims():
    """Average regret of every algorithm at T/4 and T, for the settings that the claims are about."""
    settings = {
        "default": Setting(),
        "own targets": Setting(correlation=0.0, concentration=6.0),
        "mixed targets": Setting(correlation=0.5, concentration=6.0),
        "one target": Setting(correlation=1.0, concentration=6.0),
        "own interests": Setting(concentration=0.05),
        "spread interests": Setting(concentration=20.0),
        "personal": Setting(correlation=0.1, concentration=0.05),
        "half": Setting(correlation=0.5, concentration=0.05),
        "alike": Setting(correlation=0.9, concentration=0.05),
    }
    horizons = [CLAIMS.num_steps // 4, CLAIMS.num_steps]
    graph = damjax.graphs.paper_network()
    regret, _ = tuned_regret(list(settings.values()), graph=graph, protocol=CLAIMS, horizons=horizons)
    return {which: {of: values[place] for of, values in regret.items()} for place, which in enumerate(settings)}


def interval(samples):
    """Ends of the 95% interval of a mean over seeds; 2.2 is Student's quantile for 11 degrees of freedom."""
    half_width = 2.2 * np.std(samples, ddof=1) / np.sqrt(len(samples))
    return np.mean(samples) - half_width, np.mean(samples) + half_width


def ogd_and_dam_togd_keep_falling_and_c_dogd_reaches_a_plateau(claims):
    """Log-log slope of the average regret over the last two octaves; -1/2 is the rate of the theory."""
    regret = claims["default"]
    slopes = {name: interval(np.log(regret[name][:, 1] / regret[name][:, 0]) / np.log(4)) for name in ALGORITHMS}
    assert slopes["OGD"][1] < -0.5
    assert slopes["DAM-TOGD"][1] < -0.5
    assert slopes["C-DOGD"][0] > -0.4
    assert interval(np.log(regret["C-DOGD"][:, 1] / regret["DAM-TOGD"][:, 1]))[0] > np.log(1.5)
    assert interval(regret["C-DOGD"][:, 1] - regret["DAM-TOGD"][:, 1])[0] > 0


def the_gap_opens_as_targets_differ(claims):
    gaps = {name: regret["C-DOGD"][:, 1] - regret["DAM-TOGD"][:, 1] for name, regret in claims.items()}
    assert interval(gaps["own targets"] - gaps["mixed targets"])[0] > 0
    assert interval(gaps["mixed targets"] - gaps["one target"])[0] > 0


def where_all_targets_are_one_all_methods_are_alike(claims):
    """On the axis of panel (c): no two are apart by a tenth of what consensus pays where targets are personal, and
    there it pays three times as much as DAM-TOGD, which stays with OGD."""
    personal, common = (
        {of: values[:, 1] for of, values in claims[which].items()} for which in ("own targets", "one target")
    )
    for first, second in itertools.combinations(common.values(), 2):
        assert interval(0.1 * personal["C-DOGD"] - np.abs(first - second))[0] > 0
    assert interval(np.log(personal["C-DOGD"] / personal["DAM-TOGD"]))[0] > np.log(3)
    assert interval(np.log(personal["DAM-TOGD"] / personal["OGD"]))[1] < np.log(1.5)


def only_c_dogd_pays_for_interests_of_ones_own(claims):
    """With the own parameter fixed and the others' from 20 to 0.05, consensus pays more than ten times its regret, and
    the others at most three times theirs, which is a twentieth of that in loss."""
    pair = {name: [claims[which][name][:, 1] for which in ("spread interests", "own interests")] for name in ALGORITHMS}
    growth = {name: interval(np.log(own / spread)) for name, (spread, own) in pair.items()}
    assert growth["C-DOGD"][0] > np.log(10)
    for name in ("OGD", "DAM-TOGD"):
        assert growth[name][1] < np.log(3.5)
        others, consensus = (pair[n][1] - pair[n][0] for n in (name, "C-DOGD"))
        assert interval(consensus - 20 * np.abs(others))[0] > 0


def personal_targets_are_a_stress_for_consensus_only(claims):
    """Nearly all weight on oneself at rho = 0.1, 0.5, 0.9: consensus pays more the more personal the targets are."""
    values = [claims[name] for name in ("personal", "half", "alike")]
    ratios = [regret["C-DOGD"][:, 1] / regret["DAM-TOGD"][:, 1] for regret in values]
    for personal, common in itertools.pairwise(ratios):
        assert interval(np.log(personal / common))[0] > 0
    assert interval(np.log(ratios[0]))[0] > np.log(30)
    assert interval(np.log(ratios[2]))[1] < np.log(8)
    for regret in values:
        assert interval(np.log(regret["DAM-TOGD"][:, 1] / regret["OGD"][:, 1]))[1] < np.log(1.2)


def the_numbers_are_those_of_an_independent_trial(claims):
    """Twenty agents of another network, written apart from this library, paid at T = 800 .07/.15/.20 at rho = 1 and
    .35/1.47/.38 at rho = 0: the ratios to OGD hardly depend on size and network."""
    trial = {"one target": (0.15 / 0.07, 0.20 / 0.07), "own targets": (1.47 / 0.35, 0.38 / 0.35)}
    for which, expected in trial.items():
        mean = {name: values[:, 1].mean() for name, values in claims[which].items()}
        ratios = mean["C-DOGD"] / mean["OGD"], mean["DAM-TOGD"] / mean["OGD"]
        np.testing.assert_allclose(ratios, expected, rtol=0.35)


@pytest.mark.long
def test_one_agent_alone_reduces_to_ogd():
    """N = 1: the three algorithms are one, to rounding."""
    case = draw_case(damjax.graphs.path(1), Protocol(num_seeds=3, num_steps=200), [Setting()])
    scales = {name: [[1.0]] for name in ALGORITHMS}
    regret = average_regret("alone", case, scales, horizons=[20, 200], sweep=quiet)
    np.testing.assert_allclose(regret["DAM-TOGD"], regret["OGD"], rtol=1e-9)
    np.testing.assert_allclose(regret["C-DOGD"], regret["OGD"], rtol=1e-9)
    assert (regret["OGD"] > 0).all()


@pytest.mark.long
def test_the_price_of_delay_grows_on_growing_paths():
    """The regret of DAM-TOGD over that of OGD on the same data, at each one's own best rate."""
    ratios = []
    for length in (2, 13):
        case = draw_case(damjax.graphs.path(length), CLAIMS, [Setting()])
        scales = {name: [CLAIMS.rate_constants] for name in ("OGD", "DAM-TOGD")}
        regret = average_regret("paths", case, scales, horizons=[CLAIMS.num_steps], sweep=quiet)
        best = {name: values[0, :, values[0].mean(axis=0).argmin(), 0] for name, values in regret.items()}
        ratios.append(best["DAM-TOGD"] / best["OGD"])
    assert interval(np.log(ratios[1] / ratios[0]))[0] > 0
    assert interval(np.log(ratios[0]))[0] > -0.1
