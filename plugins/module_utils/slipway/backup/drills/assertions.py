# SPDX-License-Identifier: Apache-2.0
"""The user's own SQL in a drill: a query and what is expected of it. Pure but for :func:`ask`.

Only the user knows what a good copy looks like: that orders kept coming in until the snapshot (``newer_than``), that
there are at least so many users. A dump of an application that stopped weeks ago is a perfect dump otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from ..codec import FormatError, parse_json
from ..verdict import FAILED, PASSED, Check

if TYPE_CHECKING:
    from psycopg import Connection

NAME = "assertions"
KINDS = ("value", "at_least", "at_most", "rows", "newer_than")
_KEYS = {"name", "database", "query", "timeout_s", *KINDS}
_SPAN = re.compile(r"\s*([0-9]+)\s*(s|min|h|d|days?|hours?|minutes?|seconds?|weeks?)\s*")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Assertion:
    """One of them. ``expected``: kind of expectation -> value, at least one; each must hold.

    ``value``: what the first column of the only row is. ``at_least``, ``at_most``: bounds of that number. ``rows``: how many
    rows come. ``newer_than``: the time in the first column is at most that much older than the snapshot.
    """

    name: str
    query: str
    database: str = ""
    timeout_s: int = 60
    expected: tuple[tuple[str, Any], ...] = field(default_factory=tuple)


def read(text: bytes, where: str = "assertions.json") -> tuple[Assertion, ...]:
    """The list as the role lays it down, in JSON. Raises FormatError, naming the entry."""
    data = parse_json(text, where)
    if not isinstance(data, list):
        raise FormatError(f"{where} is no list", "a list of assertions")
    return tuple(_read(each, f"{where}[{place}]") for place, each in enumerate(data))


def _read(data: Any, where: str) -> Assertion:
    if not isinstance(data, dict) or not isinstance(data.get("query"), str) or not data["query"].strip():
        raise FormatError(f"{where} has no query", "a 'query' and what is expected of it")
    if unknown := sorted(set(data) - _KEYS):
        raise FormatError(f"{where} has the unknown key '{unknown[0]}'", f"only {', '.join(sorted(_KEYS))}")
    expected = tuple((kind, data[kind]) for kind in KINDS if kind in data)
    if not expected:
        raise FormatError(f"{where} expects nothing", f"one of: {', '.join(KINDS)}")
    for kind, value in expected:
        _check_value(kind, value, where)
    timeout = data.get("timeout_s", 60)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 1 <= timeout <= 86_400:
        raise FormatError(f"{where}.timeout_s is {timeout!r}", "seconds, from 1 to 86400")
    for name in ("name", "database"):
        if not isinstance(data.get(name, ""), str):
            raise FormatError(f"{where}.{name} is {data[name]!r}", "text")
    query = data["query"].strip().rstrip(";")
    return Assertion(
        data.get("name") or " ".join(query.split())[:60], query, data.get("database", ""), timeout, expected
    )


def _check_value(kind: str, value: Any, where: str) -> None:
    if kind == "newer_than":
        span_of(value)
    elif kind == "rows":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise FormatError(f"{where}.rows is {value!r}", "a whole number")
    elif kind in ("at_least", "at_most") and _number(value) is None:
        raise FormatError(f"{where}.{kind} is {value!r}", "a number")
    elif isinstance(value, (list, dict)):
        raise FormatError(f"{where}.{kind} is {value!r}", "one value")


def span_of(value: Any) -> timedelta:
    """``26 h``, ``90 min``, ``2 days`` or a number of seconds. Raises FormatError."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return timedelta(seconds=value)
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise FormatError(f"newer_than is {value!r}", "a span of time such as 26 h, 90 min or 2 days")
    return timedelta(seconds=int(found.group(1)) * _UNITS[found.group(2)[0]])


def ask(conn: Connection[Any], assertion: Assertion, *, taken: datetime) -> Check:
    """Run one, in a transaction of its own that can write nothing and is rolled back."""
    import psycopg

    try:
        with conn.cursor() as cursor:
            cursor.execute(b"BEGIN READ ONLY")
            cursor.execute(
                f"SET LOCAL statement_timeout = {assertion.timeout_s * 1000}; SET LOCAL timezone = 'UTC'; "
                "SET LOCAL datestyle = 'ISO, YMD'".encode()
            )
            cursor.execute(assertion.query.encode())
            found = cursor.fetchmany(100_001) if cursor.description else None
    except psycopg.errors.QueryCanceled:
        return _check(assertion, f"no answer within {assertion.timeout_s} s")
    except psycopg.Error as error:
        # The first line alone: details can quote rows.
        words = error.diag.message_primary or str(error).strip().splitlines()[0]
        return _check(assertion, f"the query failed: {words}")
    finally:
        if not conn.closed:
            conn.rollback()
    if found is None:
        return _check(assertion, "the query gives no rows at all: it is no SELECT")
    return _check(assertion, "; ".join(judge(assertion, found, taken)))


def _check(assertion: Assertion, problem: str) -> Check:
    wanted = ", ".join(f"{kind} {value}" for kind, value in assertion.expected)
    return Check(
        NAME, FAILED if problem else PASSED, f"{assertion.name}: {wanted}", problem and f"{assertion.name}: {problem}"
    )


def judge(assertion: Assertion, rows: Sequence[Sequence[Any]], taken: datetime) -> list[str]:
    """What is not as expected; empty when all is. Pure. Texts from the data are not repeated: evidence holds no rows."""
    problems = []
    for kind, wanted in assertion.expected:
        if kind == "rows":
            if len(rows) != wanted:
                problems.append(f"{len(rows)} rows, expected {wanted}")
            continue
        if len(rows) != 1 or not rows[0]:
            problems.append(f"{len(rows)} rows, expected one")
            continue
        problems += _one(kind, rows[0][0], wanted, taken)
    return problems


def _one(kind: str, value: Any, wanted: Any, taken: datetime) -> list[str]:
    if value is None:
        return [] if kind == "value" and wanted is None else ["NULL (no rows to look at?)"]
    if kind == "newer_than":
        at = _time(value)
        if at is None:
            return ["no time in the first column"]
        late = taken - at - span_of(wanted)
        return (
            [f"newest is of {at:%Y-%m-%d %H:%M} UTC, {taken - at} before the snapshot"] if late > timedelta(0) else []
        )
    if kind == "value":
        return [] if _same(value, wanted) else [f"{_shown(value)}, expected {wanted}"]
    number, bound = _number(value), _number(wanted)
    if number is None or bound is None:
        return [f"{_shown(value)}, expected a number"]
    wrong = number < bound if kind == "at_least" else number > bound
    return [f"{number}, expected {kind.replace('_', ' ')} {bound}"] if wrong else []


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    one, two = _number(value), _number(wanted)
    return one == two if one is not None and two is not None else str(value) == str(wanted)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _time(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else None


def _shown(value: Any) -> str:
    """Numbers, times and truth as they are; of anything else only its kind."""
    if isinstance(value, (bool, int, float, Decimal, date, datetime)):
        return str(value)
    return f"another {'text' if isinstance(value, str) else type(value).__name__}"
