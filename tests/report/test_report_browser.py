"""The report's slider and pickers, moved in a browser: what it shows is what the run holds."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import backtest as bt
from backtest.report.html import write_report
from backtest.report.number_format import percent_text, times_text
from tests._support.histories import history_of, random_rows
from tests._support.run_tables import survival_table
from tests.report.test_report import INFO, choices_of

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LEVERAGES = [1, 2, 3, 5, 8, 12.5, 20, 40, 75]
EVERY_ANSWER = """() => {
    const pick = (id) => document.getElementById(id);
    const axes = ["pick-side", "pick-maintenance", "pick-funding", "pick-horizon"].map(pick);
    const slider = pick("leverage");
    const found = [];
    const go = (k, picked) => {
        if (k < axes.length) {
            for (const option of axes[k].options) {
                axes[k].value = option.value;
                axes[k].dispatchEvent(new Event("input"));
                go(k + 1, [...picked, option.textContent]);
            }
            return;
        }
        for (let n = 0; n <= Number(slider.max); n += 1) {
            slider.value = n;
            slider.dispatchEvent(new Event("input"));
            const texts = ["rate", "interval", "entries", "liquidations", "rejected", "best"];
            found.push([...picked, n, ...texts.map((id) => pick(id).textContent), pick("few").hidden]);
        }
    };
    go(0, []);
    return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    lacking = None if CHROMIUM else f"none of {', '.join(NAMES)} is installed"
    lacking = lacking or (None if find_spec("playwright") else "playwright is not installed")
    if lacking and os.environ.get("CI"):
        pytest.fail(f"{lacking}, and CI is set")
    if lacking:
        pytest.skip(lacking)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def result() -> bt.Result:
    sweep = bt.Sweep(
        leverage=LEVERAGES,
        horizon=["1d", "8h", "100h"],
        maintenance=[0.005, 0.02],
        funding=[bt.Funding(), bt.Funding(scale=4.0)],
    )
    return bt.run(history_of(random_rows(11, 4_000)), sweep)


@pytest.fixture(scope="module")
def report(result: bt.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.report(survival=0.8, path=tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page, and fails where one asked for anything or complained."""
    seen: list[str] = []
    pages = []

    def open_page(path: Path, **context: Any) -> Any:
        page = browser.new_page(**context)
        pages.append(page)
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [text for text in seen if not text.startswith("data:image/png")] == []


def texts(page: Any) -> dict[str, str]:
    names = ("rate", "interval", "entries", "liquidations", "rejected", "best", "leverage-value")
    return {name: page.locator(f"#{name}").inner_text().replace("\N{NO-BREAK SPACE}", " ") for name in names}


def slide_to(page: Any, place: int) -> None:
    page.locator("#leverage").focus()
    page.keyboard.press("Home")
    for _ in range(place):
        page.keyboard.press("ArrowRight")


def expected(row: Any) -> dict[str, str]:
    known = row.entries > 0
    return {
        "rate": percent_text(row.survival),
        "interval": f"{percent_text(row.survival_low)} to {percent_text(row.survival_high)}" if known else "–",
        "entries": f"{row.entries:,}",
        "liquidations": f"{row.liquidations:,}",
        "rejected": f"{row.rejected:,}",
    }


def test_the_slider_and_pickers_show_what_the_run_holds(opened: Any, report: Path, result: bt.Result) -> None:
    page = opened(report)
    page.get_by_label("side", exact=True).select_option("short")
    page.get_by_label("maintenance").select_option("2 %")
    page.get_by_label("funding").select_option("× 4")
    page.get_by_label("held for").select_option("100h")
    page.get_by_label("target").select_option("50 %")
    rows = result.table.query("side == 'short' and maintenance == '0.02' and funding_scale == 4 and horizon == '100h'")
    choices = result.choose(survival=0.5, horizon="100h")
    chosen = choices.query("side == 'short' and maintenance == '0.02' and funding_scale == 4")["leverage"].item()
    places = []
    for place, row in enumerate(rows.itertuples()):
        slide_to(page, place)
        shown = texts(page)
        assert shown["leverage-value"] == times_text(row.leverage)
        assert {name: shown[name] for name in expected(row)} == expected(row)
        assert shown["best"].startswith(f"{times_text(chosen)} is the largest leverage")
        words = page.locator("#leverage").get_attribute("aria-valuetext").replace("\N{NO-BREAK SPACE}", " ")
        said = f"{percent_text(row.survival)} survived" if row.entries else "no entry"
        assert words == f"{times_text(row.leverage)}, {said}"
        if row.entries:
            marker = page.locator("#marker")
            places.append((float(marker.get_attribute("cx")), float(marker.get_attribute("cy"))))
    assert len(places) > 5
    assert all(b[0] > a[0] and b[1] >= a[1] for a, b in itertools.pairwise(places))  # to the right, and never up


def test_every_answer_is_that_of_survival_parquet(opened: Any, report: Path, result: bt.Result) -> None:
    page = opened(report)
    found = page.evaluate(EVERY_ANSWER)
    table = pd.read_parquet(result.path / "survival.parquet")
    assert len(found) == len(table) == 2 * 2 * 2 * 3 * len(LEVERAGES)
    choices = result.choose(survival=0.8).set_index(["side", "maintenance", "funding_scale", "horizon"])["leverage"]
    rows = table.set_index(["side", "maintenance", "funding_scale", "horizon", "leverage"])
    for side, maintenance, funding, horizon, place, *shown, best, few_hidden in found:
        key = (side, {"0.5 %": "0.005", "2 %": "0.02"}[maintenance], 4.0 if "4" in funding else 1.0, horizon)
        row = rows.loc[(*key, LEVERAGES[place])]
        assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in shown] == [*expected(row).values()]
        first = best.split(" ")[0]
        assert first == ("No" if pd.isna(choices.loc[key]) else times_text(choices.loc[key]))
        assert few_hidden == (not row["few_blocks"] or row["entries"] == 0)


def test_controls_become_their_values_in_print(opened: Any, report: Path) -> None:
    page = opened(report)
    page.get_by_label("held for").select_option("8h")
    slide_to(page, 3)
    assert not page.locator(".printed").first.is_visible()
    page.emulate_media(media="print")
    assert not any(each.is_visible() for each in page.locator("#explorer select, #explorer input, nav").all())
    labels, values = (page.locator(name).all_inner_texts() for name in (".control label", ".printed"))
    assert dict(zip(labels, values, strict=True)) == {
        "side": "long", "maintenance": "0.5 %", "funding": "as charged", "held for": "8h", "target": "80 %",
        "leverage": "5×",
    }  # fmt: skip
    assert page.locator("#chart").is_visible()


@pytest.mark.parametrize(("scheme", "page_is_light"), [("light", True), ("dark", False)])
def test_light_and_dark_have_contrast(opened: Any, report: Path, scheme: str, page_is_light: bool) -> None:
    page = opened(report, color_scheme=scheme)
    colours = page.evaluate(
        "['body', '.note', '#best', '#rate', '#few', '.answers strong']"
        ".map((name) => getComputedStyle(document.querySelector(name)).color)"
    )
    ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (ground > 0.5) == page_is_light
    for colour in map(luminance, colours):
        light, dark = max(ground, colour), min(ground, colour)
        assert (light + 0.05) / (dark + 0.05) > 4.5  # WCAG AA


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_narrow_page_does_not_scroll_sideways(opened: Any, report: Path) -> None:
    page = opened(report, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    chart = page.locator("#chart")
    scale = chart.bounding_box()["width"] / float(chart.get_attribute("viewBox").split()[2])
    letters = page.locator("#label").evaluate("(text) => Number.parseFloat(getComputedStyle(text).fontSize)")
    assert letters * scale > 9  # pixels


def test_without_scripts_the_page_says_so_and_answers_still(opened: Any, report: Path) -> None:
    page = opened(report, java_script_enabled=False)
    assert page.locator("noscript p").is_visible()
    assert not page.locator("#explorer").is_visible()
    assert page.get_by_text("Long TEST held 8h:").is_visible()


def test_pickers_offer_only_scenarios_that_the_page_holds(opened: Any, tmp_path: Path) -> None:
    table = survival_table().query("not (side == 'short' and maintenance == 'binance-usdm')")
    page = opened(write_report(table, INFO, choices_of(table), tmp_path / "report.html"))
    page.get_by_label("maintenance").select_option("binance-usdm")
    assert page.locator("#few").is_hidden()
    page.get_by_label("side", exact=True).select_option("short")
    options = page.locator("#pick-maintenance option")
    assert [option.is_disabled() for option in options.all()] == [False, True]
    assert page.locator("#pick-maintenance").input_value() == "0"
    page.get_by_label("held for").select_option("7d")
    slide_to(page, 3)
    row = table.query("side == 'short' and horizon == '7d' and leverage == 4 and funding_scale == 1").iloc[0]
    assert texts(page)["liquidations"] == f"{row['liquidations']:,}"
    slide_to(page, 19)  # 125×, where none could be opened
    assert page.locator("#nothing").is_visible()
    assert texts(page)["rate"] == "–"


def test_trades_with_their_own_leverage_have_pickers_only(opened: Any, tmp_path: Path) -> None:
    table = survival_table().query("leverage == 10").assign(leverage=float("nan"))
    page = opened(write_report(table, INFO, choices_of(table), tmp_path / "report.html"))
    assert page.locator("#leverage, #pick-target, #chart").count() == 0
    page.get_by_label("held for").select_option("7d")
    row = table.query("horizon == '7d'").iloc[0]
    shown = page.locator("#rate").inner_text().replace("\N{NO-BREAK SPACE}", " ")
    assert shown == percent_text(row["survival"])
