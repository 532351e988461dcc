"""Policies as people write them: from the label in the results to a few words that name it."""

from __future__ import annotations

from backtest.config.labels import parse_label
from backtest.units import number_text

Part = dict[str, str]


def policy_words(label: str) -> str:
    """``stop_loss(distance=0.05)`` as ``stop-loss 5 %``; a label that is none of a policy stays as it is.

    Examples
    --------
    >>> policy_words("confirm_bars=3 top_up(target_ratio=0.4 reserve=1 max_times=2)")
    '3 closes to liquidate, top-up to 40 % with 1× in reserve, 2 times'
    >>> policy_words("scale_in(distance=0.05/0.1 multiple=1/2)")
    'scale-in of 1 / 2 at 5 / 10 %'
    """
    try:
        return ", ".join(PARTS[name](part) for name, part in parse_policy(label).items()) or label
    except (KeyError, ValueError):
        return label


def parse_policy(label: str) -> dict[str, Part]:
    """The rules of a label, in its order: name → key → value as written."""
    return {name: parse_label(text) if "=" in text else {"": text} for name, text in parse_label(label).items()}


def _percent(text: str) -> str:
    """``0.05/0.1`` as ``5 / 10 %``."""
    return " / ".join(number_text(round(100 * float(x), 8)) for x in text.split("/")) + " %"


def _amount(text: str) -> str:
    return f"{float(text):,.10g}"


def _answer(part: Part) -> str:
    """How often and how late a margin call is answered."""
    times, delay = part.get("max_times", "1"), part.get("delay_bars", "0")
    bars = f", {delay} bar{'' if delay == '1' else 's'} late"
    return ("" if times == "1" else f", {times} times") + ("" if delay == "0" else bars)


def _confirm(part: Part) -> str:
    return f"{part['']} close{'' if part[''] == '1' else 's'} to liquidate"


def _ladder(part: Part) -> str:
    if "step" in part:
        return f"ladder by {part['step']} tier{'' if part['step'] == '1' else 's'}"
    above = f" above {_amount(part['above'])}" if "above" in part else ""
    return f"ladder by {_percent(part['fraction'])}{above}"


def _top_up(part: Part) -> str:
    return f"top-up to {_percent(part['target_ratio'])} with {_amount(part['reserve'])}× in reserve{_answer(part)}"


def _deleverage(part: Part) -> str:
    return f"deleverage {_percent(part['fraction'])}{_answer(part)}"


def _exit(name: str, part: Part) -> str:
    of = " of margin" if part.get("of") == "margin" else ""
    on = " on last" if part.get("on") == "last" else ""
    slipped = f", slipped {_percent(part['slippage'])}" if "slippage" in part else ""
    return f"{name} {_percent(part['distance'])}{of}{on}{slipped}"


def _scale_in(part: Part) -> str:
    multiples = " / ".join(_amount(x) for x in part["multiple"].split("/"))
    return f"scale-in of {multiples} at {_percent(part['distance'])}"


PARTS = {
    "confirm_bars": _confirm,
    "ladder": _ladder,
    "top_up": _top_up,
    "deleverage": _deleverage,
    "stop_loss": lambda part: _exit("stop-loss", part),
    "take_profit": lambda part: _exit("take-profit", part),
    "scale_in": _scale_in,
}
