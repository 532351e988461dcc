"""Examples worked by hand for the interval of record, docs/intervals.md."""

import math

import pytest
from scipy.special import betainc  # type: ignore[import-untyped, unused-ignore]

from tests.oracles.statistics import cosines, effective_trials, interval, lower_bound


def test_five_years_without_a_liquidation_prove_0_986() -> None:
    # 260 weeks of hourly entries, S = 1: n = 43824/168 = 260.86, f = 0, low = 0.025^(1/260.86).
    low, high, few = interval([168] * 260, [168] * 260, 168, 168, 43824, 24)
    assert low == pytest.approx(0.025 ** (168 / 43824))
    assert low == pytest.approx(0.986, abs=5e-4)
    assert (high, few) == (1.0, False)
    # At one hour a trial still lasts two days: 43824/48 = 913 of them.
    assert interval([168] * 260, [168] * 260, 1, 168, 43824, 24)[0] == pytest.approx(0.025 ** (48 / 43824))


def test_interval_corner_cases() -> None:
    # Nobody survives: the mirror image.
    low, high, _ = interval([168] * 260, [0] * 260, 168, 168, 43824, 24)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (168 / 43824))
    # Nine blocks: two trials, however many entries; with a horizon of half the span or more, span/horizon.
    low, high, few = interval([24] * 9, [24] * 9, 24, 24, 240, 24)
    assert low == pytest.approx(0.025 ** (1 / 2))
    assert (high, few) == (1.0, True)
    assert interval([24] * 9, [24] * 9, 200, 24, 240, 24)[0] == pytest.approx(0.025 ** (200 / 240))
    # 78 weeks are not few, 77 are; blocks without entries count between the first and the last, and not outside.
    assert interval([0, 1, *[0] * 75, 1, 0], [0] * 79, 1, 7, 999, 1)[2] is True
    assert interval([0, 1, *[0] * 76, 1, 0], [0] * 80, 1, 7, 999, 1)[2] is False
    assert interval([], [], 1, 1, 99, 1) == (None, None, True)
    with pytest.raises(ValueError, match="confidence"):
        interval([1] * 10, [1] * 10, 1, 1, 99, 1, 0.97)


def test_so_many_cosines() -> None:
    # 0.2·weeks^(2/3): 125·3³ = 3375 needs 58.1 weeks, 125·4³ = 8000 needs 89.4, 125·5³ = 15625 needs 125 exactly.
    assert [cosines(300, w) for w in (10, 89, 90, 124, 125)] == [3, 3, 4, 4, 5]
    assert cosines(13, 400) == 4  # at most a third of the blocks


def test_effective_trials_by_hand() -> None:
    # Twelve weeks, six with 10 and six with 6 survivors of 10: S = 0.8, e = +2 six times, −2 six times; q = 3.
    # Σ e_b·cos(πj(b − ½)/12): for j = 2 the two halves are mirror images of sign −1, their sum is 0.
    # j odd: 4·Σ_{b ≤ 6} cos(πj(b − ½)/12) = 4·sin(πj/2)/(2·sin(πj/24)).
    one, three = (2 * math.sin(math.pi * j / 2) / math.sin(math.pi * j / 24) for j in (1, 3))
    variance = (2 * one**2 + 2 * three**2) / 3 / 120**2
    t, z = 3.182446305, 1.959963985  # 0.975 of Student's with 3 degrees of freedom, and of the normal
    n, few = effective_trials([10] * 12, [10] * 6 + [6] * 6, 1, 7, 10_000, 1, confidence=0.95)
    assert n == pytest.approx(max(2.0, 0.16 / (variance * (t / z) ** 2)))
    assert few
    # Alternating: e = +2, −2, …: 2·Σ (−1)^(b+1)·cos(πj(b − ½)/12) is 0 for even j and 2/cos(πj/24)·½·2 for odd j.
    one, three = (2 / math.cos(math.pi * j / 24) for j in (1, 3))
    variance = (2 * one**2 + 2 * three**2) / 3 / 120**2
    n_hat = 0.16 / (variance * (t / z) ** 2)
    n, _ = effective_trials([10] * 12, [10, 6] * 6, 1, 7, 10_000, 1, confidence=0.95)
    assert n == pytest.approx(min(120, n_hat))
    # The ceiling: 84 bars in trials of two days are 42; k = min(n̂, 84)·0.2 of 40 episodes seen lift it.
    n, _ = effective_trials([10] * 12, [10, 6] * 6, 1, 7, 84, 1, confidence=0.95)
    assert n == pytest.approx(min(120, n_hat, 42 * min(2, 1 + min(n_hat, 84) * 0.2 / 40)))


def test_bounds_are_those_of_the_trials_that_they_imply() -> None:
    # x = 0.8 in 50 trials: CP solves I_CP(40, 11) = 0.025; f = 10, n′ = 50·(11/(1 + (1 − CP)·50))^(10/11).
    low = lower_bound(0.8, 50, 0.025)
    plain = 0.6628168
    assert betainc(40, 11, plain) == pytest.approx(0.025, rel=1e-4)
    trials = 50 * (11 / (1 + (1 - plain) * 50)) ** (10 / 11)
    assert betainc(0.8 * trials, 0.2 * trials + 1, low) == pytest.approx(0.025, rel=1e-4)
    assert low < plain
    assert lower_bound(0.0, 50, 0.025) == 0.0
    assert lower_bound(1.0, 50, 0.025) == pytest.approx(0.025 ** (1 / 50))
