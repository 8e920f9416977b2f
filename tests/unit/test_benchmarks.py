# SPDX-License-Identifier: Apache-2.0
"""The benchmarks count what they say they count, and a missed bound is never a pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import backup, common, trips
from benchmarks.common import Figure, Result, median, number

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
    meter = backup.Meter(os.getpid())
    script = "head -c 60000000 /dev/zero | sha256sum >/dev/null; sleep 0.5; echo '{\"held_ms\": 7}'"
    cost = meter.run(["sh", "-c", script])
    assert cost.told == {"held_ms": 7}
    assert cost.wall > 0.5
    assert 0 < cost.cpu < 10
    assert 0 < cost.memory < 100
    assert os.getpid() in backup.tree(os.getpid())
    with pytest.raises(subprocess.CalledProcessError):
        meter.run(["false"])


def test_the_figures_of_backups_set_hashing_apart_and_miss_what_is_missed() -> None:
    cost = backup.Cost
    costs = {
        "plain": cost(10, 10, 40), "gzip": cost(40, 40, 10), "hash": cost(5, 5, 20), "s3": cost(12, 17, 150),
        "one stream": cost(8, 8, 40), "streams": cost(7, 9, 50),
        "single": cost(10, 16, 80, {"held_ms": 9000, "alone": 100, "during": 60}), "parallel": cost(9, 17, 201, {"held_ms": 8000}),
    }  # fmt: skip
    found = {each.name: each for each in backup.figures(costs)}
    assert found["backup run without its hashing / plain tools: CPU"].value == pytest.approx(1.1)
    assert found["backup run without its hashing / gzip: CPU"].met
    assert not found["pgbench alone / during a backup: transactions"].met
    assert not found["memory of all programs, several streams"].met
    assert not found["several streams / one: wall time of the dumps alone"].met
