"""What each policy of a run does, in a plain sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backtest.report.number_format import rate_text
from backtest.report.policy_labels import policy_words
from backtest.units import number_text

if TYPE_CHECKING:
    from backtest.config.policies import Deleverage, Exit, Ladder, Policy, ScaleIn, TopUp

COMMON = (
    "Within a bar a policy follows the price from the open to the adverse extreme and acts on what is met, the nearest "
    "first; a take-profit counts only in a bar in which nothing adverse was done.",
    "A position that a stop-loss or take-profit closed, or a ladder only made smaller, counts as survived: survival is "
    "one less the liquidations.",
)


def policy_sentences(policies: Sequence[Mapping[str, Any]], taker_fee: float | None) -> list[str]:
    """A sentence for each policy of the axis, and what holds for all of them.

    Parameters
    ----------
    policies : sequence of mapping
        ``sweep.policy`` of a configuration.
    taker_fee : float or None
        ``margin.taker_fee``; None: the rule's, else the opening fee.
    """
    from backtest.config.policies import Policy

    if not policies:
        return []
    made = [Policy(**item) for item in policies]
    each = [f"Policy “{policy_words(policy.label)}”: {_sentence(policy)}." for policy in made]
    if all(policy.label == "none" for policy in made):
        return each
    fee = "of the rule, or else as high as the opening fee" if taker_fee is None else rate_text(taker_fee)
    return [*each, *COMMON, f"What a policy buys or sells pays a taker fee, {fee}."]


def _sentence(policy: Policy) -> str:
    return "; ".join(_parts(policy)) or "the position is held until the horizon or its liquidation"


def _parts(policy: Policy) -> Iterator[str]:
    if policy.confirm_bars:
        rows = f"{policy.confirm_bars} closes in a row" if policy.confirm_bars > 1 else "a close"
        yield f"liquidation needs {rows} beyond the level, a bar's extreme is not enough"
    if policy.ladder:
        yield _ladder(policy.ladder)
    if policy.top_up:
        yield _top_up(policy.top_up)
    if policy.deleverage:
        yield _deleverage(policy.deleverage)
    if policy.stop_loss:
        slipped = f", filled {rate_text(policy.stop_loss.slippage)} worse" if policy.stop_loss.slippage else ""
        yield f"closed by a stop-loss {_level(policy.stop_loss, 'against', 'loss')}{slipped}"
    if policy.take_profit:
        yield f"closed by a take-profit {_level(policy.take_profit, 'in favour of', 'gain')}"
    if policy.scale_in:
        yield _scale_in(policy.scale_in)


def _ladder(ladder: Ladder) -> str:
    if ladder.step is not None:
        tiers, lowest = ("to the tier below", "tier") if ladder.step == 1 else (f"by {ladder.step} tiers", "ones")
        return f"at the liquidation level the position is cut {tiers}; in the lowest {lowest} everything goes"
    above = f" while its notional is above {ladder.above:,.10g}, else everything goes" if ladder.above else ""
    return f"at the liquidation level {rate_text(ladder.fraction or 0)} of the position is closed{above}"


def _when(answer: TopUp | Deleverage) -> str:
    times = "once" if answer.max_times == 1 else f"up to {answer.max_times} times"
    bars = f"{answer.delay_bars} bar{'' if answer.delay_bars == 1 else 's'} later"
    return f"a margin call is answered at the close {bars if answer.delay_bars else 'of its bar'}, {times}"


def _top_up(answer: TopUp) -> str:
    return (
        f"{_when(answer)}, by adding margin until maintenance is {rate_text(answer.target_ratio)} of the margin "
        f"balance, from a reserve of {number_text(answer.reserve)} × the initial margin"
    )


def _deleverage(answer: Deleverage) -> str:
    return f"{_when(answer)}, by closing {rate_text(answer.fraction)} of the position"


def _level(rule: Exit, way: str, result: str) -> str:
    price = "last traded price" if rule.on == "last" else "price that triggers liquidation"
    if rule.of == "margin":
        return f"where at the {price} the {result} is {rate_text(rule.distance)} of the margin"
    return f"where the {price} stands {rate_text(rule.distance)} {way} the average entry"


def _scale_in(rule: ScaleIn) -> str:
    steps = [
        f"{number_text(multiple)} × the first quantity at {rate_text(distance)}"
        for distance, multiple in zip(rule.distance, rule.multiple, strict=True)
    ]
    return f"adds {', '.join(steps)} against the first entry, each with margin of its own at the same leverage"
