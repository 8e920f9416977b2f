# SPDX-License-Identifier: Apache-2.0
"""What a rung costs: from one dated data file, or from what the user wrote into the inventory. Pure; the date is given.

The file is ``playbooks/vars/prices.yml``. Prices move: a figure older than the file itself allows is still shown, and said
to be old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from ..errors import InputError, UnknownNameError

KEYS = ("dated", "good_for_days", "currency", "sources", "rungs")


@dataclass(frozen=True)
class Prices:
    """The data file as checked. ``rungs``: name -> (least, most, what that buys), per month in ``currency``."""

    dated: date
    good_for_days: int
    currency: str
    sources: tuple[str, ...]
    rungs: Mapping[str, tuple[float, float, str]]

    def days_over(self, today: date) -> int:
        """By how many days the figures are older than they may be; 0 while they are good."""
        return max(0, (today - self.dated).days - self.good_for_days)


def parse(raw: Mapping[str, Any]) -> Prices:
    """The file's content. Raises InputError naming what is wrong, UnknownNameError for a misspelled key."""
    for name in raw:
        if name not in KEYS:
            raise UnknownNameError("key of the prices", str(name), KEYS)
    if missing := [name for name in KEYS if not raw.get(name)]:
        raise InputError(f"The prices lack {', '.join(missing)}", "all of: " + ", ".join(KEYS))
    try:
        dated = date.fromisoformat(str(raw["dated"]))
    except ValueError:
        raise InputError(f"The prices are dated '{raw['dated']}'", "a day such as 2026-01-31") from None
    rungs = {str(name): _rung(str(name), entry) for name, entry in raw["rungs"].items()}
    return Prices(dated, int(raw["good_for_days"]), str(raw["currency"]), tuple(map(str, raw["sources"])), rungs)


def _rung(name: str, entry: Any) -> tuple[float, float, str]:
    try:
        least, most, what = float(entry["least"]), float(entry["most"]), str(entry["what"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"The price of {name} is {entry!r}", "least, most (numbers) and what") from None
    if not 0 <= least <= most:
        raise InputError(f"The price of {name} goes from {least:g} to {most:g}", "0 or more, the smaller first")
    return least, most, what


def line(prices: Prices, rung: str, today: date, own: Mapping[str, object] | None = None) -> str:
    """What a person reads: the user's ``own`` figure as written, else the file's with its source, date and age.

    Raises UnknownNameError for a rung without a price.
    """
    for name in own or {}:
        if name not in prices.rungs:
            raise UnknownNameError("rung in slipway_prices", str(name), prices.rungs)
    if own and own.get(rung):
        return f"{own[rung]} (slipway_prices in your inventory)"
    if rung not in prices.rungs:
        raise UnknownNameError("rung", rung, prices.rungs)
    least, most, what = prices.rungs[rung]
    amount = f"{least:g}" if least == most else f"{least:g} to {most:g}"
    text = f"about {amount} {prices.currency} a month: {what} ({', '.join(prices.sources)}; {prices.dated})"
    if over := prices.days_over(today):
        text += f". These figures are {over} days older than they should be: look at your provider's list"
    return text
