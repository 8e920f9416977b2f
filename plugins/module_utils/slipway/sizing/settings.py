# SPDX-License-Identifier: Apache-2.0
"""The settings that :mod:`sizing` decides and a user may override: their kinds, ranges and spelling.

Pure. Values go in as a person writes them in YAML (``32MB``, ``15min``, ``on``, ``0.9``) and come out as PostgreSQL
reads them, each with the number that the budget calculates with (memory in MB, time in seconds).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import InputError, UnknownNameError

OLDEST_MAJOR, NEWEST_MAJOR = 13, 18
MEMORY_UNITS_KB: Mapping[str, float] = {"kb": 1, "mb": 1024, "gb": 1024**2, "tb": 1024**3}
TIME_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


@dataclass(frozen=True)
class Setting:
    """One setting: what kind of value it takes and within which range (memory in MB, time in seconds)."""

    kind: str  # memory | time | int | float | enum
    low: float = 0
    high: float = math.inf
    choices: tuple[str, ...] = ()
    special: tuple[int, ...] = ()  # bare numbers with a meaning of their own: -1 "no limit", 0 "off"
    since: int = OLDEST_MAJOR  # first PostgreSQL major that has it


@dataclass(frozen=True)
class Value:
    """A value as PostgreSQL reads it, and as a number (memory: MB, rounded up; time: seconds; enum: 0)."""

    text: str
    number: float

    @property
    def mb(self) -> int:
        """Memory in MB, rounded up."""
        return math.ceil(self.number)


ON_OFF = ("on", "off")
POSTGRES_SETTINGS: Mapping[str, Setting] = {
    "shared_buffers": Setting("memory", 1),
    "effective_cache_size": Setting("memory", 1),
    "max_connections": Setting("int", 5, 10_000),
    "work_mem": Setting("memory", 0.0625),
    "maintenance_work_mem": Setting("memory", 1),
    "autovacuum_max_workers": Setting("int", 1, 100),
    "autovacuum_work_mem": Setting("memory", 1, special=(-1,)),
    "autovacuum_vacuum_scale_factor": Setting("float", 0, 100),
    "autovacuum_analyze_scale_factor": Setting("float", 0, 100),
    "autovacuum_naptime": Setting("time", 1, 2_147_483),
    "max_wal_size": Setting("memory", 32),
    "min_wal_size": Setting("memory", 32),  # PostgreSQL wants at least two segments of 16 MB
    "checkpoint_timeout": Setting("time", 30, 86_400),
    "checkpoint_completion_target": Setting("float", 0, 1),
    "wal_compression": Setting("enum", choices=("lz4", "pglz", "zstd", "on", "off")),
    "max_slot_wal_keep_size": Setting("memory", 16, special=(-1,)),
    "random_page_cost": Setting("float", 0),
    "effective_io_concurrency": Setting("int", 0, 1000),
    "max_worker_processes": Setting("int", 1, 1024),
    "max_parallel_workers_per_gather": Setting("int", 0, 1024),
    "huge_pages": Setting("enum", choices=("try", "on", "off")),
    "jit": Setting("enum", choices=ON_OFF),
    "io_method": Setting("enum", choices=("worker", "sync", "io_uring"), since=18),
    "idle_in_transaction_session_timeout": Setting("time", 0.001, 2_147_483, special=(0,)),
}
OTHER_SETTINGS: Mapping[str, Setting] = {
    "pool_size": Setting("int", 1, 10_000),  # PgBouncer's server connections, all transaction pools together
    "session_pool_size": Setting("int", 1, 10_000),  # the same for the session-mode entries
    "max_client_conn": Setting("int", 10, 100_000),  # clients PgBouncer admits
    "redis_maxmemory": Setting("memory", 1),
}
SETTINGS: Mapping[str, Setting] = {**POSTGRES_SETTINGS, **OTHER_SETTINGS}
SETTING_NAMES = tuple(SETTINGS)
"""Every name that ``overrides`` takes: the PostgreSQL settings by their own names, then PgBouncer's and Redis'."""


def memory_text(mb: float) -> str:
    """``mb`` as PostgreSQL writes it: whole MB where it can be, else kB."""
    kb = round(mb * 1024)
    return f"{kb // 1024}MB" if kb % 1024 == 0 else f"{kb}kB"


def _quantity(name: str, raw: object, units: Mapping[str, float], example: str) -> float:
    """A number with a unit, in the unit that ``units`` counts in."""
    match = _QUANTITY.match(str(raw))
    if not match or match.group(2).lower() not in units:
        shown = "kB, MB, GB, TB" if units is MEMORY_UNITS_KB else ", ".join(units)
        raise InputError(
            f"{name} is {raw!r}",
            f"a number with its unit ({shown}), because PostgreSQL counts bare numbers differently for each setting",
            f"write it like {name}: {example}",
        )
    return float(match.group(1)) * units[match.group(2).lower()]


def _plain_number(name: str, raw: object, whole: bool) -> float:
    try:
        number = float(str(raw))
    except ValueError:
        number = math.nan
    if isinstance(raw, bool) or not math.isfinite(number) or (whole and number != int(number)):
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {raw!r}", kind, f"correct {name} or remove it") from None
    return number


def whole_number(name: str, raw: object) -> int:
    """``raw`` (a number, or its text) as an integer. Raises InputError, naming ``name``, for anything else."""
    return int(_plain_number(name, raw, whole=True))


def _number_text(number: float) -> str:
    return str(int(number)) if number == int(number) else format(number, "g")


def _parse_enum(name: str, setting: Setting, raw: object) -> Value:
    # YAML reads a bare on/off/yes/no as a boolean: give it its meaning back.
    text = ("on" if raw else "off") if isinstance(raw, bool) else str(raw).strip().lower()
    if text not in setting.choices:
        raise InputError(f"{name} is {raw!r}", f"one of: {', '.join(setting.choices)}", f"correct {name} or remove it")
    return Value(text, 0)


def parse_value(name: str, raw: object) -> Value:
    """The value ``raw`` of setting ``name``.

    Raises UnknownNameError for a name that sizing does not decide, InputError for a value of the wrong kind or range.
    """
    setting = SETTINGS.get(name)
    if setting is None:
        raise UnknownNameError("sizing override", name, SETTINGS)
    if setting.kind == "enum":
        return _parse_enum(name, setting, raw)
    for special in setting.special:
        if not isinstance(raw, bool) and str(raw).strip() == str(special):
            return Value(str(special), special)
    shown: Callable[[float], str]
    if setting.kind == "memory":
        number = _quantity(name, raw, MEMORY_UNITS_KB, "64MB") / 1024
        text, shown = memory_text(number), memory_text
    elif setting.kind == "time":
        number = _quantity(name, raw, TIME_UNITS_S, "10min")
        text, shown = re.sub(r"\s+", "", str(raw)).lower(), lambda seconds: f"{_number_text(seconds)}s"
    else:
        number = _plain_number(name, raw, whole=setting.kind == "int")
        text, shown = _number_text(number), _number_text
    if not setting.low <= number <= setting.high:
        upper = "" if math.isinf(setting.high) else f", at most {shown(setting.high)}"
        raise InputError(f"{name} is {raw}", f"at least {shown(setting.low)}{upper}", f"correct {name} or remove it")
    return Value(text, number)


def parse_overrides(overrides: Mapping[str, object] | None, postgres_major: int) -> dict[str, Value]:
    """Every override parsed and checked against the PostgreSQL major it is meant for."""
    parsed: dict[str, Value] = {}
    for name, raw in (overrides or {}).items():
        parsed[name] = parse_value(name, raw)
        if SETTINGS[name].since > postgres_major:
            raise InputError(
                f"{name} is set, which PostgreSQL {postgres_major} does not have",
                f"PostgreSQL {SETTINGS[name].since} or newer for it",
                f"remove {name} from the overrides",
            )
    compression = parsed.get("wal_compression")
    if compression and compression.text in ("lz4", "zstd", "pglz") and postgres_major < 15:
        raise InputError(
            f"wal_compression is {compression.text}, which PostgreSQL {postgres_major} does not know",
            "on or off before PostgreSQL 15",
            "write wal_compression: 'on', or remove it",
        )
    return parsed


def own_figures(postgres: Mapping[str, object], redis_memory_mb: int | str = "auto") -> dict[str, object]:
    """The ``overrides`` that an inventory holds: of its PostgreSQL settings those that sizing decides, and Redis' memory."""
    own = {} if redis_memory_mb == "auto" else {"redis_maxmemory": f"{redis_memory_mb}MB"}
    return {name: value for name, value in postgres.items() if name in SETTINGS} | own
