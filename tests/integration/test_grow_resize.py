# SPDX-License-Identifier: Apache-2.0
"""The climb ``grow/resize.yml``: up under load, down through kills at every phase boundary, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence

import pytest
from slipway.climb import operator

from tests.integration.fingerprint import differences, fingerprint
from tests.integration.grow import Grow, loaded, nothing_failed
from tests.integration.world import recap
from tests.load.model import Report

pytest_plugins = ["tests.integration.grow_fixture"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SMALL, LARGE = 2048, 4096
PAUSE_MS = 5000
"""What a write may wait for at most, the issue's own bound."""


def running(grown: Grow) -> dict[str, str]:
    """What a person would look at to believe it: the server, the pooler's console, the container's own control group."""
    app = json.loads(grown.world.root("slipway app status --json"))["apps"][0]
    inspected = json.loads(grown.world.root(f"docker inspect slipway_notes_{app['colour']}"))
    env = dict(word.partition("=")[::2] for word in inspected[0]["Config"]["Env"])
    console = "runuser -u pgbouncer -- psql -XAtq -h /run/pgbouncer -p 6432 pgbouncer -c"
    pools = grown.world.root(f"{console} 'SHOW DATABASES'").splitlines()
    return {
        "shared_buffers": grown.world.sql("SHOW shared_buffers"),
        "max_connections": grown.world.sql("SHOW max_connections"),
        "max_client_conn": next(
            line.split("|")[1] for line in grown.world.root(f"{console} 'SHOW CONFIG'").splitlines() if line.startswith("max_client_conn|")
        ),
        "pool": next(line.split("|")[5] for line in pools if line.startswith("notes|")),
        "memory_mb": str(inspected[0]["HostConfig"]["Memory"] // 2**20),
        "client_pool": env["POOL_SIZE"],
    }  # fmt: skip


SIZED = {
    SMALL: {"shared_buffers": "512MB", "max_connections": "50", "max_client_conn": "500", "pool": "11", "memory_mb": "316", "client_pool": "10"},
    LARGE: {"shared_buffers": "1GB", "max_connections": "100", "max_client_conn": "1000", "pool": "12", "memory_mb": "808", "client_pool": "15"},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small_again(grown: Grow) -> Iterator[None]:
    """The next file's climb begins on a small host, as this one did."""
    put_back(grown)
    yield
    put_back(grown)


def put_back(grown: Grow) -> None:
    left = [one for one in grown.records() if not one["result"]]
    if left or running(grown) != SIZED[SMALL]:
        grown.size(SMALL)
        grown.climb("resize")


def waited_within_the_bound(grown: Grow, report: Report) -> None:
    """What came while PostgreSQL restarted waited for less than the bound."""
    begun = float(grown.world.sql("SELECT extract(epoch FROM pg_postmaster_start_time())"))
    pause = report.between(begun - 6, begun + 3)
    print(f"around PostgreSQL's restart: {pause['ok']:.0f} requests, longest {pause['worst_ms']:.0f} ms")
    assert pause["ok"] > 100, "the restart was not under load"
    assert pause["worst_ms"] - report.largest_lag_ms < PAUSE_MS


def test_check_prints_the_plan_and_leaves_the_host_as_it_was(grown: Grow) -> None:
    grown.size(LARGE)
    try:
        said = grown.check_touches_nothing("resize")
    finally:
        grown.size(SMALL)
    assert "> postgres shared_buffers" in said
    assert "512MB  1024MB  PostgreSQL restarts" in said
    assert "a month" in said
    assert "nothing was changed." in said


def test_nothing_to_do_says_so_and_changes_nothing(grown: Grow) -> None:
    before = len(grown.records())
    done = grown.climb("resize")
    assert "Nothing to do" in done.stdout
    assert recap(done)["changed"] == 0
    assert len(grown.records()) == before


def test_up_under_load_no_request_fails_and_everything_runs_with_its_new_size(grown: Grow) -> None:
    assert running(grown) == SIZED[SMALL]
    pooler = grown.world.root("systemctl show -p MainPID --value pgbouncer.service")
    grown.size(LARGE)
    with loaded(grown) as load:
        time.sleep(3)
        done = grown.climb("resize")
        time.sleep(3)
        report = load.stop()
    nothing_failed(grown, report, "up")
    waited_within_the_bound(grown, report)
    assert running(grown) == SIZED[LARGE]
    assert grown.world.root("systemctl show -p MainPID --value pgbouncer.service") == pooler, "the pooler was restarted"
    last = grown.records()[-1]
    assert (last["climb"], last["result"], [one["name"] for one in last["phases"]]) == (
        "resize", "done", ["prove", "prepare", "cut_over", "verify"],
    )  # fmt: skip
    held = float(last["facts"]["held_seconds"])
    print(f"held by the pooler: {held} s")
    assert 0 < held < PAUSE_MS / 1000
    assert "every figure was read back" in done.stdout
    assert '"what":"climb","climb":"resize"' in grown.world.root("tail -n 3 /var/log/slipway/journal.jsonl")


def test_a_backup_that_a_drill_has_proved_stands_behind_it(grown: Grow) -> None:
    drills = json.loads(grown.world.root("slipway drill list --json"))["drills"]
    assert drills[0]["verdict"] == "proved"
    assert (
        "restored and proved by a drill" in grown.records()[-1]["plan"]["proof"]
        or "drilled first" in grown.records()[-1]["plan"]["proof"]
    )


def test_a_long_transaction_ends_it_before_anything_is_changed(grown: Grow) -> None:
    sleeper = subprocess.Popen(
        ["ssh", "-F", str(grown.world.lab.ssh_config), "-o", "BatchMode=yes", "-l", "ops", grown.world.host.name,
         "sudo runuser -u postgres -- psql -XAtqc 'SELECT pg_sleep(90)' notes"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    grown.size(SMALL)
    try:
        time.sleep(4)
        before = fingerprint(grown.world)
        done = grown.climb("resize", "-e", "rung_resize_longest_transaction=2", good=False)
        assert "has been open for" in done.stdout
        assert "To mend it" in done.stdout
        assert differences(before, fingerprint(grown.world)) == {}
    finally:
        grown.world.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(90)%'"
        )
        sleeper.wait(30)
        grown.size(LARGE)


def test_a_pooler_whose_holder_was_killed_is_let_go_by_the_host_itself(grown: Grow) -> None:
    """As if power had gone from the process, not from the host, in the midst of PostgreSQL's restart."""
    program = (
        "import os, sys; sys.path.insert(0, os.path.realpath('/usr/lib/slipway/current'))\n"
        "from slipway.postgres import pooler\n"
        "with pooler.paused(6432, at_most=3): os.kill(os.getpid(), 9)"
    )
    grown.world.root(["python3", "-c", program], check=False)
    started = time.monotonic()
    body = json.dumps({"id": "5f0c1a52-7d1e-4d36-9f0e-000000000001", "text": "waited"})
    done = grown.world.curl(
        "/api/notes", "-X", "POST", "-H", "Content-Type: application/json", "-d", body, "-w", "%{http_code}"
    )
    waited = time.monotonic() - started
    grown.world.sql("DELETE FROM notes WHERE text = 'waited'")
    assert done.stdout.endswith("201"), done.stdout + done.stderr
    assert 3 < waited < 14


def test_a_budget_that_does_not_fit_is_refused_and_nothing_is_changed(grown: Grow) -> None:
    before = fingerprint(grown.world)
    grown.settings = {"postgres_settings": {"shared_buffers": "3500MB"}}
    try:
        done = grown.climb("resize", good=False)
    finally:
        grown.settings = {}
        grown.world.write_inventory()
    assert "does not fit" in done.stdout or "MB" in done.stdout
    assert "To mend it" in done.stdout
    assert differences(before, fingerprint(grown.world)) == {}


KILLS = (
    ("climb : Begin", 1, "prove"),
    ("climb : Note the phase", 1, "prepare"),
    ("climb : Note the phase", 2, "cut_over"),
    ("app : Start the deploy of notes", 1, "cut_over"),
    ("postgres : Configure PostgreSQL", 1, "cut_over"),
    ("climb : Note the phase", 3, "verify"),
)
"""After which task ansible is killed, and the phase in which the climb then stands."""


def in_other_hands(grown: Grow) -> None:
    """A climb that a run of another machine, or one that lives, has in hand is left alone, and so is the host for any other climb."""
    (path,) = grown.world.root('grep -L \'"result": "[a-z]\' /var/lib/slipway/climbs/[0-9]*.json').split()
    dead = grown.records()[-1]["phases"][-1]["run"]
    for run in ("ci/00000000/1/elsewhere", str(operator.this(os.getpid()))):
        grown.world.root(["sed", "-i", f"s#{dead}#{run}#", path])
        done = grown.climb("resize", good=False)
        assert f"runs this climb from {run.split('/')[0]}" in done.stdout
        assert "nothing was changed" in done.stdout
        grown.world.root(["sed", "-i", f"s#{run}#{dead}#", path])
    assert "The climb resize has begun on" in grown.climb("add_redis", good=False).stdout


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(KILLS[3:5], id="inside the cut-over"),
        pytest.param(KILLS, id="at every phase boundary and inside the cut-over", marks=pytest.mark.slow),
    ],
)
def test_down_through_kills(grown: Grow, kills: Sequence[tuple[str, int, str]]) -> None:
    if running(grown) != SIZED[LARGE]:
        grown.size(LARGE)
        grown.climb("resize")
    grown.size(SMALL)
    with loaded(grown) as load:
        grown.killed_each("resize", kills)
        in_other_hands(grown)
        done = grown.climb("resize")
        time.sleep(2)
        report = load.stop()
    nothing_failed(grown, report, f"down, killed {len(kills)} times")
    waited_within_the_bound(grown, report)
    assert f"stopped in the phase {kills[-1][2]}" in done.stdout
    assert running(grown) == SIZED[SMALL]
    last = grown.records()[-1]
    assert last["result"] == "done"
    assert len([one for one in grown.records() if not one["result"]]) == 0
    assert "Nothing to do" in grown.climb("resize").stdout
    grown.site_changes_nothing()
