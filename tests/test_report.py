"""The report is one file that says the answer first and needs nothing beside it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from backtest.errors import ConfigError
from backtest.report import write_report
from tests.test_plots import survival_table

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
        if tag not in {"meta"}:
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
        rows.append((*key, *(found[n] for n in ("leverage", "survival", "survival_low")), attainable))
    choices = pd.DataFrame(rows, columns=[*axes, "leverage", "survival", "survival_low", "attainable"])
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
    body = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body)).replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_is_whole_and_refers_to_nothing_outside(tmp_path):
    page = written(tmp_path, survival_table())
    seen = balanced(page)
    assert len(page.encode()) < 3_000_000
    assert not re.search(r"https?://|\bsrc=|@import|<link|<script", page)
    assert all(target.startswith(("#", "data:")) for target in re.findall(r'href="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert seen.seen.count("svg") == 6
    assert len(seen.ids) == len(set(seen.ids))
    assert all("survival" in label and "BTCUSDT" in label for label in seen.labels)
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
        "A closing fee of 0.05 % is kept inside the maintenance margin.",
        "A margin call is counted where maintenance reaches 80 % of the margin balance.",
        "a gap longer than 6h are left out",
        "43,848",
        "7 (7h)",
        "7d: 1,720",
        "Fingerprint of BTCUSDT: c0ffee",
        "numpy 2.0.0",
        "backtest run CONFIG",
        "Rejected is not liquidated.",
        "Overlapping entries are not independent.",
    ):
        assert sentence in text


def test_a_hostile_symbol_is_escaped_everywhere(tmp_path):
    name = "<script>alert('x')</script>&\"$--%"
    page = written(tmp_path, survival_table(name))
    balanced(page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_few_blocks_null_survival_and_missing_choices_are_shown(tmp_path):
    table = survival_table()
    table["few_blocks"] = table["horizon"] == "7d"
    page = written(tmp_path, table, choices_of(table).iloc[:0])
    balanced(page)
    text = words(page)
    assert "No choice of leverage was made for this run." in text
    assert "†" in text
    assert "Few blocks." in text
    assert "no entry" in text


def test_trades_with_their_own_leverage_are_reported(tmp_path):
    table = survival_table().query("leverage == 10").assign(leverage=np.nan)
    text = words(written(tmp_path, table))
    assert "survived at the leverage each trade had" in text


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

    monkeypatch.setattr("backtest.report.os.replace", fail)
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
