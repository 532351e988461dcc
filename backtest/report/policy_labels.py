"""A policy in words: the few of a label in tables and plots, and the sentences that say what it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backtest.config.labels import parse_label
from backtest.report.number_format import rate_text
from backtest.units import number_text

if TYPE_CHECKING:
    from backtest.config.policies import Deleverage, Exit, Ladder, Policy, ScaleIn, TopUp

COMMON = (
    "Within a bar a policy follows the price from the open to the adverse extreme and acts on each level it meets, the "
    "nearest first. A take-profit counts only in a bar in which nothing adverse was done.",
    "A position that a stop-loss or take-profit closed, or that a ladder only made smaller, counts as survived: "
    "survival is one less the liquidations.",
)


def policy_words(label: str) -> str:
    """A policy's label in the results as a few words; a text that is not such a label stays as it is.

    Examples
    --------
    >>> policy_words("stop_loss(distance=0.05)")
    'stop-loss 5 %'
    >>> policy_words("confirm_bars=3 top_up(target_ratio=0.4 reserve=1 max_times=2)")
    '3 closes to liquidate, top-up to 40 % with 1× in reserve, 2 times'
    >>> policy_words("scale_in(distance=0.05/0.1 multiple=1/2)")
    'scale-in of 1 / 2 at 5 / 10 %'
    """
    try:
        return ", ".join(_short(_parse(label))) or label
    except ValueError:
        return label


def policy_sentences(policies: Sequence[Mapping[str, Any]], taker_fee: float | None) -> list[str]:
    """A sentence for each policy of a run, then what holds for all of them.

    Parameters
    ----------
    policies : sequence of mapping
        ``sweep.policy`` of a configuration.
    taker_fee : float or None
        ``margin.taker_fee``, a fraction of notional; None: that of the rule, or else the opening fee.
    """
    from backtest.config.policies import Policy

    if not policies:
        return []
    made = [Policy(**item) for item in policies]
    unmanaged = "the position is held until the horizon or its liquidation"
    each = [f"Policy “{policy_words(policy.label)}”: {'; '.join(_long(policy)) or unmanaged}." for policy in made]
    if all(policy.label == "none" for policy in made):
        return each
    fee = "of the rule, or else as high as the opening fee" if taker_fee is None else rate_text(taker_fee)
    return [*each, *COMMON, f"What a policy buys or sells pays a taker fee, {fee}."]


def _parse(label: str) -> Policy:
    """The policy that has this label. Raises ValueError where no policy has it."""
    from backtest.config.policies import Policy

    found: dict[str, Any] = {}
    for name, text in parse_label(label).items():
        found[name] = {key: _value(one) for key, one in parse_label(text).items()} if "=" in text else _value(text)
    return Policy(**_tuples(found))


def _tuples(found: dict[str, Any]) -> dict[str, Any]:
    """Scale-ins of one step, whose label has no slash, with their values as tuples."""
    if isinstance(steps := found.get("scale_in"), dict):
        steps = {key: value if isinstance(value, tuple) else (value,) for key, value in steps.items()}
        return {**found, "scale_in": steps}
    return found


def _value(text: str) -> int | float | str | tuple[float, ...]:
    if "/" in text:
        return tuple(float(part) for part in text.split("/"))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _short(policy: Policy) -> Iterator[str]:
    if policy.confirm_bars:
        yield f"{_plural(policy.confirm_bars, 'close')} to liquidate"
    if (ladder := policy.ladder) and ladder.step is not None:
        yield f"ladder by {_plural(ladder.step, 'tier')}"
    elif ladder:
        yield f"ladder by {rate_text(ladder.fraction or 0)} above {ladder.above:,.10g}"
    if top_up := policy.top_up:
        yield f"top-up to {rate_text(top_up.target_ratio)} with {top_up.reserve:,.10g}× in reserve{_answer(top_up)}"
    if policy.deleverage:
        yield f"deleverage {rate_text(policy.deleverage.fraction)}{_answer(policy.deleverage)}"
    for name, rule in (("stop-loss", policy.stop_loss), ("take-profit", policy.take_profit)):
        if rule:
            of, on = " of margin" * (rule.of == "margin"), " on last" * (rule.on == "last")
            slipped = f", slipped {rate_text(rule.slippage)}" if rule.slippage else ""
            yield f"{name} {rate_text(rule.distance)}{of}{on}{slipped}"
    if scale_in := policy.scale_in:
        multiples = " / ".join(f"{multiple:,.10g}" for multiple in scale_in.multiple)
        distances = " / ".join(rate_text(distance).removesuffix(" %") for distance in scale_in.distance)
        yield f"scale-in of {multiples} at {distances} %"


def _answer(rule: TopUp | Deleverage) -> str:
    """How often and how late a margin call is answered, where it is not once and at the close of its bar."""
    times = f", {rule.max_times} times" if rule.max_times > 1 else ""
    return times + (f", {_plural(rule.delay_bars, 'bar')} late" if rule.delay_bars else "")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _long(policy: Policy) -> Iterator[str]:
    if policy.confirm_bars:
        rows = f"{policy.confirm_bars} closes in a row" if policy.confirm_bars > 1 else "a close"
        yield f"liquidation needs {rows} beyond the level, a bar's extreme is not enough"
    if policy.ladder:
        yield _ladder(policy.ladder)
    if top_up := policy.top_up:
        yield (
            f"{_when(top_up)}, by adding margin until maintenance is {rate_text(top_up.target_ratio)} of the margin "
            f"balance, from a reserve of {number_text(top_up.reserve)} × the initial margin"
        )
    if policy.deleverage:
        yield f"{_when(policy.deleverage)}, by closing {rate_text(policy.deleverage.fraction)} of the position"
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


def _when(rule: TopUp | Deleverage) -> str:
    times = "once" if rule.max_times == 1 else f"up to {rule.max_times} times"
    close = f"{_plural(rule.delay_bars, 'bar')} later" if rule.delay_bars else "of its bar"
    return f"a margin call is answered at the close {close}, {times}"


def _level(rule: Exit, direction: str, result: str) -> str:
    price = "last traded price" if rule.on == "last" else "price that triggers liquidation"
    if rule.of == "margin":
        return f"where at the {price} the {result} is {rate_text(rule.distance)} of the margin"
    return f"where the {price} stands {rate_text(rule.distance)} {direction} the average entry"


def _scale_in(rule: ScaleIn) -> str:
    steps = [
        f"{number_text(multiple)} × the first quantity at {rate_text(distance)}"
        for distance, multiple in zip(rule.distance, rule.multiple, strict=True)
    ]
    return f"adds {', '.join(steps)} against the first entry, each with margin of its own at the same leverage"
