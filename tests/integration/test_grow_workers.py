# SPDX-License-Identifier: Apache-2.0
"""Background workers on a real host, and the climb that adds them: its plan, killed between its phases, and back again; no request fails and
no job is lost or cut off by climb, deploy, rollback and a deploy that fails; workers come back after whatever ends them.

Real jobs of a second, laid down over HTTPS into a table (tests/load/jobs.py). The tests build on each other, in order.
"""

from __future__ import annotations

import copy
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.grow import Grow
from tests.integration.world import Done, World
from tests.load import BackgroundLoad, Plan, Report, Target
from tests.load.jobs import Enqueuer, Ledger, Outcome, outcome

pytest_plugins = ["tests.integration.grow_fixture"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

JOB = {"name": "work", "command": ["python", "-m", "notes.jobs"], "count": 2, "memory_mb": 64, "drain_seconds": 20}
RATE = 1.5  # two workers do two jobs of a second in a second
REQUESTS = 20.0  # another stage has the other core: what is asked for must be answered beside it


def wish(world: World, **changes: Any) -> list[dict[str, Any]]:
    """The example application with two workers, and ``changes``; ``env`` is laid over."""
    apps: list[dict[str, Any]] = copy.deepcopy(world.settings["slipway_apps"])
    env = {**apps[0].get("env", {}), **changes.pop("env", {})}
    apps[0] |= {"jobs": [JOB], **changes, "env": env}
    return apps


def workers(world: World) -> dict[str, str]:
    """The background containers that run, and the release of each."""
    form = '{{.Names}} {{.Label "slipway.release"}}'
    said = world.root(["docker", "ps", "--filter", "label=slipway.job", "--format", form])
    return dict(line.split(" ", 1) for line in said.splitlines())


def all_workers(world: World) -> int:
    """How many background containers there are, those that do not run too."""
    return len(world.root("docker ps -aq --filter label=slipway.job").split())


def serving(world: World) -> str:
    """The release that answers."""
    return str(json.loads(world.curl("/healthz").stdout)["release"])


def wait_for(found: Callable[[], object], seconds: float = 60) -> float:
    """Seconds until it is so."""
    began = time.monotonic()
    while not found():
        assert time.monotonic() - began < seconds, f"not so after {seconds:g} s"
        time.sleep(0.5)
    return time.monotonic() - began


@dataclass
class Seen:
    """What clients and queue saw while something was done."""

    report: Report
    ledger: Ledger
    found: Outcome

    def nobody_noticed(self) -> None:
        """No request failed, and each job was done, once, at its first beginning."""
        assert self.report.failed == [], self.report.kinds
        assert self.ledger.failed == []
        assert (self.found.lost, self.found.repeated) == ([], [])
        assert self.found.cut_off == 0, "a worker was killed with a job in hand"


def while_loaded(world: World, what: Callable[[], None], name: str, rate: float = RATE) -> Seen:
    """Do something while clients ask and lay down ``rate`` jobs a second."""
    target = Target(f"https://{world.domain}", world.ip, str(world.ca))
    with BackgroundLoad(target, Plan(seconds=None, rate=REQUESTS)) as load, Enqueuer(target, rate=rate) as jobs:
        began = time.monotonic()
        time.sleep(2)
        what()
        time.sleep(3)
        took = time.monotonic() - began
        report = load.stop()
    found = outcome(jobs.ledger, world.sql)
    print(
        f"{name}: {took:.0f} s, {report.ok} of {report.planned} requests answered, {len(jobs.ledger.acknowledged)} jobs, "
        f"{len(found.lost)} lost, {len(found.repeated)} repeated, {found.cut_off} cut off, by release {found.by_release}"
    )
    return Seen(report, jobs.ledger, found)


# -- the climb ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wished(grown: Grow) -> Iterator[Grow]:
    """The inventory wishes for two workers; afterwards for what it did before."""
    grown.settings = {"slipway_apps": wish(grown.world)}
    yield grown
    grown.settings = {}


BOUNDARIES = (
    ("climb : Begin", 1, "prove"),
    ("climb : Note the phase", 1, "prepare"),
    ("app : Start the deploy of notes", 1, "cut_over"),
    ("climb : Note the phase", 3, "verify"),
)
"""After which task ansible is killed, and the phase in which the climb then stands."""


@dataclass
class Climb:
    """The climb as it went: what the run said that finished it, and which phase each killed run had reached."""

    said: str
    reached: list[str]
    before: str
    seen: Seen


@pytest.fixture(scope="module")
def climbed(wished: Grow) -> Climb:
    """The climb under load, killed at each boundary of its phases, then run to its end."""
    reached: list[str] = []
    said: list[str] = []
    before = serving(wished.world)

    def climb() -> None:
        for task, number, _ in BOUNDARIES:
            wished.killed("add_workers", task, number)
            reached.append(str(wished.records()[-1]["phases"][-1]["name"]))
        said.append(wished.climb("add_workers").stdout)

    seen = while_loaded(wished.world, climb, f"climb, killed {len(BOUNDARIES)} times", rate=0.5)
    return Climb(said[0], reached, before, seen)


def test_the_plan_alone_touches_nothing(wished: Grow) -> None:
    said = wished.check_touches_nothing("add_workers")
    assert "app notes: background job work" in said
    assert "2 x 64 MB" in said
    assert "none that a user notices" in said
    assert "This was a look alone" in said
    assert workers(wished.world) == {}


def test_more_than_the_server_carries_is_refused_with_the_remedy(wished: Grow) -> None:
    wished.settings = {"slipway_apps": wish(wished.world, jobs=[{**JOB, "memory_mb": 512}])}
    try:
        done = wished.climb("add_workers", good=False)
    finally:
        wished.settings = {"slipway_apps": wish(wished.world)}
    assert "lower count or memory_mb in jobs of notes" in " ".join((done.stdout + done.stderr).split())
    assert workers(wished.world) == {}


def test_killed_between_its_phases_the_next_run_finishes(wished: Grow, climbed: Climb) -> None:
    assert climbed.reached == [phase for _, _, phase in BOUNDARIES]
    assert "Interrupted" in climbed.said
    assert len(workers(wished.world)) == 2
    assert set(workers(wished.world).values()) == {serving(wished.world)} != {climbed.before}
    record = wished.records()[-1]
    assert (record["climb"], record["result"]) == ("add_workers", "done")
    assert record["facts"]["jobs"]["notes"][0]["count"] == 2


def test_nobody_notices_the_climb(climbed: Climb) -> None:
    climbed.seen.nobody_noticed()
    assert len(climbed.seen.ledger.acknowledged) > 20


def test_afterwards_there_is_nothing_to_do(wished: Grow, climbed: Climb) -> None:
    assert climbed
    assert "Nothing to do" in wished.climb("add_workers").stdout
    wished.site_changes_nothing()


# -- background workers ---------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A deploy, a rollback and a deploy whose workers cannot start: how each ended, what served after it, and which workers ran."""

    done: dict[str, Done]
    releases: list[str]
    workers: list[dict[str, str]]
    seen: Seen


@pytest.fixture(scope="module")
def run(wished: Grow, climbed: Climb) -> Run:
    """All three under load, with a queue that is never empty for long; then the host as the inventory wants it."""
    assert climbed
    world = wished.world
    done: dict[str, Done] = {}
    releases, ran = [serving(world)], [workers(world)]

    def phase(name: str, playbook: str, *args: str, **changes: Any) -> None:
        world.write_inventory(slipway_apps=wish(world, **changes))
        done[name] = world.playbook(playbook, *args)
        time.sleep(3)
        releases.append(serving(world))
        ran.append(workers(world))

    def work() -> None:
        phase("deploy", "deploy", env={"ROUND": uuid.uuid4().hex[:8]})
        phase("rollback", "rollback", "-e", "app=notes")
        phase("failing deploy", "deploy", env={"FAIL_JOBS": "1"})

    seen = while_loaded(world, work, "deploy, rollback, failing deploy")
    world.write_inventory(slipway_apps=wish(world))
    restored = world.playbook("deploy")
    assert restored.returncode == 0, restored.stdout[-4000:]
    return Run(done, releases, ran, seen)


def test_a_deploy_and_a_rollback_change_the_workers_with_the_release(run: Run) -> None:
    for name in ("deploy", "rollback"):
        assert run.done[name].returncode == 0, run.done[name].stdout[-4000:]
    first, second, third, last = run.releases
    assert first == third == last != second
    for release, ran in zip(run.releases, run.workers, strict=True):
        assert len(ran) == 2
        assert set(ran.values()) == {release}


def test_workers_that_cannot_start_fail_the_deploy_before_the_switch_and_the_message_says_why(run: Run) -> None:
    said = run.done["failing deploy"].stdout + run.done["failing deploy"].stderr
    assert run.done["failing deploy"].returncode != 0
    assert "A container of the background job work ended with code 2 within 5 s of its start" in said
    assert "FAIL_JOBS is set" in said, "its last log lines"
    assert "Traceback" not in said


def test_no_request_fails_and_no_job_is_lost_repeated_or_cut_off(run: Run) -> None:
    run.seen.nobody_noticed()
    assert len(run.seen.ledger.acknowledged) > 40
    assert set(run.seen.found.by_release) == set(run.releases), "both releases did jobs"


def test_status_and_logs_show_them(wished: Grow, run: Run) -> None:
    assert run
    (app,) = json.loads(wished.world.root(["slipway", "app", "status", "--json"]))["apps"]
    assert app["jobs"] == [{"name": "work", "count": 2, "running": 2, "restarts": 0, "memory_limit_mb": 64}]
    assert "job done" in wished.world.root("journalctl -t slipway-notes-work --no-pager | tail -200")


def test_they_are_in_the_web_containers_jail(wished: Grow, run: Run) -> None:
    assert run
    for name in workers(wished.world):
        (found,) = json.loads(wished.world.root(["docker", "inspect", name]))
        host = found["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert (host["Memory"], host["MemorySwap"]) == (64 << 20, 64 << 20)
        assert not host["PortBindings"]
        assert host["LogConfig"]["Type"] == "journald"
        assert host["RestartPolicy"]["Name"] == "unless-stopped"


def kill_one(world: World) -> None:
    """As the kernel's memory killer would."""
    pid = world.root(["docker", "inspect", "-f", "{{.State.Pid}}", next(iter(workers(world)))]).strip()
    world.root(["kill", "-KILL", pid])


def restart_docker(world: World) -> None:
    """As an upgrade of the package would."""
    world.root("systemctl restart docker.service", timeout=120)


def restart_host(world: World) -> None:
    """As after a kernel update."""
    world.driver.restart(world.host)
    world.refresh()


@pytest.mark.parametrize("ending", [kill_one, restart_docker, restart_host])
def test_they_come_back_by_themselves_and_finish_the_job(
    wished: Grow, run: Run, ending: Callable[[World], None]
) -> None:
    assert run
    world = wished.world
    job = str(uuid.uuid4())
    world.sql(f"INSERT INTO notes_job (id, seconds) VALUES ('{job}', 3)")  # noqa: S608 - a uuid
    ending(world)
    wait_for(lambda: len(workers(world)) == 2, 90)
    wait_for(lambda: world.sql(f"SELECT done FROM notes_job WHERE id = '{job}'") == "1", 60)  # noqa: S608
    world.wait_until_serving()


def test_the_way_back_is_the_same_playbook_without_them(wished: Grow, run: Run) -> None:
    assert run
    wished.settings = {}
    said = wished.climb("add_workers").stdout
    assert "work of notes ends after the job in hand" in said
    assert all_workers(wished.world) == 0
    wished.site_changes_nothing()
