"""The assumptions of a run, as sentences made from its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from backtest.margin.rules import rules
from backtest.report.labels import contracts, value_words
from backtest.report.number_format import rate_text
from backtest.report.policy_labels import policy_sentences
from backtest.units import duration_ms, number_text

BASES = {"mark": "the notional at the trigger price", "entry": "the notional at entry"}
TRIGGERS = {"mark": "mark price", "last": "last traded price"}
Part = Mapping[str, Any]


def assumptions(info: Part) -> list[str]:
    """The run's configuration as sentences; keys that it does not hold are left out."""
    config = info.get("config") or {}
    data, entries, sweep, margin, statistics = (
        config.get(name) or {} for name in ("data", "entries", "sweep", "margin", "statistics")
    )
    spot = margin.get("contract") == "spot"
    return [
        *_entry_words(entries, data, bool(sweep.get("portfolio"))),
        *_cut_words(info),
        *_trigger_words(info, data, bool(sweep.get("portfolio"))),
        *(_spot_words(margin) if spot else _margin_words(config)),
        *_fee_words(margin, "own funds" if spot else "the wallet" if sweep.get("portfolio") else "the initial margin"),
        *_expiry_words(margin),
        *_weight_words(sweep),
        *policy_sentences(sweep.get("policy") or (), margin.get("taker_fee")),
        *_liquidation_words(margin, bool(sweep.get("policy"))),
        *_outcome_words(sweep, statistics),
        *_statistics_words(statistics),
    ]


def _entry_words(entries: Part, data: Part, portfolio: bool) -> Iterator[str]:
    if entries.get("file"):
        yield (
            f"Positions are the trades of {PurePath(str(entries['file'])).name}: each enters in the bar of its entry "
            "time and is at risk from the next bar on. Where the file has exits, they cut the holding time; where it "
            "has entry prices, sides or leverages, those hold."
        )
    else:
        every = f"each bar whose start is a multiple of {entries['every']}" if entries.get("every") else "every bar"
        if portfolio:
            every += " at which all of its symbols have a price"
        what = "A portfolio" if portfolio else "A position of its own"
        yield f"{what} is opened at the close of {every} and is at risk from the next bar on."
    if data.get("max_gap"):
        yield f"Entries whose window holds a gap longer than {data['max_gap']} are left out (excluded)."
    else:
        yield "Gaps in the data leave no entry out; a missing bar cannot liquidate."


def _cut_words(info: Part) -> Iterator[str]:
    """The common span of each portfolio's symbols."""
    for entry in info.get("coverage", []):
        found = [
            f"{count:,} bar{'' if count == 1 else 's'} of {symbol} {where}"
            for symbol, bars in (entry.get("cut") or {}).items()
            for count, where in zip(bars, ("before it", "after it"), strict=True)
            if count
        ]
        if found:
            name = value_words("symbol", entry["symbol"])
            yield f"The portfolio {name} runs over the span that all its symbols have; left out: {', '.join(found)}."


def _trigger_words(info: Part, data: Part, portfolio: bool) -> Iterator[str]:
    named = [data.get("trigger"), *(entry.get("trigger") for entry in info.get("coverage", []))]
    triggers = sorted({str(name) for name in named if name})
    if not triggers:
        return
    names = " or ".join(TRIGGERS.get(name, name) for name in triggers)
    if portfolio:
        yield (
            f"Liquidation looks at the {names}, under two verdicts: “worst” takes each leg at its own worst price of a "
            "bar, the low for a long and the high for a short, all at once; “close” takes all legs at the close. The "
            "legs' worst prices seldom fall on one moment, and prices move between closes: at this bar length the "
            "truth lies between the two. The answer leads with “worst”."
        )
    else:
        yield f"Liquidation looks at the worst {names} within each bar: the low for a long, the high for a short."


def _margin_words(config: Part) -> Iterator[str]:
    """Perpetuals and futures: whose margin, in what, and what maintenance is taken of."""
    sweep, margin = config.get("sweep") or {}, config.get("margin") or {}
    kinds = sorted(set(contracts(config).values()))
    yield from _kind_words(sweep, kinds, bool(margin.get("basis")))
    yield from _maintenance_words(sweep, margin)
    if "inverse" in kinds:
        which = "" if len(kinds) == 1 else ", under inverse rules"
        yield (
            f"Inverse contracts{which}: margin and profit are in coin and follow 1/price; a size by margin, wallet and "
            "tier limits are amounts of coin, a size by notional is the face value in quote."
        )
    if any(size.get("extra") for size in sweep.get("size") or ()):
        yield (
            "Where a size names wallet, that balance stands behind the position beside its margin, as in cross margin "
            "with one position; leverage stays notional over margin."
        )
    if scale := margin.get("maintenance_scale"):
        yield (
            f"Maintenance rises with volatility: times the volatility of the {scale['window']} before the bar, per "
            f"year, over {rate_text(scale['reference'])}, at least × 1 and at most × {number_text(scale['cap'])}."
        )


def _kind_words(sweep: Part, kinds: list[str], known: bool) -> Iterator[str]:
    if sweep.get("portfolio"):
        yield (
            "Cross margin: one wallet carries all legs, and one leg's gain stands in for another's loss. Leverage is "
            "the gross notional over the wallet; liquidated is the portfolio as a whole, where the wallet with all "
            "unrealised profit and loss falls to the sum of the legs' maintenance."
        )
        if sweep.get("size"):
            yield "A size by notional is the gross notional of all legs, a size by margin the wallet."
    elif known and kinds:
        yield f"Isolated margin, {' and '.join(kinds)} contracts."


def _maintenance_words(sweep: Part, margin: Part) -> Iterator[str]:
    """What the rates that are no rule's own are taken of, and what rules bring."""
    known = {rule.name for rule in rules()}
    items = sweep.get("maintenance") or ()
    named = [item for item in items if isinstance(item, Mapping) or item in known]
    if len(named) < len(items) or not items:
        reserve, basis = margin.get("close_reserve"), BASES.get(str(margin.get("basis")))
        which = " of a rate or tier table" if named else ""
        if basis:
            yield f"The maintenance margin{which} is taken of {basis}."
        if reserve:
            yield f"A closing fee of {rate_text(reserve)} is kept inside the maintenance margin{which}."
        elif reserve is not None:
            yield f"No closing fee is kept inside the maintenance margin{which}."
    if named:
        yield "A maintenance rule that is a name brings its own tiers, basis and closing fee."
    if ratio := margin.get("margin_call_ratio"):
        yield f"A margin call is counted where maintenance reaches {rate_text(ratio)} of the margin balance."


def _spot_words(margin: Part) -> Iterator[str]:
    liquidation, call = (rate_text(margin[name]) for name in ("liquidation_ltv", "margin_call_ltv"))
    yield (
        "Spot margin: own funds are the position over its leverage, the rest is borrowed, quote for a long and the "
        f"asset for a short. Liquidated is where the debt reaches {liquidation} of the assets (loan-to-value); a "
        f"margin call is counted at {call}."
    )
    rate = margin.get("borrow_rate") or 0.0
    yield (
        f"The debt grows by {rate_text(rate)} at every full hour, compounding; no funding is paid."
        if rate
        else "Borrowing costs nothing (borrow_rate is 0), and no funding is paid."
    )


def _fee_words(margin: Part, pocket: str) -> Iterator[str]:
    if (from_margin := margin.get("fees_from_margin")) is not None:
        yield f"The opening fee {'comes out of' if from_margin else 'is paid from other money, not from'} {pocket}."


def _expiry_words(margin: Part) -> Iterator[str]:
    if margin.get("expiry"):
        yield (
            f"Dated futures that expire at {margin['expiry']}: open positions are closed at the last close before "
            "it, windows that reach further are cut there, and no funding is paid."
        )


def _weight_words(sweep: Part) -> Iterator[str]:
    for weight in sweep.get("weight") or ():
        if weight.get("target") is None:
            yield "Under weight 1 every entry has the leverage that is shown."
        else:
            yield (
                f"Leverage follows volatility: an entry has the leverage shown times {rate_text(weight['target'])} "
                f"over the volatility of the {weight['window']} up to it, per year, at most × "
                f"{number_text(weight['cap'])}; bars with too little history before them are no entries."
            )


def _liquidation_words(margin: Part, policies: bool) -> Iterator[str]:
    """Slippage, fee and surplus, where they are set."""
    terms = []
    if slippage := margin.get("liquidation_slippage"):
        terms.append(f"is filled {rate_text(slippage)} worse than its level")
    if fee := margin.get("liquidation_fee"):
        terms.append(f"costs a fee of {rate_text(fee)} of the notional at the fill")
    if terms:
        effect = "" if policies else "; that changes what is left, not whether a position is liquidated"
        yield f"A liquidation {' and '.join(terms)}{effect}."
    if margin.get("surplus") == "fund":
        yield "What a liquidation leaves goes to the insurance fund, not to the trader."


def _outcome_words(sweep: Part, statistics: Part) -> Iterator[str]:
    if statistics.get("outcomes") or sweep.get("policy"):
        yield (
            "Returns are what was left less what was put in, over the initial margin, net of fees and funding; a "
            "position still open at the end is valued at the last close, without a closing fee. They are means over "
            "the entries of this history and have no interval."
        )


def _statistics_words(statistics: Part) -> Iterator[str]:
    if not {"confidence", "block"} <= set(statistics):
        return
    days = duration_ms(str(statistics["block"])) / 86_400_000
    length = f" ({days:g} days)" if not str(statistics["block"]).endswith("d") else ""
    yield (
        f"Intervals hold {rate_text(statistics['confidence'])} two-sided and are made from calendar blocks of "
        f"{statistics['block']}{length}."
    )
