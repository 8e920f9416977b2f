# SPDX-License-Identifier: Apache-2.0
"""A manifest against what a restore brought back: every difference, by kind. Pure.

Not compared, on purpose: the server's own settings and versions, that of the collation included (a drill's cluster has
its own, and a dump builds its indexes anew), sizes in bytes, and snapshots. Sequences do not take part in snapshots, so they may be *past* the manifest's value, never before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .manifest import Access, Contents, Database, Extension, LargeObjects, Role, Table
from .manifest import Sequence as Counter

T = TypeVar("T")
MISSING, UNEXPECTED = "missing", "not in the manifest"

# Kinds of difference. The last one is no difference but a comparison that could not be made: never a pass.
DATABASE, TABLE, ROWS, CONTENT, SCHEMA = "database", "table", "rows", "content", "schema"
SEQUENCE, EXTENSION, ACCESS, ROLE, SETTING = "sequence", "extension", "access", "role", "setting"
COLLATION, LARGE_OBJECTS, SENTINEL, TABLESPACE = "collation", "large objects", "sentinel", "tablespace"
INCOMPARABLE = "incomparable"
KINDS = (
    DATABASE, TABLE, ROWS, CONTENT, SCHEMA, SEQUENCE, EXTENSION, ACCESS, ROLE, SETTING, COLLATION, LARGE_OBJECTS,
    SENTINEL, TABLESPACE, INCOMPARABLE,
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the manifest says. ``database`` is empty for what belongs to the whole cluster."""

    kind: str
    database: str
    subject: str
    expected: str
    actual: str

    def __str__(self) -> str:
        place = f"{self.database}: " if self.database else ""
        return f"{place}{self.kind} {self.subject}: expected {self.expected}, found {self.actual}"


def compare(expected: Contents, observed: Contents) -> list[Difference]:
    """Every difference, in a stable order: the cluster first, then database by database.

    What the restored cluster has *beside* the manifest's roles and databases (its own superuser, ``postgres``) is no
    difference; inside a database anything unexpected is one.
    """
    roles = _by_name(expected.cluster.roles)
    restored = {name: role for name, role in _by_name(observed.cluster.roles).items() if name in roles}
    found = list(_pairs(ROLE, "", roles, restored, _role))
    for name in sorted(set(expected.cluster.tablespaces) - set(observed.cluster.tablespaces)):
        found.append(Difference(TABLESPACE, "", name, "present", MISSING))
    for before in sorted(expected.databases, key=lambda each: each.name):
        after = observed.database(before.name)
        if after is None:
            found.append(Difference(DATABASE, before.name, before.name, "present", MISSING))
        else:
            found.extend(compare_database(before, after))
    return found


def compare_database(before: Database, after: Database) -> list[Difference]:
    """Every difference between a database as backed up and as restored."""
    name = before.name
    found = [
        Difference(kind, name, what, str(was), str(now))
        for kind, what, was, now in (
            (DATABASE, "owner", before.owner, after.owner),
            (DATABASE, "encoding", before.encoding, after.encoding),
            (COLLATION, "of the database", before.collation, after.collation),
        )
        if was != now
    ]
    found += _pairs(TABLE, name, _by_name(before.tables), _by_name(after.tables), _table)
    found += _pairs(SEQUENCE, name, _by_name(before.sequences), _by_name(after.sequences), _sequence)
    found += _pairs(EXTENSION, name, _by_name(before.extensions), _by_name(after.extensions), _extension)
    for kind in sorted(set(before.schema) | set(after.schema)):
        was, now = (_prefixed(kind, each.schema.get(kind, {})) for each in (before, after))
        found += _pairs(SCHEMA, name, was, now, _definition)
    found += _pairs(ACCESS, name, _by_object(before.access), _by_object(after.access), _access)
    found += _pairs(SETTING, name, before.settings, after.settings, _value)
    large = {"": before.large_objects}, {"": after.large_objects}
    found += _pairs(LARGE_OBJECTS, name, *large, _large_objects)
    if before.sentinel != after.sentinel:
        was_at, now_at = (str(each.at) if each else MISSING for each in (before.sentinel, after.sentinel))
        found.append(Difference(SENTINEL, name, "row", was_at, now_at if was_at != now_at else "another token"))
    return found


# A check of one pair gives (kind, what, expected, actual) for each difference; kind '' means that of the pair.
_Finding = tuple[str, str, Any, Any]


def _pairs(
    kind: str,
    database: str,
    before: Mapping[str, T],
    after: Mapping[str, T],
    check: Callable[[T, T], Iterable[_Finding]],
) -> Iterable[Difference]:
    for key in sorted(set(before) | set(after)):
        if key not in after:
            yield Difference(kind, database, key, "present", MISSING)
        elif key not in before:
            yield Difference(kind, database, key, "absent", UNEXPECTED)
        else:
            for its_kind, what, was, now in check(before[key], after[key]):
                subject = f"{key} {what}".strip()
                yield Difference(its_kind or kind, database, subject, str(was), str(now))


def _fields(was: Any, now: Any, names: Sequence[str]) -> Iterable[_Finding]:
    for name in names:
        one, two = getattr(was, name), getattr(now, name)
        if one != two:
            yield "", name, _words(one), _words(two)


def _table(was: Table, now: Table) -> Iterable[_Finding]:
    if was.rows != now.rows:
        yield ROWS, "", was.rows, now.rows
    if was.method != now.method or was.sample != now.sample:
        rules = [f"{each.method}, {each.sample or 'all rows'}" for each in (was, now)]
        yield INCOMPARABLE, "content hash", rules[0], rules[1]
    elif was.content != now.content or was.hashed != now.hashed:
        yield CONTENT, "", f"{was.content} over {was.hashed} rows", f"{now.content} over {now.hashed} rows"


def _sequence(was: Counter, now: Counter) -> Iterable[_Finding]:
    if was.increment != now.increment:
        yield SEQUENCE, "increment", was.increment, now.increment
        return
    # One that was behind its column already (ids inserted by hand) is restored as it was: not the backup's fault.
    if now.behind and not was.behind:
        yield SEQUENCE, "", f"past {now.column_furthest}, the furthest {now.column}", now.value
    steps = (now.value - was.value) * (1 if was.increment > 0 else -1)
    if steps < 0 or (steps == 0 and was.called and not now.called):
        yield SEQUENCE, "", f"{was.value} or past it", now.value if steps else f"{now.value}, not yet used"


def _definition(was: str, now: str) -> Iterable[_Finding]:
    if was != now:
        yield SCHEMA, "", f"definition {was}", f"definition {now}"


def _value(was: str, now: str) -> Iterable[_Finding]:
    if was != now:
        yield "", "", was, now


def _extension(was: Extension, now: Extension) -> Iterable[_Finding]:
    yield from _fields(was, now, ("version", "schema"))


def _large_objects(was: LargeObjects, now: LargeObjects) -> Iterable[_Finding]:
    yield from _fields(was, now, ("count", "bytes", "content"))


def _access(was: Access, now: Access) -> Iterable[_Finding]:
    yield from _fields(was, now, ("owner",))
    lost, gained = set(was.privileges) - set(now.privileges), set(now.privileges) - set(was.privileges)
    if lost or gained:
        yield ACCESS, "grants", _words(sorted(lost)) or "nothing more", _words(sorted(gained)) or "without them"


def _role(was: Role, now: Role) -> Iterable[_Finding]:
    yield from _fields(was, now, ("attributes", "member_of", "settings"))


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _by_name(items: Iterable[T]) -> dict[str, T]:
    return {getattr(each, "name"): each for each in items}  # noqa: B009 - T has no bound: five classes share the field


def _by_object(items: Iterable[Access]) -> dict[str, Access]:
    return {f"{each.kind} {each.name}": each for each in items}


def _prefixed(kind: str, items: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind} {name}": each for name, each in items.items()}
