"""The report is one file that says the answer first and needs nothing beside it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backtest.config.policies import Policy
from backtest.errors import ConfigError
from backtest.report.html import write_report
from backtest.report.html.assumptions import assumptions
from backtest.stats.leverage_choice import choose
from tests._support.run_tables import outcomes_table, portfolio_table, survival_table
from tests.report.test_labels import LABELS

CHOSEN = ("leverage", "survival", "survival_low", "survival_high")
ENDS = ("survived", "liquidated", "stopped")
POLICIES = [
    {},
    {"confirm_bars": 3},
    {"ladder": {"fraction": 0.2, "above": 100000.0}},
    {"ladder": {"step": 1}, "stop_loss": {"distance": 0.5, "of": "margin", "on": "last", "slippage": 0.001}},
    {"top_up": {"target_ratio": 0.4, "reserve": 1.0, "max_times": 2, "delay_bars": 1}},
    {"deleverage": {"fraction": 0.5}, "take_profit": {"distance": 0.1}},
    {"scale_in": {"distance": [0.05, 0.1], "multiple": [1.0, 2.0]}},
]
VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "rect", "image", "line"}
INFO = {
    "config": {
        "data": {"trigger": None, "max_gap": "6h"},
        "entries": {"every": "1h"},
        "sweep": {"maintenance": [0.004, "binance-usdm"]},
        "margin": {
            "contract": "linear",
            "basis": "mark",
            "close_reserve": 0.0005,
            "fees_from_margin": True,
            "margin_call_ratio": 0.8,
        },
        "statistics": {"confidence": 0.95, "block": "7d"},
    },
    "interval_ms": 3_600_000,
    "verdicts": 1_234_567,
    "versions": {"liquidation-backtest": "0.1.0", "numpy": "2.0.0"},
    "fingerprint": {"BTCUSDT": "c0ffee"},
    "coverage": [
        {
            "symbol": "BTCUSDT",
            "first": "2020-01-01T00:00Z",
            "last": "2024-12-31T23:00Z",
            "bars": 43848,
            "missing_bars": 12,
            "longest_gap_bars": 7,
            "trigger": "mark",
            "entries": 43836,
            "excluded": {"8h": 0, "7d": 1720},
        }
    ],
}


class Balance(HTMLParser):
    """Tags that are open, and what was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.labels: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag == "svg":
            self.labels.append(dict(attrs).get("aria-label") or "")
        if tag not in {"meta", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def choices_of(table: pd.DataFrame, target: float = 0.95, attainable: float = 0.986) -> pd.DataFrame:
    """As `choose` does it: the largest leverage that meets the target with all lower ones."""
    axes = [*table.columns[: table.columns.get_loc("leverage")]]
    rows = []
    for key, part in table.groupby(axes, sort=False, dropna=False):
        ordered = part.sort_values("leverage")
        count = int((ordered["survival_low"] >= target).cummin().sum())
        found = ordered.iloc[count - 1] if count else dict.fromkeys(ordered.columns, np.nan)
        few = bool(part["few_blocks"].any())
        rows.append(
            (*key, *(found[n] for n in ("leverage", "survival", "survival_low", "survival_high")), attainable, few)
        )
    bounds = ["survival", "survival_low", "survival_high", "attainable", "few_blocks"]
    choices = pd.DataFrame(rows, columns=[*axes, "leverage", *bounds])
    choices.attrs = {"survival": target, "confidence": 0.95}
    return choices


def written(tmp_path, table, choices=None, info=INFO) -> str:
    path = write_report(table, info, choices_of(table) if choices is None else choices, tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def balanced(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def words(page: str) -> str:
    body = re.sub(r"<svg.*?</svg>|<style.*?</style>|<script.*?</script>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body)).replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_is_whole_and_refers_to_nothing_outside(tmp_path):
    page = written(tmp_path, survival_table())
    seen = balanced(page)
    assert len(page.encode()) < 3_000_000
    assert not re.search(r"https?://|\bsrc=|@import|<link", page)
    assert re.findall(r"<script[^>]*>", page) == ['<script type="application/json" id="survival">', "<script>"]
    assert all(target.startswith(("#", "data:")) for target in re.findall(r'href="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert seen.seen.count("svg") == 9
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.labels.pop(0) == "Line chart: survival against leverage"  # its script says the rest
    assert all(re.search("surviv|lived", label) and "BTCUSDT" in label for label in seen.labels)
    assert "#757575" not in page


def test_the_answer_comes_first_in_plain_words(tmp_path):
    table = survival_table()
    choices = choices_of(table)
    text = words(written(tmp_path, table, choices))
    row = choices.query("side == 'long' and horizon == '1d'").iloc[0]
    sentence = f"Long BTCUSDT held 1d: up to {row['leverage']:.0f}× would have survived with at least 95 %."
    assert 0 < text.index(sentence) < text.index("What was assumed")
    assert "1,234,567 positions judged" in text
    assert "Short BTCUSDT held 7d" in text


def test_no_leverage_and_a_history_too_short_are_said(tmp_path):
    table = survival_table()
    text = words(written(tmp_path, table, choices_of(table, target=0.99, attainable=0.986)))
    assert "Long BTCUSDT held 8h: no leverage of the grid reaches 99 %;" in text
    assert "this history can show at most 98.6 %" in text
    (tmp_path / "report.html").unlink()
    text = words(written(tmp_path, table, choices_of(table, target=0.99, attainable=0.999)))
    assert "at 1×, the lowest, 99.97 % survived" in text
    assert "This history could show up to 99.9 %." in text


def test_assumptions_coverage_and_origin_are_in_it(tmp_path):
    text = words(written(tmp_path, survival_table()))
    for sentence in (
        "the low for a long, the high for a short",
        "worst mark price within each bar",
        "A closing fee of 0.05 % is kept inside the maintenance margin of a rate or tier table.",
        "A margin call is counted where maintenance reaches 80 % of the margin balance.",
        "a gap longer than 6h are left out",
        "43,848",
        "7 (7h)",
        "7d: 1,720",
        "Fingerprint of BTCUSDT: c0ffee",
        "numpy 2.0.0",
        "backtest run run.toml --out runs/again",
        "Rejected is not liquidated.",
        "Overlapping entries are not independent.",
    ):
        assert sentence in text


def test_a_hostile_symbol_is_escaped_everywhere(tmp_path):
    name = "<script>alert('x')</script>&\"$--%"
    page = written(tmp_path, survival_table(name))
    balanced(page)
    assert page.count("<script") == 2
    assert "&lt;script&gt;" in page


def test_few_blocks_null_survival_and_missing_choices_are_shown(tmp_path):
    table = survival_table()
    table["few_blocks"] = table["horizon"] == "7d"
    page = written(tmp_path, table, choices_of(table).iloc[:0])
    balanced(page)
    text = words(page)
    assert "No choice of leverage was made for this run." in text
    assert "* Few blocks." in text
    assert "all rejected" in text


def test_trades_with_their_own_leverage_are_reported(tmp_path):
    table = survival_table().query("leverage == 10").assign(leverage=np.nan)
    choices = choose(table, {"BTCUSDT": 40_000}, 3_600_000)
    text = words(written(tmp_path, table, choices))
    assert "Which trades survived?" in text
    assert "% survived at the leverage each trade had (95 % interval" in text
    assert "Survival of every scenario" in text
    assert "largest leverage" not in text.lower()


def test_what_the_run_did_not_record_is_not_invented(tmp_path):
    page = written(tmp_path, survival_table(), info={})
    balanced(page)
    assert "The run recorded no coverage." in page


def test_many_symbols_stay_below_three_megabytes(tmp_path):
    table = pd.concat([survival_table(f"S{k}USDT") for k in range(8)], ignore_index=True)
    page = written(tmp_path, table)
    assert len(page.encode()) < 3_000_000
    assert "Not pictured" in page
    assert "S7USDT short" in page


def test_the_same_run_gives_the_same_bytes(tmp_path):
    table = survival_table()
    pages = [write_report(table, INFO, choices_of(table), tmp_path / name).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_a_report_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    table = survival_table()
    path = write_report(table, INFO, choices_of(table), tmp_path / "report.html")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(table, INFO, choices_of(table), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_choices_without_their_target_are_refused(tmp_path):
    table = survival_table()
    choices = choices_of(table)
    choices.attrs = {}
    with pytest.raises(ConfigError, match=r"choices.attrs must hold 'survival' and 'confidence'"):
        write_report(table, INFO, choices, tmp_path / "report.html")


def test_a_portfolio_leads_with_worst_and_shows_the_band(tmp_path):
    table = portfolio_table()
    choices = choose(table, {table["symbol"].iloc[0]: 40_000}, 3_600_000)
    page = written(tmp_path, table, choices)
    text = words(page)
    worst, close = choices.query("horizon == '1d'")["leverage"]
    assert worst < close
    assert "How much leverage could a portfolio have carried" in text
    sentence = f"Portfolio BTCUSDT 60 % long, ETHUSDT 40 % short held 1d: up to {worst:g}× would have survived"
    assert sentence in text
    assert f"Judged at the closes alone: up to {close:g}×." in text
    assert "At this bar length the truth lies between the two." in text
    assert "under the verdict “worst”" in text
    assert balanced(page).labels[1].startswith("Band chart: survival against leverage for portfolio BTCUSDT 60 % long")


def test_outcomes_are_tabled_and_pictured_per_policy(tmp_path):
    table, outcomes = outcomes_table()
    path = write_report(table, INFO, choices_of(table), tmp_path / "report.html", outcomes)
    page = path.read_text(encoding="utf-8")
    assert "What came of BTCUSDT long, held 7d" in words(page)
    part = page[page.index("What came of") :].replace("&#39;", "'")
    heads = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)", part[: part.index("</thead>")])
    assert heads == ["leverage", "policy", *ENDS, "mean return", "cost of policy", "fund's loss"]
    row = re.search(r"<th[^>]*>2×</th><th[^>]*>stop-loss 5 %</th>(.*)", part)
    assert row
    cells = re.findall(r"<td>([^<]*)", row[1])
    assert cells == ["70.0 %", "10.0 %", "20.0 %", "+3.00 %", "−1.00 %", "0 %"]
    label = balanced(page).labels[-1]
    assert "one curve per policy, held 7d" in label
    assert "none: 80.0 %, +2.00 %; stop-loss 5 %: 90.0 %, +3.00 %" in label


def test_outcomes_at_a_horizon_with_enough_blocks(tmp_path):
    table, outcomes = outcomes_table()
    table["few_blocks"] = table["horizon"] == "7d"
    path = write_report(table, INFO, choices_of(table), tmp_path / "report.html", outcomes)
    assert "What came of BTCUSDT long, held 1d" in words(path.read_text(encoding="utf-8"))


def said(**parts: dict[str, object]) -> str:
    """The assumptions of a configuration that differs from `INFO` in these keys."""
    config = {name: {**INFO["config"].get(name, {}), **values} for name, values in {**INFO["config"], **parts}.items()}
    return " ".join(assumptions({**INFO, "config": config}))


def test_isolated_margin_is_not_said_of_portfolios():
    assert "Isolated margin, linear contracts." in said()
    text = said(sweep={"portfolio": [{"A": 0.5, "B": -0.5}], "size": [{"margin": 90.0}]})
    assert "Isolated" not in text
    assert "Cross margin: one wallet carries all legs" in text
    assert "The opening fee comes out of the wallet." in text
    assert "two verdicts" in text


def test_the_cut_to_a_common_span_is_said():
    cut = {"symbol": "A=0.5 B=-0.5", "trigger": "mark", "cut": {"A": [0, 1], "B": [12, 0]}}
    text = " ".join(assumptions({**INFO, "coverage": [cut]}))
    assert "The portfolio A 50 % long, B 50 % short runs over the span that all its symbols have" in text
    assert "left out: 1 bar of A after it, 12 bars of B before it." in text


def test_a_named_rule_brings_its_contract():
    text = said(sweep={"maintenance": ["deribit-inverse"]})
    assert "Isolated margin, inverse contracts." in text
    assert "margin and profit are in coin and follow 1/price" in text
    assert "kept inside" not in text  # the closing fee of [margin] is not the rule's


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            {"margin": {"contract": "spot", "liquidation_ltv": 0.9, "margin_call_ltv": 0.8, "borrow_rate": 1e-5}},
            "The debt grows by 0.001 % at every full hour, compounding; no funding is paid.",
        ),
        ({"margin": {"expiry": "2024-06-28"}}, "open positions are closed at the last close before it"),
        (
            {"margin": {"liquidation_fee": 0.005, "surplus": "fund"}},
            "costs a fee of 0.5 % of the notional at the fill;",
        ),
        ({"margin": {"surplus": "fund"}}, "goes to the insurance fund"),
        (
            {"margin": {"maintenance_scale": {"window": "7d", "reference": 0.5, "cap": 3.0}}},
            "volatility of the 7d before the bar, per year, over 50 %, at least × 1 and at most × 3.",
        ),
        (
            {"sweep": {"weight": [{"target": 0.6, "window": "30d", "cap": 2.0}]}},
            "times 60 % over the volatility of the 30d up to it, per year, at most × 2",
        ),
        ({"sweep": {"size": [{"margin": 90.0, "extra": 40.0}]}}, "that balance stands behind the position"),
        ({"entries": {"file": "/home/me/trades.csv"}}, "Positions are the trades of trades.csv:"),
        ({"sweep": {"policy": [{}]}}, "Policy “none”: the position is held until the horizon or its liquidation."),
        (
            {"sweep": {"policy": [{"ladder": {"step": 2}, "confirm_bars": 3}]}},
            "liquidation needs 3 closes in a row beyond the level, a bar's extreme is not enough; at the liquidation "
            "level the position is cut by 2 tiers; in the lowest ones everything goes.",
        ),
        (
            {"sweep": {"policy": [{"top_up": {"target_ratio": 0.4, "reserve": 1.0, "delay_bars": 1}}]}},
            "answered at the close 1 bar later, once, by adding margin until maintenance is 40 %",
        ),
    ],
)
def test_every_term_of_a_run_is_said(parts, sentence):
    assert sentence in said(**parts)


def test_every_policy_has_a_sentence_of_its_own():
    items = [Policy.model_validate(item) for item in POLICIES]
    text = said(sweep={"policy": POLICIES})
    assert [policy.label for policy in items] == list(LABELS)
    assert all(f"Policy “{words}”: " in text for words in LABELS.values())


def test_sizes_of_inverse_contracts_are_in_coin(tmp_path):
    table = survival_table(size="margin=90 extra=40").query("maintenance == '0.004'")
    info = {**INFO, "config": {"margin": {"contract": "inverse"}, "sweep": {"maintenance": [0.004]}}}
    assert "· margin 90 coin + 40 coin of wallet" in words(written(tmp_path, table, info=info))


def test_dated_futures_do_not_speak_of_funding(tmp_path):
    info = {**INFO, "config": {"margin": {"expiry": "2024-06-28"}}}
    page = words(written(tmp_path, survival_table().query("funding_scale == 1"), info=info))
    assert "funding as charged" not in page[: page.index("The largest leverage")]
