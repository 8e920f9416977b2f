# SPDX-License-Identifier: Apache-2.0
"""The benchmarks count what they say they count, and a missed bound is never a pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import backup, beside, common, meter, pgbench, trips
from benchmarks.common import Figure, Result, median, number
from tests.unit.backup.fake_s3 import FakeS3

ROOT = Path(__file__).parents[2]


def test_a_missed_bound_fails_the_run_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "ROOT", tmp_path)
    result = Result("try", [Figure("fast", 1.0, "s", 2.0), Figure("slow", 30.5, "s", 25.0)])
    assert result.finish() == 1
    out = capsys.readouterr().out
    assert "| slow | 30.5 s | at most 25 | MISSED |" in out
    assert "slow: 30.5 s, at most 25 was promised" in out
    assert (tmp_path / "try.json").exists()


def test_a_run_that_measured_nothing_does_not_pass() -> None:
    assert not Result("empty").met
    assert not Result("nan", [Figure("lost", float("nan"), "", 0)]).met


def test_numbers_read_well() -> None:
    assert [number(value) for value in (0, 3.0, 1.2345, 25.04)] == ["0", "3", "1.23", "25.0"]
    assert median([5.0, 1.0, 3.0]) == 3.0


@pytest.fixture
def fake_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in trips.TOOLS:
        (tmp_path / tool).write_text('#!/bin/sh\necho "$@"\n')
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("fake_tools")
def test_each_start_of_ssh_is_one_round_trip_and_passes_its_arguments() -> None:
    with trips.Trips() as counted:
        env = {**os.environ, **counted.environment}
        for argv in (["ssh", "host", "a b"], ["ssh", "host", "x"], ["sftp", "-b", "-", "host"]):
            done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
            assert done.stdout.strip() == " ".join(argv[1:])
    assert counted.count == {"ssh": 2, "sftp": 1}
    assert counted.total == 3


@pytest.mark.usefixtures("fake_tools")
def test_what_does_not_leave_the_machine_is_no_round_trip() -> None:
    with trips.Trips() as counted:
        env = {**os.environ, **counted.environment}
        for argv in (["ssh", "-o", "ControlPersist"], ["ssh", "-O", "stop", "host"], ["ssh", "-V"]):
            subprocess.run(argv, env=env, capture_output=True, check=True)
    assert counted.total == 0


def test_every_task_that_ran_has_its_time(tmp_path: Path) -> None:
    playbook = tmp_path / "two.yml"
    playbook.write_text(
        "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n"
        "    - {name: Pause, ansible.builtin.wait_for: {timeout: 1}}\n"
        "    - {name: Say, ansible.builtin.debug: {msg: x}}\n"
        "    - {name: Skip, ansible.builtin.debug: {msg: x}, when: false}\n"
    )
    with trips.Trips() as counted:
        done = subprocess.run(
            [ROOT / ".venv/bin/ansible-playbook", "-i", "localhost,", playbook],
            env={**os.environ, **counted.environment, "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(one.task, one.status) for one in counted.tasks] == [("Pause", "ok"), ("Say", "ok")]
    assert counted.tasks[0].seconds >= 1.0


@pytest.mark.parametrize("name", ["site", "deploy"])
def test_each_benchmark_starts_as_the_command_that_the_documents_name(name: str) -> None:
    done = subprocess.run(
        [ROOT / ".venv/bin/python", "-m", f"benchmarks.{name}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m benchmarks.{name}" in done.stdout


def test_the_meter_of_backups_counts_what_a_command_and_its_children_used() -> None:
    counted = meter.Meter(os.getpid())
    script = "head -c 60000000 /dev/zero | sha256sum >/dev/null; sleep 0.5; echo '{\"held_ms\": 7}'"
    cost = counted.run(["sh", "-c", script])
    assert cost.told == {"held_ms": 7}
    assert cost.wall > 0.5
    assert 0 < cost.cpu < 10
    assert 0 < cost.memory < 100
    assert "sh" in cost.shares
    assert os.getpid() in meter.tree(os.getpid())
    assert meter.spent(os.getpid())[1] > 0
    assert counted.run(["echo", "words"]).told == {}
    with pytest.raises(subprocess.CalledProcessError):
        counted.run(["false"])


def _costs() -> dict[str, meter.Cost]:
    def cost(wall: float, cpu: float, memory: float, server: float = 0.0, **told: float) -> meter.Cost:
        return meter.Cost(wall, cpu, memory, told, server)

    return {
        "warm-up": cost(1, 1, 1), "plain": cost(10, 10, 40, 4), "gzip": cost(40, 40, 10, 4), "hash": cost(5, 5, 20, 5),
        "s3": cost(12, 17, 150, 9), "one stream": cost(8, 8, 40), "streams": cost(7, 9, 50),
        "single": cost(10, 16, 80, 9, held_ms=9000, stored=2**20), "parallel": cost(9, 17, 201, 9, held_ms=8000),
        "parallel s3": cost(9, 17, 170, 9),
        "app": cost(0, 0, 0, before=100, during=60, after=110, alone=105, worst=40),
        "app in streams": cost(0, 0, 0, before=100, during=80, after=100, alone=100, worst=40),
    }  # fmt: skip


def test_the_figures_of_backups_set_hashing_and_the_server_apart_and_miss_what_is_missed() -> None:
    found = {each.name: each for each in backup.figures(_costs())}
    assert found["backup run without its hashing / plain tools: CPU"].value == pytest.approx(1.1)
    assert found["backup run / gzip: CPU of the programs"].value == pytest.approx(7 / 36)
    assert found["backup run without its hashing / gzip: CPU with the server's"].value == pytest.approx(11 / 40)
    assert found["single: stored"].value == 1
    assert not found["pgbench without a backup / during one: transactions"].met
    assert found["pgbench without a backup in several streams / during one: transactions"].met
    assert found["backup run in several streams, without its hashing / plain tools: CPU"].value == pytest.approx(1.2)
    assert not found["several streams / one: wall time of the whole run"].met
    assert not found["parallel: memory of all programs"].met
    assert found["gzip: memory of all programs"].limit is None
    # "2.5 times less CPU" holds for all that works for the backup, not for our programs alone.
    assert found["backup run without its hashing / gzip: CPU with the server's"].limit == 1 / 2.5
    assert not found["several streams / one: wall time of the dumps alone"].met
    assert not any(name.startswith("warm-up") for name in found)


def test_a_part_of_the_benchmark_of_backups_tells_its_own_figures_alone() -> None:
    costs = {name: cost for name, cost in _costs().items() if name in backup.PARTS["streams"]}
    names = [each.name for each in backup.figures(costs)]
    assert any(name.startswith("several streams / one") for name in names)
    assert not any("gzip" in name or "pgbench" in name for name in names)
    home = Path("/nowhere")
    known = backup.Bench(home, "/run", home, 2, FakeS3()).commands()
    assert {name for part in backup.PARTS.values() for name in part} == set(known)


def test_the_rates_of_pgbench_are_read_second_by_second() -> None:
    lines = [
        f"progress: {n}.0 s, {rate} tps, lat 5.2 ms stddev 1.0, 0 failed"
        for n, rate in ((1, 3.5), (2, 900.0), (3, 1000.5))
    ]
    assert pgbench.parse("pgbench (15.1)\n" + "\n".join(lines)) == [900.0, 1000.5]
    with pytest.raises(RuntimeError, match="no rate: connection refused"):
        pgbench.parse("connection refused")


def test_a_tool_of_others_that_is_not_here_is_named_as_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [beside.missing(name) for name in ("rclone", "pgbackrest", "single")] == ["rclone", "pgbackrest", ""]
    (tmp_path / "rclone").write_text("#!/bin/sh\n")
    (tmp_path / "rclone").chmod(0o755)
    assert beside.missing("rclone") == ""
