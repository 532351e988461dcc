"""Examples worked by hand for the interval of record, semantics.md §9."""

import pytest
from scipy.special import betainc  # type: ignore[import-untyped, unused-ignore]

from tests.oracles.statistics import effective_trials, interval


def test_five_years_without_a_liquidation_prove_0_986() -> None:
    # 260 weeks of hourly entries, S = 1: n_eff = n_max = 43824/168 = 260.86, low = 0.025^(1/260.86).
    low, high, few = interval([168] * 260, [168] * 260, 168, 168, 43824)
    assert low == pytest.approx(0.025 ** (168 / 43824))
    assert low == pytest.approx(0.986, abs=5e-4)
    assert (high, few) == (1.0, False)


def test_interval_corner_cases() -> None:
    # Nobody survives: the mirror image.
    low, high, _ = interval([168] * 260, [0] * 260, 168, 168, 43824)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (168 / 43824))
    # Nine blocks: two trials, however many entries; with a horizon of half the span or more, span/horizon.
    low, high, few = interval([24] * 9, [24] * 9, 24, 24, 240)
    assert low == pytest.approx(0.025 ** (1 / 2))
    assert (high, few) == (1.0, True)
    low, high, few = interval([24] * 9, [24] * 9, 200, 24, 240)
    assert low == pytest.approx(0.025 ** (200 / 240))
    assert (high, few) == (1.0, True)
    # Blocks without entries count between the first and the last, and not outside.
    assert interval([0, 1, *[0] * 7, 1, 0], [0] * 11, 1, 1, 99)[2] is True
    assert interval([1, *[0] * 8, 1], [1, *[0] * 8, 1], 1, 1, 99)[2] is False
    assert interval([], [], 1, 1, 99) == (None, None, True)
    # Equal blocks: no variance, se = 0, n_max.
    assert effective_trials([2] * 10, [1] * 10, 1, 10, 100, confidence=0.95) == (20.0, False)
    with pytest.raises(ValueError, match="confidence"):
        interval([1] * 10, [1] * 10, 1, 1, 99, 0.97)


def test_effective_trials_by_hand() -> None:
    # Ten blocks of 10, five with 10 and five with 6 survivors: S = 0.8, e = +2 or −2, γ_0 = 4.
    entries, survived = [10] * 10, [10] * 5 + [6] * 5
    # Horizon 1, block 10: M = max(⌈1⌉, ⌈0.2⌉) = 1, Ω = 4, se = √40/100 · c(0.1)/1.959964,
    # c(0.1) = 1.96 + 0.29694 + 0.00416 − 0.0005324 = 2.2605676, se² = 0.004·1.3302677, n = 0.16/se².
    n_eff, few = effective_trials(entries, survived, 1, 10, 1000, confidence=0.95)
    assert n_eff == pytest.approx(0.16 / (0.004 * (2.2605676 / 1.959964) ** 2), rel=1e-6)
    assert not few
    # Horizon 10: M = 2, γ_1 = (8·4 − 4)/10 = 2.8, Ω = 4 + 2·½·2.8 = 6.8, c(0.2) = 2.5662608.
    n_eff, _ = effective_trials(entries, survived, 10, 10, 1000, confidence=0.95)
    assert n_eff == pytest.approx(0.16 / (0.0068 * (2.5662608 / 1.959964) ** 2), rel=1e-6)
    # At 90 %: c(0.1) = 1.6449 + 0.21859 + 0.003142 − 0.0003427 = 1.8662893, z = 1.6448536.
    n_eff, _ = effective_trials(entries, survived, 1, 10, 1000, confidence=0.90)
    assert n_eff == pytest.approx(0.16 / (0.004 * (1.8662893 / 1.6448536) ** 2), rel=1e-6)
    # The bounds: never above span/horizon, never below 2 while that allows it.
    assert effective_trials(entries, survived, 10, 10, 100, confidence=0.95)[0] == 10.0
    # All of one half survive, none of the other: e = ±50, T = 10, M = 5 (2·25/10), γ_j = 250·(10 − 3·j) for
    # j ≤ 5, so Ω = 2500 + 2·(0.8·1750 + 0.6·1000 + 0.4·250 − 0.2·500) = 6500; c(0.5) = 3.48215;
    # se² = 10·6500/10⁶ · (3.48215/1.959964)² = 0.2052, S(1 − S)/se² = 1.22: lifted to 2.
    assert effective_trials([100] * 10, [100] * 5 + [0] * 5, 25, 10, 10_000, confidence=0.95)[0] == 2.0


def test_clopper_pearson_bounds_leave_the_tails() -> None:
    # Real k: the low end solves I_low(k, n − k + 1) = 0.025, the high end I_high(k + 1, n − k) = 0.975.
    n, _ = effective_trials([10] * 10, [10] * 5 + [6] * 5, 1, 10, 1000, confidence=0.95)
    low, high, _ = interval([10] * 10, [10] * 5 + [6] * 5, 1, 10, 1000)
    assert low is not None
    assert high is not None
    assert low < 0.8 < high
    assert betainc(0.8 * n, 0.2 * n + 1, low) == pytest.approx(0.025)
    assert betainc(0.8 * n + 1, 0.2 * n, high) == pytest.approx(0.975)
