# SPDX-License-Identifier: Apache-2.0
"""Background workers: their containers, how a deploy brings them up and lets the old ones go, and what it says when they do not run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from slipway.deploy import compose, ctl, docker
from slipway.deploy import spec as appspec
from slipway.deploy import wish as wishes
from slipway.deploy.colours import World
from slipway.errors import InputError, SlipwayError

from tests.unit.deploy_world import FakeHost, serving

JOBS: list[dict[str, Any]] = [
    {"name": "mail", "command": ["python", "-m", "mail", "$HOME"], "count": 2, "memory_mb": 128, "drain_seconds": 45},
    {"name": "index", "command": ["index"]},
]
BLUE = ["slipway_notes_blue-index-1", "slipway_notes_blue-mail-1", "slipway_notes_blue-mail-2"]
GREEN = [name.replace("blue", "green") for name in BLUE]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host with Docker and nothing else."""
    return FakeHost(tmp_path, monkeypatch)


def parsed(jobs: Any = None, **more: Any) -> appspec.Spec:
    """A spec of app notes with these jobs."""
    image = {"source": "registry", "reference": "r/notes:1"}
    return appspec.parse({"name": "notes", "image": image, "jobs": JOBS if jobs is None else jobs, **more})


def services(**more: Any) -> dict[str, Any]:
    """The Compose services of that app."""
    env = {"POOL_SIZE": "10", "WORKERS": "4", "DATABASE_URL": "postgresql://pooled"}
    made = compose.compose(
        parsed(**more), env, image="slipway/notes:R1", release="R1", colour="blue", address="10.213.87.100"
    )
    return dict(made["services"])


def test_each_container_is_a_service_in_the_web_containers_jail() -> None:
    found = services(read_only=True, user="10001", volumes=["up:/data"])
    assert sorted(found) == ["job-index-1", "job-mail-1", "job-mail-2", "web"]
    assert sorted(one["container_name"] for name, one in found.items() if name != "web") == BLUE
    own = {"command", "container_name", "environment", "mem_limit", "memswap_limit", "logging", "labels", "healthcheck"}
    own |= {"stop_grace_period", "networks"}
    for name in ("job-mail-1", "job-index-1"):
        for key in set(found["web"]) - own:
            assert found[name][key] == found["web"][key], key
        assert "ports" not in found[name]
        assert found[name]["networks"] == {"apps": {}}, "the web container's address is its own"


def test_each_job_has_its_own_command_limit_time_and_log() -> None:
    mail, index = services()["job-mail-2"], services()["job-index-1"]
    assert mail["command"] == ["python", "-m", "mail", "$$HOME"]
    assert (mail["mem_limit"], mail["memswap_limit"], index["mem_limit"]) == ("128m", "128m", "256m")
    assert (mail["stop_grace_period"], index["stop_grace_period"]) == ("45s", "30s")
    assert mail["logging"]["options"]["tag"] == "slipway-notes-mail"
    assert mail["labels"]["slipway.job"] == "mail"
    assert mail["healthcheck"] == {"disable": True}


def test_a_job_is_told_who_it_is_and_that_it_is_one_process() -> None:
    env = services()["job-mail-2"]["environment"]
    assert (env["SLIPWAY_JOB"], env["SLIPWAY_JOB_NUMBER"], env["SLIPWAY_COLOUR"]) == ("mail", "2", "blue")
    assert (env["WORKERS"], env["POOL_SIZE"], env["DATABASE_URL"]) == ("1", "1", "postgresql://pooled")
    assert "CONCURRENCY" not in env, "the app was not given it"


def test_an_app_without_jobs_is_the_same_wish_as_before_there_were_any() -> None:
    assert "jobs" not in parsed([]).to_json()
    again = appspec.parse(json.loads(parsed().to_json()))
    assert again == parsed()


@pytest.mark.parametrize(
    ("jobs", "says"),
    [
        ("mail", "jobs is 'mail'"),
        (["mail"], "a job is 'mail'"),
        ([{"name": "Mail", "command": ["x"]}], "job name 'Mail' cannot be used"),
        ([{"name": "mail"}], "the command of job mail is None"),
        ([{"name": "mail", "command": "python -m mail"}], "a list of words"),
        ([{"name": "mail", "command": ["x"], "counts": 2}], "counts"),
        ([{"name": "mail", "command": ["x"], "count": 33}], "count of job mail is 33"),
        ([{"name": "mail", "command": ["x"], "count": "two"}], "count is 'two'"),
        ([{"name": "mail", "command": ["x"], "memory_mb": 8}], "memory_mb of at least 16"),
        ([{"name": "mail", "command": ["x"]}] * 2, "two jobs are called mail"),
        ([{"name": f"mail{i}", "command": ["x"]} for i in range(33)], "33 jobs"),
    ],
)
def test_a_wrong_job_is_refused_with_its_name(jobs: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed(jobs)
    assert says in str(caught.value)
    assert "notes" in str(caught.value)


def test_argument_lists() -> None:
    assert compose.up_argv("p", "/f", ["job-mail-1"])[-4:] == [
        "--detach",
        "--no-build",
        "--remove-orphans",
        "job-mail-1",
    ]
    assert compose.stop_jobs_argv(["a", "b"]) == ["docker", "stop", "a", "b"], (
        "each with the time that it was made with"
    )
    assert compose.jobs_argv("notes")[-3:] == ["label=slipway.app=notes", "--filter", "label=slipway.job"]


def test_dockers_own_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"Running": True, "Restarting": False, "Pid": 7, "ExitCode": 0}
    labels = {"slipway.job": "mail", "slipway.colour": "blue", "slipway.release": "R1"}
    one = {"Name": "/slipway_notes_blue-mail-1", "Image": "sha256:1", "RestartCount": 3, "State": state}
    one["Config"] = {"Labels": labels, "StopTimeout": 45}
    one["HostConfig"] = {"Memory": 64 << 20, "RestartPolicy": {"Name": "unless-stopped"}}

    def run(argv: list[str], **_: Any) -> docker.Outcome:
        if argv[1] == "ps":
            return docker.Outcome(tuple(argv), 0, "id1\nid2\n", "")
        return docker.Outcome(tuple(argv), 1, json.dumps([one]), "Error: No such container: id2")

    monkeypatch.setattr(docker, "run", run)
    (found,) = docker.Docker().jobs("notes")
    assert (found.name, found.job, found.colour, found.drain_seconds) == (BLUE[1], "mail", "blue", 45)
    assert (found.state.running, found.state.restarts, found.state.release) == (True, 3, "R1")
    assert (found.memory_mb, found.state.kept) == (64, True)


# -- a deploy -------------------------------------------------------------------------------------------------------


def test_new_containers_run_before_the_switch_and_old_ones_are_told_to_stop_after_it(host: FakeHost) -> None:
    host.deploy("1", jobs=JOBS)
    assert sorted(host.docker.working().values()) == [BLUE]
    seen: list[tuple[int, int]] = []

    def tick(_now: float) -> None:
        seen.append((len(host.switch.history), sum(map(len, host.docker.working().values()))))

    host.clock.tick = tick
    record = host.deploy("2", jobs=JOBS)
    host.check()
    assert [phase.name for phase in record.phases][-6:] == ["health", "jobs", "switch", "drain", "cleanup", "watch"]
    assert host.docker.told == [BLUE]
    assert (1, 6) in seen, "both generations, while the old release serves"
    assert sorted(host.docker.working().values()) == [GREEN]
    assert "3 background containers ended" in record.find("drain").detail


def test_a_worker_that_cannot_start_stops_the_deploy_and_the_old_ones_work_on(host: FakeHost) -> None:
    host.deploy("1", jobs=JOBS)
    host.docker.idle.add("-2")
    record = host.deploy("2", jobs=JOBS)
    assert record.result == "failed"
    assert record.error["found"].startswith("A container of the background job mail ended with code 3 within 5 s")
    assert record.log == ["no configuration", "the key is ***"]
    assert len(host.switch.history) == 1, "nothing was switched"
    assert host.docker.told == [], "no container that runs was told anything"
    host.check()
    assert serving(host) == "1"
    failure = str(ctl.failure(record))
    assert "still serves" in failure
    assert "mend the command of job mail" in failure


def test_a_first_release_whose_workers_cannot_start_leaves_nothing(host: FakeHost) -> None:
    host.docker.idle.add("-1")
    assert host.deploy("1", jobs=JOBS).result == "failed"
    host.check()


def test_a_rollback_brings_the_old_workers_back(host: FakeHost) -> None:
    host.deploy("1", jobs=JOBS)
    host.deploy("2", jobs=JOBS[:1])
    assert sorted(map(len, host.docker.working().values())) == [2]
    host.rollback()
    host.check()
    assert [release.rsplit("-", 1)[1] for release in host.docker.working()] == ["1"]
    assert sorted(host.docker.working().values()) == [BLUE]


def test_taking_the_jobs_away_ends_them(host: FakeHost) -> None:
    host.deploy("1", jobs=JOBS)
    host.deploy("1", jobs=[], force=True)
    host.check()
    assert host.docker.working() == {}


def test_workers_that_keep_dying_in_the_watched_window_bring_the_old_release_back(host: FakeHost) -> None:
    watch = {"seconds": 60, "min_requests": 5, "access_log": str(host.access_log)}
    host.deploy("1", jobs=JOBS, watch=watch)

    def tick(_now: float) -> None:
        for one in host.docker.containers.values():
            one.restarts += one.job == "mail" and one.kept and one.release.endswith("-2")

    host.clock.tick = tick
    record = host.deploy("2", jobs=JOBS, watch=watch)
    assert record.result == "rolled_back"
    assert re.search("its background job mail was restarted [3-9] times", record.error["found"])
    host.check()
    assert serving(host) == "1"


def test_one_that_was_killed_is_started_again_by_the_keeper_and_missed_by_site(host: FakeHost) -> None:
    host.deploy("1", jobs=JOBS)
    wish = host.store.desired()[2]
    asked: Any = {"wish": wish, "reference": "r", "source": "registry", "stable_port": 18000}
    assert not wishes.decide(host.store, host.docker, **asked)["deploy"]  # type: ignore[arg-type]
    host.docker.containers[BLUE[1]].running = False
    found = wishes.decide(host.store, host.docker, **asked)  # type: ignore[arg-type]
    assert found["why"] == "a background container of it does not run"
    assert ctl.status(host.store, host.docker, host.probe)["jobs"] == [  # type: ignore[arg-type]
        {"name": "mail", "count": 2, "running": 1, "restarts": 0, "memory_limit_mb": 128},
        {"name": "index", "count": 1, "running": 1, "restarts": 0, "memory_limit_mb": 256},
    ]
    assert "; jobs: 1 of 2 mail, 1 of 1 index" in ctl.line(ctl.status(host.store, host.docker, host.probe))  # type: ignore[arg-type]
    before = host.docker.containers[BLUE[2]].pid
    world: Any = World(host.docker, host.switch, host.probe, host.clock, host.journal)  # type: ignore[arg-type]
    assert ctl.keep(host.store, world) == "notes: a container of it did not run and was started"
    assert host.docker.containers[BLUE[2]].pid == before, "what runs is left alone"
    host.check()
    assert ctl.keep(host.store, world) == ""


def test_what_had_to_be_killed_is_said(host: FakeHost) -> None:
    host.deploy("1", jobs=JOBS)
    host.docker.stubborn = {"mail"}
    record = host.deploy("2", jobs=JOBS)
    assert record.result == "succeeded"
    assert "3 background containers ended after 0.0 s, mail cut off by SIGKILL" in record.find("drain").detail
    host.check()


def test_docker_away_is_one_message(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_app: str) -> list[docker.JobContainer]:
        raise SlipwayError("Docker does not answer")

    host.deploy("1", jobs=JOBS)
    monkeypatch.setattr(host.docker, "jobs", away)
    record = host.deploy("2", jobs=JOBS)
    assert record.result == "failed"
    assert "Docker does not answer" in record.error["found"]
