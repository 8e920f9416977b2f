# SPDX-License-Identifier: Apache-2.0
"""Where the data lives against where the inventory has it: every combination, and the look at a host's files."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from slipway.postgres import whereabouts
from slipway.postgres.whereabouts import Seen, judge, look

NOTHING = Seen()
EMPTY = Seen(cluster=True, running=True)
PRIMARY = Seen(cluster=True, running=True, databases=("notes",), on_disk=1)
OTHER = replace(PRIMARY, databases=("scratch",))
STOPPED = Seen(cluster=True, on_disk=1)
STANDBY = replace(PRIMARY, standby=True)
RESTING = replace(STOPPED, standby=True)
FENCED = replace(STOPPED, fence="committed")
LEASED = replace(STOPPED, fence="leased")
PREPARED = replace(PRIMARY, fence="open")
STATES = {
    "nothing": NOTHING, "empty": EMPTY, "other": OTHER,
    "primary": PRIMARY, "prepared": PREPARED, "stopped": STOPPED,
    "standby": STANDBY, "resting": RESTING, "fenced": FENCED, "leased": LEASED,
}  # fmt: skip
PAIRS = list(itertools.product(STATES, repeat=2))
HOLDS = {"primary", "prepared", "stopped"}
COPY = {"standby", "resting", "fenced", "leased"}


@pytest.mark.parametrize("database", ["app1", "db1"])
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_every_combination_of_two_hosts(old: str, new: str, database: str) -> None:
    verdict = judge({"app1": STATES[old], "db1": STATES[new]}, ["notes"], database=database, app="app1")
    holders = {name for name, state in (("app1", old), ("db1", new)) if state in HOLDS}
    if len(holders) == 2:
        expected = "two"
    elif holders:
        expected = "as_wished" if holders == {database} else "split" if holders == {"app1"} else "split_back"
    else:
        expected = "elsewhere" if {old, new} & COPY else "as_wished"
    assert verdict.kind == expected
    assert bool(str(verdict)) == (expected != "as_wished")
    playbook = {"split": "grow/split_db.yml", "split_back": "grow/split_db_rollback.yml"}.get(expected, "")
    assert playbook in str(verdict)


@pytest.mark.parametrize("climb", ["split_db", "split_db_rollback", "split_db_release"])
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_an_open_climb_comes_before_all_else(old: str, new: str, climb: str) -> None:
    hosts = {"app1": replace(STATES[old], climb=climb), "db1": STATES[new]}
    verdict = judge(hosts, ["notes"], database="db1", app="app1")
    assert verdict.kind == "open"
    assert f"playbooks/grow/{climb}.yml again" in str(verdict)


@pytest.mark.parametrize("state", STATES)
def test_one_host_for_all(state: str) -> None:
    verdict = judge({"web1": STATES[state]}, ["notes"], database="web1", app="web1")
    assert verdict.kind == ("elsewhere" if state in COPY else "as_wished")


def test_a_third_host_has_it() -> None:
    hosts = {"app1": NOTHING, "db1": PRIMARY, "db2": NOTHING}
    verdict = judge(hosts, ["notes"], database="db2", app="app1")
    assert verdict.kind == "elsewhere"
    assert "put db1 into the group db" in str(verdict)


def test_facts_survive_their_way() -> None:
    facts = json.loads(json.dumps({"cluster": True, "running": True, "databases": ["notes"], "later": 1}))
    assert Seen.parse(facts).holds(["notes"])
    assert Seen.parse({}) == NOTHING


def cluster(root: Path, *folders: str, pid: str = "") -> Path:
    data = root / "var/lib/postgresql/17/main"
    for name in ("base/1", "base/5", *folders):
        (data / name).mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    if pid:
        (data / "postmaster.pid").write_text(f"{pid}\n{data}\n1763770000\n5433\n/var/run/postgresql\n")
    return data


def test_a_bare_host_has_nothing(tmp_path: Path) -> None:
    assert Seen.parse(look(tmp_path)) == NOTHING


def test_a_stopped_cluster_is_told_by_its_files(tmp_path: Path) -> None:
    data = cluster(tmp_path, "base/16401")
    assert Seen.parse(look(tmp_path)) == STOPPED
    (data / "standby.signal").touch()
    assert Seen.parse(look(tmp_path)) == RESTING


def test_a_server_that_runs_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(argv: list[str], **_: object) -> object:
        asked.append(argv)
        return type("Answer", (), {"stdout": "primary\nnotes\nprimary\n"})

    cluster(tmp_path, "base/16401", "base/16402", pid="self")
    monkeypatch.setattr(whereabouts, "run", answer)
    found = Seen.parse(look(tmp_path))
    assert found == Seen(cluster=True, running=True, databases=("notes", "primary"), on_disk=2)
    assert asked[0][asked[0].index("-p") + 1] == "5433"


def test_one_that_does_not_answer_counts_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str], **_: object) -> object:
        raise whereabouts.CommandError("the database system is starting up")

    cluster(tmp_path, "base/16401", pid="self")
    monkeypatch.setattr(whereabouts, "run", fail)
    assert Seen.parse(look(tmp_path)) == STOPPED


def test_fence_pooler_and_open_climbs(tmp_path: Path) -> None:
    climbs, handover, pgbouncer = (
        tmp_path / name for name in ("var/lib/slipway/climbs", "var/lib/slipway/handover", "etc/pgbouncer")
    )
    for folder in (climbs, handover, pgbouncer):
        folder.mkdir(parents=True)
    (pgbouncer / "databases.ini").write_text(
        ";; head\n[databases]\nslipway_auth = host=10.214.1.2 port=5432 dbname=postgres\n"
    )
    (handover / "node.json").write_text('{"kind": "committed"}')
    (climbs / "20260101-resize.json").write_text('{"climb": "resize", "result": ""}')
    (climbs / "20260102-split_db.json").write_text('{"climb": "split_db", "result": "done"}')
    assert look(tmp_path) | {"databases": ()} == {
        "cluster": False, "running": False, "standby": False, "databases": (), "on_disk": 0,
        "fence": "committed", "pooler": "10.214.1.2", "climb": "",
    }  # fmt: skip
    (climbs / "20260103-split_db_rollback.json").write_text('{"climb": "split_db_rollback", "result": ""}')
    assert look(tmp_path)["climb"] == "split_db_rollback"
    (handover / "node.json").write_text("torn")
    assert look(tmp_path)["fence"] == "none"
