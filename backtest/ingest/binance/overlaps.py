"""Archives of one kind joined: overlaps must agree, and charges lie as far apart as they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest.arrays import Float, Int
from backtest.ingest.bars import BarColumns, joined
from backtest.ingest.binance.rows import FUNDING, ArchiveRows
from backtest.ingest.funding import Charges
from backtest.ingest.messages import Notices
from backtest.units import instant_text, number_text

JITTER_MS = 60_000
"""How late after the full hour a charge is stamped at most."""


def join_archives(parts: Sequence[ArchiveRows], notices: Notices) -> BarColumns | None:
    """Rows of archives that may overlap; what two of them hold must be equal. None if there is no archive."""
    for part in parts:
        for note in part.notes:
            notices.note(note, part.archive.file)
        for warning in part.warnings:
            notices.warn(warning, part.archive.file)
    if len(parts) < 2:
        return BarColumns(parts[0].times, parts[0].columns) if parts else None
    rows = [BarColumns(part.times, part.columns) for part in parts]
    found = joined(rows, [part.archive.file for part in parts], False, notices, rtol=0)
    if parts[0].kind != "funding":
        _warn_of_lacking(parts, notices)
    return found


def _warn_of_lacking(parts: Sequence[ArchiveRows], notices: Notices) -> None:
    """Rows that one of two files of a time has and the other has not."""
    whole = max(parts, key=lambda part: int(part.times[-1] - part.times[0]))
    for part in parts:
        period = part.archive.period_ms or (int(part.times[0]), int(part.times[-1]) + 1)
        outer = whole.archive.period_ms or (int(whole.times[0]), int(whole.times[-1]) + 1)
        if part is whole or period[0] < outer[0] or period[1] > outer[1]:
            continue
        inside = whole.times[slice(*np.searchsorted(whole.times, period))]
        for here, there, lacking, having in ((inside, part.times, whole, part), (part.times, inside, part, whole)):
            count = int(np.setdiff1d(there, here, assume_unique=True).size)
            if count:
                notices.warn(
                    f"lacks {count:,} bars that {having.archive.file.name} has; they are taken", lacking.archive.file
                )


def merge_charges(parts: Sequence[ArchiveRows], notices: Notices) -> Charges | None:
    """Funding of all archives."""
    found = join_archives(parts, notices)
    if found is None:
        return None
    ms, hours = found.times, found.columns[FUNDING[1]]
    _check_hours(ms, hours, notices)
    late = ms % 3_600_000
    text = "each is charged in the bar that contains its stamp"
    if (late > 0).any():
        near = late[late <= JITTER_MS]
        notices.note(f"{int((near > 0).sum()):,} charges are stamped up to {int(near.max(initial=0))} ms late; {text}")
    if (late > JITTER_MS).any():
        first = instant_text(int(ms[np.argmax(late > JITTER_MS)]))
        notices.warn(f"{int((late > JITTER_MS).sum()):,} charges are not on the full hour, the first {first}; {text}")
    return Charges(ms, found.columns[FUNDING[2]])


def _check_hours(ms: Int, hours: Float, notices: Notices) -> None:
    """Two charges lie as far apart as one of them says."""
    apart = np.round(np.diff(ms) / 60_000) / 60
    odd = np.flatnonzero((apart != hours[1:]) & (apart != hours[:-1]))
    if odd.size:
        at = int(odd[0])
        notices.warn(
            f"{odd.size:,} charges do not lie {FUNDING[1]} apart: missing, doubled or misplaced; first "
            f"{instant_text(int(ms[at]))} and {instant_text(int(ms[at + 1]))}, {number_text(apart[at])} h instead of "
            f"{number_text(hours[at + 1])}"
        )
