"""Funding charges that are missing or doubled are told."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.ingest.funding import Charges, check_charges
from backtest.ingest.messages import Notices
from tests._support.market import HOUR, T0


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        ([0, 8, 16, 24, 32], None),
        ([0, 8, 16, 17, 18, 19], None),  # from every 8 hours to every hour
        ([0, 1, 2, 10, 18], None),
        ([0, 8, 8.001, 16, 24], "1 funding charges seem to be there twice, the first at 2024-01-01T08:00Z and"),
        ([-16, -8], "no funding charge falls between the first and the last bar"),
    ],
)
def test_charges(hours: list[float], text: str | None) -> None:
    notices = Notices()
    ms = np.array([T0 + int(HOUR * hour) for hour in hours])
    check_charges(Charges(ms, np.full(ms.size, 1e-4)), HOUR, (T0, T0 + 39 * HOUR), notices)
    assert [one[: len(text or "")] for one in notices.warnings] == ([text] if text else [])
