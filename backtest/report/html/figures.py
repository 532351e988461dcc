"""The report's pictures: SVG inside the page, in the page's own ink, with a text that says what they show."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backtest.report.labels import own_leverage, subject
from backtest.report.number_format import is_null, percent_text, rate_text, signed_text, times_text
from backtest.report.plots import (
    plot_band,
    plot_curves,
    plot_heatmap,
    plot_leverage,
    plot_policies,
    plot_required_margin,
)
from backtest.report.plots.liquidation_days import plot_days
from backtest.report.plots.policies import by_policy, not_liquidated
from backtest.report.plots.portfolio_band import verdicts
from backtest.report.plots.style import INK
from backtest.report.scenario_selection import curves_by_horizon, horizons, leverages, matching, spread, usual_leverages

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes

    from backtest.report.tables import Grid

MOST_POINTS = 250  # leverages that a curve is drawn through
SVG_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "report", "savefig.dpi": 100}


@dataclass(frozen=True)
class Picture:
    """An inline SVG and its caption."""

    svg: Markup
    caption: str


def pictures(rows: pd.DataFrame, target: float) -> list[Picture]:
    """The plots of one scenario; those over leverage only where leverage is an axis of the run."""
    who = subject(rows.iloc[0]["symbol"], rows.iloc[0]["side"])
    found = []
    if rows["leverage"].notna().any():
        reach, needed = _reach(rows, target)
        rows = _thinned(rows)
        alt = f"Line chart: survival against leverage for {who}, one curve per holding time. {reach}"
        found.append(_picture(plot_leverage(rows), alt, "Survival against leverage, with its interval."))
        alt = f"Heat map: survival of {who} by leverage and holding time. {reach}"
        caption = "Survival by leverage and holding time; left of a line every leverage reached that share."
        found.append(_picture(plot_heatmap(rows), alt, caption))
        alt = (
            f"Line chart: share of entries of {who} that survive on each initial margin rate, by holding time. {needed}"
        )
        caption = "Required margin: the share of entries that needed no more than this initial margin rate to survive."
        found.append(_picture(plot_required_margin(rows), alt, caption))
    alt = f"Line chart: survival of {who} over time since entry, one curve per leverage. {_ends(rows)}"
    caption = "Survival over time (Kaplan–Meier over the horizons of the run), with each horizon's interval."
    found.append(_picture(plot_curves(rows), alt, caption))
    return found


def band_picture(rows: pd.DataFrame) -> Picture:
    """Survival of a portfolio between its verdicts; rows : one scenario under both of them."""
    both = verdicts(rows)
    who = subject(rows.iloc[0]["symbol"], rows.iloc[0]["side"])
    spans = []
    for text in horizons(both):
        at = matching(both, "horizon", text)
        row = matching(at, "leverage", usual_leverages(at)[-1]).iloc[0]
        low, high = (percent_text(float(row[name])) for name in ("survival_low", "survival_high"))
        spans.append(f"{text} {low} to {high}")
    at_top = times_text(usual_leverages(both)[-1])
    alt = (
        f"Band chart: survival against leverage for {who}, from each leg at its worst price to all at the close, one "
        f"band per holding time. At {at_top}: {', '.join(spans)}."
    )
    caption = (
        "Survival between the two verdicts. Line: every leg at its own worst price of a bar at once. Upper edge: all "
        "legs at the close. At this bar length the truth lies between the two."
    )
    return _picture(plot_band(rows), alt, caption)


def days_picture(days: pd.DataFrame, episodes: pd.DataFrame, title: str, table: Grid) -> Picture:
    """Liquidations per day of one scenario; table : its worst episodes in words."""
    worst = "; ".join(f"{row[0].text}, {row[4].text}" for row in table.rows[:3])
    alt = f"Bar chart: liquidations per UTC day of {title}. The worst episodes, with their share of all: {worst}."
    return _picture(plot_days(days, episodes, worst=3), alt, "Liquidations by the UTC day on which they happened.")


def policy_picture(outcomes: pd.DataFrame, horizon: str) -> Picture:
    """Policies compared at one horizon; outcomes : one scenario under every policy, or without that axis."""
    rows = matching(outcomes, "horizon", horizon)
    rows = rows.assign(survival=not_liquidated(rows))
    several = "policy" in rows.columns
    middle = usual_leverages(rows)[len(usual_leverages(rows)) // 2]
    found = []
    for words, curve in by_policy(rows).items():
        row = matching(curve, "leverage", middle).iloc[0]
        numbers = f"{percent_text(float(row['survival']))}, {signed_text(float(row['return_mean']))}"
        found.append(f"{words}: {numbers}" if several else numbers)
    who = subject(rows.iloc[0]["symbol"], rows.iloc[0]["side"])
    alt = (
        f"Two line charts: share of {who} not liquidated, and mean return on margin, against leverage, "
        f"{'one curve per policy, ' if several else ''}held {horizon}. Survival and return at {times_text(middle)}: "
        f"{'; '.join(found)}."
    )
    lead = "Policies compared, held" if several else "Held"
    caption = f"{lead} {horizon}: above, the share that was not liquidated; below, the mean return on margin."
    return _picture(plot_policies(outcomes, horizon=horizon), alt, caption)


def _picture(ax: Axes, alt: str, caption: str) -> Picture:
    import matplotlib
    from markupsafe import Markup, escape

    file = io.StringIO()
    with matplotlib.rc_context(SVG_STYLE):
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    return Picture(Markup(_inline(svg, str(escape(alt)))), caption)


def _inline(svg: str, alt: str) -> str:
    """An SVG document as an element of a page: without prologue, names of its own, ink from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    head, body = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    prefix = f"f{zlib.crc32(svg.encode()):08x}-"
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", body)
    body = re.sub(r' d="[^"]*', lambda path: _short(path[0]), body)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    body = re.sub(r"\n\s*", "\n", body).replace(INK, "currentColor")
    return f'<svg role="img" aria-label="{alt}" {view[0] if view else ""}>{body.strip()}'


def _short(path: str) -> str:
    """Path data to a tenth of a point; a line goes on without its letter, which a curve would need."""
    rounded = re.sub(r"(\.\d)\d+", r"\1", path)
    return rounded if re.search(r"[CQ]", path) else re.sub(r"\s*L ", " ", rounded)


def _reach(rows: pd.DataFrame, target: float) -> tuple[str, str]:
    """Where each horizon's observed survival still is at the target: up to which leverage, and on which margin rate."""
    leverages_met, rates = [], []
    for text, curve in curves_by_horizon(rows).items():
        meets = curve["leverage"][(curve["survival"] >= target).cummin()]
        leverages_met.append(f"{text} up to {times_text(float(meets.iloc[-1]))}" if len(meets) else f"{text} at none")
        rate = percent_text(1 / float(meets.iloc[-1] if len(meets) else curve["leverage"].iloc[0]))
        rates.append(f"{text} {rate}" if len(meets) else f"{text} more than {rate}")
    share = rate_text(target)
    return (
        f"{share} or more of the entries survived {', '.join(leverages_met)}.",
        f"For {share} of the entries this was enough: {', '.join(rates)}.",
    )


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """With as many leverages as a curve needs, the usual ones among them."""
    grid = leverages(rows)
    if len(grid) <= MOST_POINTS:
        return rows
    return rows[rows["leverage"].isin({*spread(grid, MOST_POINTS), *usual_leverages(rows)})]


def _ends(rows: pd.DataFrame) -> str:
    """What was left at the last horizon, for the leverages drawn."""
    last = list(horizons(rows))[-1]
    end = matching(rows, "horizon", last)
    if own_leverage(rows):
        return f"After {last}: {percent_text(float(end.iloc[0]['survival_km']))}."
    shares = [(value, matching(end, "leverage", value).iloc[0]["survival_km"]) for value in usual_leverages(rows)]
    known = [f"{times_text(value)} {percent_text(float(share))}" for value, share in shares if not is_null(share)]
    return f"After {last}: {', '.join(known) or 'nothing known'}."
