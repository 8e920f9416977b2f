# SPDX-License-Identifier: Apache-2.0
"""The dead-man guard with its real restore script, run by a real shell; only systemd is left out."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from slipway.errors import InputError
from slipway.host import guard
from slipway.host.guard_script import Saved, boot_units, restore_script, timer_argv

from tests.unit.waiting import LIMIT


@dataclass
class Bench:
    """A guard's folders below a temporary one, and the commands that would have gone to systemd."""

    base: Path
    commands: list[list[str]] = field(default_factory=list)
    code: int = 0

    @property
    def root(self) -> Path:
        return self.base / "guard"

    @property
    def units(self) -> Path:
        return self.base / "units"

    def run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.commands.append(list(argv))
        code = self.code if argv[0] == "systemd-run" else 0
        return subprocess.CompletedProcess(list(argv), code, "", "no systemd here" if code else "")

    def arm(
        self, *paths: Path, restore: Sequence[Sequence[str]] = (), seconds: int = 60, name: str = "sshd"
    ) -> guard.Armed:
        return guard.arm(
            name, [str(p) for p in paths], restore, seconds, root=self.root, unit_dir=self.units, run=self.run
        )

    def confirm(self, since: float | None = None, name: str = "sshd") -> bool:
        return guard.confirm(name, since, root=self.root, unit_dir=self.units, run=self.run)

    def fire(self, by: str = "timer", name: str = "sshd") -> None:
        subprocess.run(["/bin/sh", str(self.root / name / "restore"), by], check=True, capture_output=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "units").mkdir()
    return Bench(tmp_path)


def test_restore_brings_back_content_and_mode_and_removes_what_was_new(bench: Bench) -> None:
    old, new = bench.base / "old name's.conf", bench.base / "new.conf"
    old.write_text("before\n")
    old.chmod(0o640)
    bench.arm(old, new)
    old.write_text("after\n")
    old.chmod(0o600)
    new.write_text("new\n")
    bench.fire()
    assert old.read_text() == "before\n"
    assert old.stat().st_mode & 0o7777 == 0o640
    assert not new.exists()


def test_restore_brings_back_a_link_and_a_removed_file(bench: Bench) -> None:
    link, gone = bench.base / "link", bench.base / "gone.conf"
    link.symlink_to("/etc/hostname")
    gone.write_text("kept\n")
    bench.arm(link, gone)
    link.unlink()
    link.write_text("a file now\n")
    gone.unlink()
    bench.fire()
    assert os.readlink(link) == "/etc/hostname"
    assert gone.read_text() == "kept\n"


def test_restore_removes_new_directories_after_their_files(bench: Bench) -> None:
    folder = bench.base / "new.d"
    bench.arm(folder, folder / "x.conf")
    folder.mkdir()
    (folder / "x.conf").write_text("x\n")
    bench.fire()
    assert not folder.exists()


def test_restore_runs_its_commands_in_order_and_reports_the_one_that_failed(bench: Bench) -> None:
    log = bench.base / "ran"
    commands = [["sh", "-c", f"echo one >>{log}"], ["false"], ["sh", "-c", f"echo two >>{log}"]]
    bench.arm(bench.base / "x", restore=commands)
    bench.fire()
    assert log.read_text() == "one\ntwo\n"
    (waiting,) = guard.pending(root=bench.root)
    assert waiting["state"] == "restored"
    assert "What failed meanwhile: false" in waiting["message"]


def test_restore_at_boot_puts_files_back_and_runs_the_commands_once_the_services_are_up(bench: Bench) -> None:
    conf, log = bench.base / "x.conf", bench.base / "ran"
    conf.write_text("before\n")
    bench.arm(conf, restore=[["touch", str(log)]])
    conf.write_text("after\n")
    bench.fire("boot")
    assert conf.read_text() == "before\n"
    assert not log.exists()
    assert "rebooted" in guard.pending(root=bench.root)[0]["message"]
    bench.fire("late")
    assert log.exists()
    log.unlink()
    bench.fire("late")
    assert not log.exists()


def test_a_confirmed_change_stays_even_when_the_script_runs_late(bench: Bench) -> None:
    conf = bench.base / "x.conf"
    conf.write_text("before\n")
    bench.arm(conf)
    script = (bench.root / "sshd" / "restore").read_text()
    conf.write_text("after\n")
    assert bench.confirm() is True
    subprocess.run(["/bin/sh", "-s", "timer"], input=script, text=True, check=True)
    assert conf.read_text() == "after\n"
    assert guard.pending(root=bench.root) == []


def test_a_confirmation_after_the_restore_fails_once_and_says_what_happened(bench: Bench) -> None:
    conf = bench.base / "x.conf"
    bench.arm(conf)
    bench.fire()
    with pytest.raises(guard.GuardFiredError, match=r"was undone by the host at \d{4}-.*no new connection.*x\.conf"):
        bench.confirm()
    assert bench.confirm() is False


def test_a_connection_older_than_the_change_confirms_nothing(bench: Bench) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    bench.arm(bench.base / "x.conf")
    with pytest.raises(guard.GuardStaleConnectionError, match="older than the change"):
        bench.confirm(before)
    assert guard.is_pending("sshd", root=bench.root)
    assert bench.confirm(time.clock_gettime(time.CLOCK_BOOTTIME)) is True


def test_arming_again_keeps_the_state_known_to_work(bench: Bench) -> None:
    first, second = bench.base / "first", bench.base / "second"
    first.write_text("good\n")
    second.write_text("fine\n")
    bench.arm(first)
    first.write_text("bad\n")
    bench.arm(first, second)
    first.write_text("worse\n")
    second.write_text("bad\n")
    bench.fire()
    assert (first.read_text(), second.read_text()) == ("good\n", "fine\n")


def test_a_restore_is_told_once(bench: Bench) -> None:
    conf = bench.base / "x.conf"
    bench.arm(conf)
    assert guard.take_report("sshd", root=bench.root, unit_dir=bench.units) is None
    bench.fire()
    report = guard.take_report("sshd", root=bench.root, unit_dir=bench.units)
    assert report is not None
    assert str(conf) in report.sentence()
    assert guard.take_report("sshd", root=bench.root, unit_dir=bench.units) is None
    assert not list(bench.units.rglob("slipway-guard*"))


def test_nothing_is_armed_when_the_timer_does_not_start(bench: Bench) -> None:
    bench.code = 1
    with pytest.raises(guard.GuardError, match="no systemd here"):
        bench.arm(bench.base / "x.conf")
    assert not guard.is_pending("sshd", root=bench.root)
    assert not list(bench.units.rglob("slipway-guard*"))


def test_the_boot_units_are_there_while_any_guard_is_pending(bench: Bench) -> None:
    bench.arm(bench.base / "x", name="one")
    bench.arm(bench.base / "y", name="two")
    bench.confirm(name="one")
    for target, unit in guard.BOOT_UNITS.items():
        assert (bench.units / f"{target}.wants" / unit).resolve() == bench.units / unit
    bench.confirm(name="two")
    assert not list(bench.units.rglob("slipway-guard*"))


def test_the_script_waits_for_the_lock_that_a_confirmation_holds(bench: Bench) -> None:
    conf = bench.base / "x.conf"
    conf.write_text("before\n")
    bench.arm(conf)
    conf.write_text("after\n")
    with (bench.root / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        script = subprocess.Popen(["/bin/sh", str(bench.root / "sshd" / "restore"), "timer"])
        time.sleep(0.3)
        assert script.poll() is None
        assert conf.read_text() == "after\n"
    assert script.wait(LIMIT) == 0
    assert conf.read_text() == "before\n"


def test_what_is_saved_is_for_root_alone(bench: Bench) -> None:
    secret = bench.base / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    bench.arm(secret)
    assert bench.root.stat().st_mode & 0o777 == 0o700
    assert (bench.root / "sshd").stat().st_mode & 0o777 == 0o700
    for path in (bench.root / "sshd").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.is_dir() or "s3cret" not in path.read_text()


@pytest.mark.parametrize("name", ["", "../x", "Name", "a b", "a;b", "x" * 41])
def test_names_that_could_not_be_a_unit_are_refused(bench: Bench, name: str) -> None:
    with pytest.raises(InputError, match="no name for a guard"):
        bench.arm(name=name)


@pytest.mark.parametrize("seconds", [0, 4, 3601])
def test_times_too_short_or_too_long_are_refused(bench: Bench, seconds: int) -> None:
    with pytest.raises(InputError, match="guard_seconds"):
        bench.arm(seconds=seconds)


def test_the_timer_command_is_exactly_this() -> None:
    assert timer_argv("sshd", 60, Path("/g/sshd/restore")) == [
        "systemd-run", "--quiet", "--collect", "--unit=slipway-guard-sshd",
        "--description=Undo the change to sshd unless it is confirmed", "--on-active=60",
        "--timer-property=AccuracySec=100ms", "--property=Type=oneshot", "/bin/sh", "/g/sshd/restore", "timer",
    ]  # fmt: skip


def test_a_saved_unit_file_makes_the_script_reload_systemd() -> None:
    unit = [Saved("/etc/systemd/system/x.service", "absent")]
    assert "systemctl daemon-reload" in restore_script("x", "now", unit, [], Path("/g"))
    assert "daemon-reload" not in restore_script("x", "now", [Saved("/etc/x", "absent")], [], Path("/g"))


def test_the_boot_unit_comes_before_everything_that_reads_what_it_restores() -> None:
    before = next(
        line for line in boot_units(Path("/g"))["sysinit.target"].splitlines() if line.startswith("Before=sysinit")
    )
    for unit in ("ssh.service", "slipway-firewall.service", "systemd-sysctl.service", "network-pre.target"):
        assert unit in before


def test_the_connection_is_as_old_as_the_outermost_sshd_below_the_listener(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")

    def process(pid: int, name: str, parent: int, seconds: int) -> None:
        fields = ["S", str(parent), *["0"] * 17, str(seconds * ticks), "0"]
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}")

    process(50, "sshd", 1, 10)
    process(60, "sshd-session", 50, 1000)
    process(61, "sshd-session", 60, 1001)
    process(70, "sudo", 61, 1500)
    process(80, "python3", 70, 1501)
    assert guard.connection_since(80, tmp_path) == 1000
    process(90, "python3", 1, 5)
    assert guard.connection_since(90, tmp_path) is None


def test_the_report_is_json_that_a_program_can_read(bench: Bench) -> None:
    bench.arm(bench.base / "x", restore=[["false"], ["false"]])
    bench.fire()
    report = json.loads((bench.root / "sshd" / "restored.json").read_text())
    assert report["by"] == "timer"
    assert report["failed"] == [1, 2]
