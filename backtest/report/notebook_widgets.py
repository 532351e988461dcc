"""A run in a notebook: as the value of a cell, and as pickers and sliders to move through it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from backtest.errors import BacktestError, ConfigError
from backtest.report.html.summary import Answer, answers
from backtest.report.labels import OWN_LEVERAGE, own_leverage, scenario_words
from backtest.report.number_format import percent_text, rate_text, times_text
from backtest.report.plots import plot_curves, plot_heatmap, plot_leverage
from backtest.report.plots.style import INK, OKABE_ITO, encode_png
from backtest.report.scenario_selection import horizons, leverages, matching, select, select_part, varying
from backtest.report.tables import MOST_ROWS, Cell, Grid, choices_table, survival_table

if TYPE_CHECKING:
    import pandas as pd
    from ipywidgets import HTML, Box, Dropdown, FloatSlider, Image, SelectionSlider

CHOSEN = OKABE_ITO[4]
INSTALL = "pip install 'liquidation-backtest[notebook]'"

Choose = Callable[["pd.DataFrame", float, str], "pd.DataFrame"]
"""Rows of one scenario, the survival target and a horizon → the choice, as of `stats.leverage_choice.choose`."""


def result_html(title: str, table: pd.DataFrame, choices: pd.DataFrame) -> str:
    """A run as a notebook shows it: the choices, and survival of the first scenario as a picture and as a table.

    Parameters
    ----------
    title : str
        The run in a line.
    table : DataFrame
        The columns of ``survival.parquet``.
    choices : DataFrame
        As `Result.choose` returns it.
    """
    target, confidence = float(choices.attrs["survival"]), rate_text(float(choices.attrs["confidence"]))
    rows = select(table)
    first, own = escape(scenario_words(rows)), own_leverage(rows)
    ax = plot_curves(rows) if rows["leverage"].isna().all() else plot_heatmap(rows)
    heading = f"Largest leverage whose survival is at least {rate_text(target)} with {confidence} confidence"
    if own:
        heading = f"Survival of the trades at the leverage each had; below it its {confidence} interval"
    survival = survival_table(rows, target)
    few = ". * Few blocks: it says little" if survival.few else ""
    png = b64encode(encode_png(ax)).decode()
    parts = [
        f"<p><b>{escape(title)}</b></p>",
        f"<p>{heading}</p>{_table(choices_table(choices).first(MOST_ROWS))}",
        f'<img alt="Survival of {first}" style="width:100%;max-width:44rem" src="data:image/png;base64,{png}">',
        f"<p>Survival of {first}, below it the {confidence} interval{few}</p>",
        _table(survival),
    ]
    return "\n".join(parts)


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in grid.head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in grid.rows)
    more = f"<p>{grid.left_out:,} more scenarios: result.choose() has them all.</p>" if grid.left_out else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(cell: Cell) -> str:
    small = f"<br><small>{escape(cell.small)}{cell.mark}</small>" if cell.small else cell.mark
    return f"<td>{escape(cell.text)}{small}</td>"


@dataclass(frozen=True)
class Explorer:
    """What `Result.explore` shows; the value of a cell displays it, and its widgets can be read and set.

    Attributes
    ----------
    pickers : dict of str to Dropdown
        One per axis of the run with several values; ``.label = "short"`` picks one.
    horizon, leverage : SelectionSlider
        Those of the run; ``.value = "7d"``. There is no leverage to set where trades have their own.
    target : FloatSlider
        Survival that the choice aims at.
    answer : HTML
        Survival at the leverage with its interval, and the choice.
    curve, heatmap : Image
        PNG.
    box : Box
        All of it.
    """

    pickers: dict[str, Dropdown]
    horizon: SelectionSlider
    leverage: SelectionSlider
    target: FloatSlider
    answer: HTML
    curve: Image
    heatmap: Image
    box: Box

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        bundle: dict[str, object] = self.box._repr_mimebundle_()
        return bundle


def explore(
    table: pd.DataFrame, choose: Choose, *, survival: float, horizon: str | None, confidence: float
) -> Explorer:
    """Widgets over a run's table.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    choose : callable
        As `Choose`.
    survival : float
        Target to begin with, within (0, 1).
    horizon : str, optional
        Horizon to begin with, matched by duration; default: the shortest.
    confidence : float
        Level of the bounds in the table.

    Raises
    ------
    ConfigError
        ipywidgets is not installed, the target is none, or the horizon not of the run.
    """
    try:
        import ipywidgets as widgets
    except ImportError:
        raise ConfigError(f"explore() needs ipywidgets, which is not installed: {INSTALL}") from None
    if not 0 < survival < 1:
        raise ConfigError(f"survival must lie between 0 and 1, such as 0.95; got {survival:g}")
    start = next(iter(horizons(table, horizon)))
    own = bool(table["leverage"].isna().all())
    grid = [(OWN_LEVERAGE, 0.0)] if own else [(times_text(value), value) for value in leverages(table)]
    wide = widgets.Layout(width="100%", max_width="46rem")
    named = {"description_width": "7rem"}
    pickers = {
        axis: widgets.Dropdown(description=axis.replace("_", " "), options=values, style=named, layout=wide)
        for axis, values in varying(table).items()
    }
    held = widgets.SelectionSlider(
        description="held for", options=list(horizons(table)), value=start, style=named, layout=wide
    )
    leverage = widgets.SelectionSlider(description="leverage", options=grid, disabled=own, style=named, layout=wide)
    target = widgets.FloatSlider(
        description="survival target",
        value=survival,
        min=min(0.5, survival),
        max=max(0.999, survival),
        step=0.001,
        readout_format=".1%",
        style=named,
        layout=wide,
    )
    answer = widgets.HTML()
    picture = widgets.Layout(flex="1 1 24rem", min_width="0", max_width="44rem")
    curve, heatmap = (widgets.Image(format="png", layout=picture) for _ in range(2))
    pictures = widgets.HBox([curve, heatmap], layout=widgets.Layout(flex_flow="row wrap"))
    box = widgets.VBox([*pickers.values(), held, leverage, target, answer, pictures])
    shown = Explorer(pickers, held, leverage, target, answer, curve, heatmap, box)

    def update(_: object = None) -> None:
        _show(shown, table, choose, confidence)

    rows = _picked(shown, table)
    chosen = choose(rows, survival, start)["leverage"].iloc[0]
    if not own and chosen > 0:
        leverage.value = float(chosen)
    update()
    for widget in (*pickers.values(), held, leverage, target):
        widget.observe(update, names="value")
    return shown


def _picked(shown: Explorer, table: pd.DataFrame) -> pd.DataFrame:
    """Every horizon and leverage of the scenario picked."""
    rows = table
    for picker in shown.pickers.values():
        rows = select_part(rows, picker.value)
    return rows


def _show(shown: Explorer, table: pd.DataFrame, choose: Choose, confidence: float) -> None:
    """Update words and pictures to the values of the widgets; an error is shown as text."""
    horizon, target = str(shown.horizon.value), float(shown.target.value)
    leverage = None if shown.leverage.disabled else float(shown.leverage.value)
    try:
        rows = _picked(shown, table)
        if rows.empty:
            raise ConfigError("the run does not hold this combination; pick another value")
        choice = choose(rows, target, horizon)
        (sentence,) = answers(rows, choice, target, confidence, 1)
        shown.answer.value = _words(rows, horizon, leverage, choice, sentence, confidence)
        if leverage is None:
            shown.curve.value = encode_png(plot_curves(rows, horizon=horizon))
            shown.heatmap.layout.display = "none"
        else:
            chosen = float(choice["leverage"].iloc[0])
            shown.curve.value = _curve(rows, horizon, leverage, target, chosen)
            shown.heatmap.value = _heatmap(rows, horizon, leverage)
    except BacktestError as error:
        shown.answer.value = escape(str(error))
        shown.curve.value = shown.heatmap.value = b""


def _words(
    rows: pd.DataFrame,
    horizon: str,
    leverage: float | None,
    choice: pd.DataFrame,
    sentence: Answer,
    confidence: float,
) -> str:
    """HTML: the scenario, survival at the leverage with its interval, the choice and what one step more costs."""
    lines = [f"<b>{escape(scenario_words(rows))}</b>"]
    if leverage is not None:
        at = matching(matching(rows, "horizon", horizon), "leverage", leverage).iloc[0]
        lines.append(
            f"At {times_text(leverage)}, held {horizon}: <b>{percent_text(float(at['survival']))}</b> survived"
        )
        if at["entries"]:
            low, high = (percent_text(float(at[name])) for name in ("survival_low", "survival_high"))
            lines[-1] += f" ({rate_text(confidence)} interval {low.removesuffix(' %')} to {high}): "
            lines[-1] += f"{at['liquidations']:,} of {at['entries']:,} entries were liquidated."
        else:
            lines[-1] += ": no position could be opened, or no window fits into the history."
        if at["entries"] and at["rejected"]:
            lines[-1] += f" {at['rejected']:,} more could not be opened."
    lines.append(escape(f"{sentence.lead} {sentence.claim} {sentence.rest}"))
    step = choice.iloc[0]
    if step["next_leverage"] > 0:
        survived, low = (percent_text(float(step[name])) for name in ("next_survival", "next_survival_low"))
        lines.append(f"One step more, {times_text(float(step['next_leverage']))}: {survived} survived, at least {low}.")
    return "<br>".join(lines)


def _curve(rows: pd.DataFrame, horizon: str, leverage: float, target: float, chosen: float) -> bytes:
    """Survival against leverage at the horizon; the target, the leverage picked and the one chosen."""
    ax = plot_leverage(rows, horizon=horizon)
    at = matching(matching(rows, "horizon", horizon), "leverage", leverage).iloc[0]
    ax.axhline(target, color=INK, ls=(0, (2, 2)), lw=1, label="target")
    ax.vlines(leverage, at["survival_low"], at["survival_high"], color="black", lw=1.2, zorder=5)
    ax.plot(leverage, at["survival"], "o", color="black", ms=6, zorder=5, label=f"picked: {times_text(leverage)}")
    if chosen > 0:
        ax.axvline(chosen, color=CHOSEN, lw=1.2, label=f"chosen: {times_text(chosen)}")
    before = ax.get_legend()
    handles = [*(before.legend_handles if before else ()), *ax.get_legend_handles_labels()[0]]
    ax.legend(handles=handles, loc="lower left", labelcolor=INK, facecolor="white", edgecolor="none", framealpha=0.85)
    return encode_png(ax)


def _heatmap(rows: pd.DataFrame, horizon: str, leverage: float) -> bytes:
    """Survival over leverage and horizon, a ring at the values of the sliders."""
    ax = plot_heatmap(rows)
    row = list(horizons(rows)).index(horizon)
    ax.plot(leverage, row, "o", ms=11, mfc="none", mec="white", mew=3.5, zorder=6)
    ax.plot(leverage, row, "o", ms=11, mfc="none", mec="black", mew=1.5, zorder=6)
    return encode_png(ax)
