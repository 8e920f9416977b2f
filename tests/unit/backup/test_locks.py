# SPDX-License-Identifier: Apache-2.0
"""What a drill makes of the locks of what it fetches: told and alarmed, and no failure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from slipway.backup.config import Config, Place
from slipway.backup.drills import locks, watch
from slipway.backup.drills.evidence_view import markdown
from slipway.backup.drills.find import Found
from slipway.backup.stores.store import AccessError, Entry, Lock, MissingError, StoreError

from .test_evidence import DRILL
from .test_manifest import example

TAKEN = datetime(2026, 3, 15, 12, tzinfo=UTC)
NOW = TAKEN + timedelta(days=1)
PLACE = Place("s3", endpoint="https://s3.test", region="r", bucket="b", lock_mode="COMPLIANCE", lock_days=14)
UNTIL = TAKEN + timedelta(days=14)
MANIFEST = replace(example(), started=TAKEN, finished=TAKEN + timedelta(minutes=5))
FOUND = Found(MANIFEST.backup_id, Entry(f"db1/{MANIFEST.backup_id}/manifest.json", 1, TAKEN, "v9"))


@dataclass
class Locked:
    """A store that knows locks alone. ``held``: end of the key to its lock; anything else gets ``rest``."""

    rest: Lock | Exception | None
    held: dict[str, Lock | None] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def locked(self, key: str, *, version: str = "") -> Lock | None:
        self.asked.append((key, version))
        if key.rpartition("/")[2] in self.held:
            return self.held[key.rpartition("/")[2]]
        if isinstance(self.rest, Exception):
            raise self.rest
        return self.rest


def found(store: Locked, place: Place = PLACE, now: datetime = NOW) -> tuple[str, ...]:
    return locks.findings(place, store, FOUND, MANIFEST, now)  # type: ignore[arg-type]


@pytest.mark.parametrize("until", [UNTIL - timedelta(seconds=1), UNTIL, UNTIL + timedelta(days=9)])
def test_what_is_locked_long_enough_is_no_finding_and_every_object_is_asked_for(until: datetime) -> None:
    store = Locked(Lock("COMPLIANCE", until))
    assert found(store) == ()
    assert store.asked == [*((each.key, each.version) for each in MANIFEST.objects), (FOUND.entry.key, "v9")]


def test_without_a_lock_in_the_settings_or_after_its_time_nothing_is_asked() -> None:
    store = Locked(None)
    assert found(store, replace(PLACE, lock_mode="", lock_days=0)) == ()
    assert found(store, now=UNTIL) == ()
    assert store.asked == []


def test_a_missing_lock_is_named_with_the_way_to_mend_it() -> None:
    store = Locked(None, {"manifest.json": Lock("COMPLIANCE", UNTIL)})
    (line,) = found(store)
    number = len(MANIFEST.objects)
    assert line.startswith(f"{number} of {number + 1} objects of {MANIFEST.backup_id} are not locked: ")
    assert "compliance until 2026-03-29 12:00 UTC" in line
    assert "set_up_bucket.yml" in line


def test_a_lock_too_short_or_of_the_weaker_kind_is_named() -> None:
    (line,) = found(Locked(Lock("COMPLIANCE", UNTIL), {"manifest.json": Lock("COMPLIANCE", NOW)}))
    assert "manifest.json until 2026-03-16 12:00 UTC" in line
    (line,) = found(Locked(Lock("COMPLIANCE", UNTIL), {"manifest.json": Lock("GOVERNANCE", UNTIL)}))
    assert "manifest.json in governance mode" in line
    mild = replace(PLACE, lock_mode="GOVERNANCE")
    assert found(Locked(Lock("COMPLIANCE", UNTIL)), mild) == ()


def test_a_key_that_may_not_look_and_a_store_that_is_away_are_no_silence() -> None:
    (line,) = found(Locked(AccessError("refused")))
    assert "is not known" in line
    assert "readFileRetentions" in line
    (line,) = found(Locked(StoreError("the store is away")))
    assert "could not be asked: the store is away" in line
    assert found(Locked(MissingError("gone"))) == ()  # the check of objects fails for that


def test_a_finding_alarms_and_shows_and_the_verdict_stays() -> None:
    drill = replace(DRILL, verdict="proved", recovery=None, findings=("2 of 3 objects are not locked",),
                    tried=tuple(replace(each, verdict="proved") for each in DRILL.tried))  # fmt: skip
    config = Config("db1", PLACE, ("app",))
    event = watch.event(config, drill)
    assert event.outcome == "failed"
    assert "2 of 3 objects are not locked" in event.text
    assert watch.event(config, replace(drill, findings=())).outcome == "good"
    values = {each.name: each.values[0][1] for each in watch.metrics(config, [drill])}
    assert (values["slipway_drill_findings"], values["slipway_drill_last_run_good"]) == (1, 1)
    from slipway.backup.drills.evidence import Record

    assert "## Findings\n\n- 2 of 3 objects" in markdown(Record(1, drill.finished, "0" * 64, drill), "x")
