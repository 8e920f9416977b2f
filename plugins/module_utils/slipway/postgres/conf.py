# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL settings: whether what runs is what was written. Pure.

The configuration says ``shared_buffers = 512MB``; ``pg_settings`` says ``65536`` in units of ``8kB``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import SlipwayError

_BYTES = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
_MICROSECONDS = {"us": 1, "ms": 1000, "s": 1_000_000, "min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_QUANTITY = re.compile(r"^\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*([A-Za-z]*)\s*$")
_TRUE, _FALSE = ("on", "true", "yes", "1"), ("off", "false", "no", "0")


class SettingsError(SlipwayError):
    """The server runs with other settings than it was given, or cannot read them."""


@dataclass(frozen=True)
class Running:
    """One row of ``pg_settings``. ``source`` is the file it came from, or the kind of source where there is none."""

    setting: str
    unit: str = ""
    vartype: str = "string"
    context: str = "user"
    pending_restart: bool = False
    source: str = ""

    @property
    def shown(self) -> str:
        """The value with its unit, for people: 65536 x 8kB is shown as 512MB."""
        if self.vartype not in ("integer", "real") or not self.unit or self.setting.startswith("-"):
            return self.setting
        number = _base(self.setting, self.unit)
        table = _BYTES if _unit_factor(self.unit)[0] is _BYTES else _MICROSECONDS
        if number is None or number == 0:
            return self.setting
        name, factor = [(n, f) for n, f in table.items() if number % f == 0][-1]
        return f"{int(number / factor)}{name}"


@dataclass(frozen=True)
class Difference:
    """A setting that runs with another value than wished. ``running`` is None for a name the server does not know."""

    name: str
    wished: str
    running: Running | None

    @property
    def needs_restart(self) -> bool:
        """Whether only a restart can bring the wished value."""
        return self.running is not None and self.running.context == "postmaster"

    def __str__(self) -> str:
        found = "unknown to this server" if self.running is None else f"{self.running.shown!r}"
        origin = f" (from {self.running.source})" if self.running and self.running.source else ""
        return f"{self.name} is {found}{origin}, expected {self.wished!r}"


def _unit_factor(unit: str) -> tuple[dict[str, int], int]:
    """The table a unit of ``pg_settings`` counts in (``8kB``, ``MB``, ``ms``, ``min``), and its size there."""
    found = re.match(r"^(\d*)([A-Za-z]+)$", unit)
    if found:
        many = int(found[1] or 1)
        for table in (_BYTES, _MICROSECONDS):
            if found[2] in table:
                return table, many * table[found[2]]
    raise SettingsError(f"pg_settings counts in the unknown unit '{unit}'")


def _base(value: str, unit: str) -> float | None:
    """``value`` in bytes or microseconds; a bare number counts in ``unit``. None where it is no quantity."""
    found = _QUANTITY.match(value)
    if not found:
        return None
    table, factor = _unit_factor(unit)
    if found[2]:
        if found[2] not in table:
            return None
        factor = table[found[2]]
    return float(found[1]) * factor


def _boolean(text: str) -> bool | None:
    lowered = text.strip().lower()
    return True if lowered in _TRUE else False if lowered in _FALSE else None


def _same_number(wished: str, running: Running) -> bool:
    if not running.unit:
        found = _QUANTITY.match(wished)
        return found is not None and not found[2] and float(found[1]) == float(running.setting)
    if wished.strip() in ("-1", "0"):  # no limit, or off: not a quantity
        return float(running.setting) == float(wished)
    left, right = _base(wished, running.unit), _base(running.setting, running.unit)
    if left is None or right is None:
        return False
    step = _unit_factor(running.unit)[1]
    # The server rounds to its unit: 1 MB given as 1000kB to a setting in 8kB is 125 units.
    return left == right or (running.vartype == "integer" and round(left / step) == round(right / step))


def same(wished: str, running: Running) -> bool:
    """Whether ``wished``, as written in a configuration file, is what the server runs with."""
    if running.vartype == "bool":
        return _boolean(wished) is not None and _boolean(wished) == _boolean(running.setting)
    if running.vartype in ("integer", "real"):
        return _same_number(wished, running)
    if running.vartype == "enum" and _boolean(wished) is not None:
        return wished.lower() == running.setting or _boolean(wished) == _boolean(running.setting)
    if running.vartype == "enum":
        return wished.lower() == running.setting.lower()
    return wished == running.setting


def differences(wished: Mapping[str, str], running: Mapping[str, Running]) -> list[Difference]:
    """Every setting of ``wished`` that runs otherwise, by name."""
    found: list[Difference] = []
    for name in sorted(wished):
        row = running.get(name.lower())
        if row is None or not same(wished[name], row):
            found.append(Difference(name, wished[name], row))
    return found


def explain(left: Iterable[Difference], conf_path: str) -> SettingsError:
    """The error for settings that stay otherwise after a reload and a restart."""
    items = list(left)
    auto = [item.name for item in items if item.running and item.running.source.endswith("postgresql.auto.conf")]
    elsewhere = [item.name for item in items if item.name not in auto]
    remedies = [f"run ALTER SYSTEM RESET {name}" for name in auto]
    if elsewhere:
        remedies.append(f"remove {', '.join(elsewhere)} from the file named, or set it in postgres_settings")
    return SettingsError(
        "PostgreSQL runs with other settings than it was given: " + "; ".join(map(str, items)),
        f"the values of {conf_path}",
        ", and ".join(remedies),
    )
