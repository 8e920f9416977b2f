# SPDX-License-Identifier: Apache-2.0
"""Packages in the background: each transaction has its mark, and a failure is one message to whoever waits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from slipway.commands import Outcome
from slipway.errors import InputError
from slipway.host import packages
from slipway.host.packages import Batch, PackagesError, script

TWO = [Batch("engine", ("docker.io",)), Batch("database", ("postgresql-17", "pgbouncer"))]


def carried_out(folder: Path, apt: str, *, bare: bool = False) -> str:
    """Run the script with an apt-get of ours; what it was asked for, a line a call."""
    tools = folder / "tools"
    tools.mkdir()
    for name, body in {"apt-get": apt, "dpkg": "exit 2", "sync": "", "sleep": ""}.items():
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{folder}/calls"\n{body}\n')
        (tools / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", script(TWO, folder, bare=bare)], env=env, check=False)
    return (folder / "calls").read_text()


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """No unit is at work."""
    monkeypatch.setattr(packages, "run", lambda argv, **_: Outcome(tuple(argv), 3, "", ""))


def test_transactions_come_in_their_order_and_each_has_its_mark(tmp_path: Path) -> None:
    calls = carried_out(tmp_path, "exit 0").splitlines()
    assert [line.split(" -- ")[-1] for line in calls if " install " in line] == [
        "docker.io",
        "postgresql-17 pgbouncer",
    ]
    assert calls.index("apt-get -qq update") < min(n for n, line in enumerate(calls) if " install " in line)
    for batch in TWO:
        packages.wait(tmp_path.name, batch.name, 1, root=tmp_path.parent)


def test_what_fails_ends_it_and_everybody_who_waits_is_told_why(tmp_path: Path) -> None:
    calls = carried_out(tmp_path, 'case "$*" in *docker*) echo "E: no docker.io today"; exit 100;; esac')
    assert "pgbouncer" not in calls
    for batch in TWO:
        with pytest.raises(PackagesError, match=r"no docker\.io today"):
            packages.wait(tmp_path.name, batch.name, 1, root=tmp_path.parent)


def test_what_came_before_the_failure_can_be_used(tmp_path: Path) -> None:
    carried_out(tmp_path, 'case "$*" in *pgbouncer*) exit 100;; esac')
    packages.wait(tmp_path.name, "engine", 1, root=tmp_path.parent)
    with pytest.raises(PackagesError):
        packages.wait(tmp_path.name, "database", 1, root=tmp_path.parent)


def test_lists_that_somebody_else_is_fetching_are_waited_for(tmp_path: Path) -> None:
    apt = f'case "$*" in *update*) [ -e "{tmp_path}/once" ] || {{ touch "{tmp_path}/once"; exit 100; }};; esac'
    assert carried_out(tmp_path, apt).count("apt-get -qq update\n") == 2


def test_only_a_bare_host_gives_up_safety_for_speed_and_syncs_once(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "used").mkdir()
    bare, used = carried_out(tmp_path / "bare", "", bare=True), carried_out(tmp_path / "used", "")
    assert bare.count("force-unsafe-io") == 2
    assert bare.splitlines()[-1].strip() == "sync"
    assert "force-unsafe-io" not in used
    assert "sync" not in used
    assert "SYSTEMD_OFFLINE=1" in script(TWO, tmp_path, bare=True)
    assert "SYSTEMD_OFFLINE" not in script(TWO, tmp_path, bare=False)


def test_a_unit_that_died_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr(packages.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(packages.time, "sleep", lambda _: None)
    with pytest.raises(PackagesError, match="cut off"):
        packages.wait(tmp_path.name, "engine", 600, root=tmp_path.parent)


def test_patience_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "run", lambda argv, **_: Outcome(tuple(argv), 0, "", ""))
    with pytest.raises(PackagesError, match="still at work"):
        packages.wait(tmp_path.name, "engine", 0.1, root=tmp_path.parent)


def test_the_unit_gets_a_program_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(packages, "run", lambda argv, **_: calls.append(list(argv)))
    job = packages.start(TWO, root=tmp_path / "made")
    program = tmp_path / "made" / job / "install"
    assert calls[0][-3:] == ["--", "/bin/sh", str(program)]  # where nothing in /run can be started
    assert f"--unit={job}" in calls[0]
    assert program.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "raw",
    [{"name": "a b", "packages": []}, {"name": "a", "packages": ["-oDebug=1"]}, {"name": "a", "packages": ["x; y"]}],
)
def test_names_that_are_none_are_refused(raw: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Batch.parse(raw)
