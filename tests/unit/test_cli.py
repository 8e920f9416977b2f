# SPDX-License-Identifier: Apache-2.0
"""The slipway command and what stands behind it: asking, following, status; and how it gets onto a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slipway import agentfiles, cli, lock
from slipway.deploy import ctl as appctl
from slipway.deploy.probe import Probe, parse_tcp

from tests.unit.deploy_world import FakeHost

PACKAGE = Path(cli.__file__).parent


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host with Docker and nothing else; the unit is never started by itself."""
    monkeypatch.setattr(appctl, "start_unit", lambda _app: None)
    monkeypatch.setattr(appctl, "unit_active", lambda _app: False)
    return FakeHost(tmp_path, monkeypatch)


def test_status_says_what_serves_and_holds_no_secret(host: FakeHost) -> None:
    host.deploy("1")
    found = appctl.status(host.store, host.docker, host.probe)  # type: ignore[arg-type]
    assert set(found) == {
        "app", "release", "colour", "since", "image", "reference", "health", "previous", "restarts", "memory_mb",
        "memory_limit_mb", "connections", "domains", "deploy", "held", "releases", "wish", "spec_hash", "jobs",
    }  # fmt: skip
    assert found["deploy"]["result"] == "succeeded"
    assert "planted-secret" not in json.dumps(found)
    assert appctl.line(found).startswith(f"notes: {found['release']} in blue since ")


def test_status_before_the_first_deploy(host: FakeHost) -> None:
    host.want()
    assert appctl.line(appctl.status(host.store, host.docker, host.probe)) == "notes: not deployed"  # type: ignore[arg-type]


def test_asking_while_another_is_at_work_says_who(host: FakeHost) -> None:
    host.deploy("1")
    note = {"who": "bob", "what": "a deploy", "since": "12:00"}
    with lock.held(host.store.lock, "notes", note), pytest.raises(lock.BusyError, match="by bob"):
        appctl.ask(host.store, "rollback", "alice")


def test_asking_for_what_is_under_way_joins_it(host: FakeHost) -> None:
    record = host.deploy("1")
    state = host.store.load()
    state.deploy.result = None  # type: ignore[union-attr]
    host.store.save(state)
    with lock.held(host.store.lock, "notes", {"who": "alice"}):
        request, joined = appctl.ask(host.store, "deploy", "bob")
    assert request == record.id
    assert joined.startswith("alice")


def test_following_returns_phase_by_phase_and_gives_up_on_a_lost_engine(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = host.deploy("1")
    assert appctl.wait(host.store, record.id, phase="health").result == "succeeded"  # type: ignore[union-attr]
    monkeypatch.setattr(appctl, "LOST_SECONDS", 0.3)
    with pytest.raises(appctl.PhaseError, match="its engine is gone"):
        appctl.wait(host.store, "never-heard-of")


def test_keeper_starts_what_was_killed_and_leaves_a_deploy_alone(host: FakeHost) -> None:
    record = host.deploy("1")
    world = host.engine().world
    assert appctl.keep(host.store, world) == ""
    host.docker.containers["slipway_notes_blue"].running = False
    with lock.held(host.store.lock, "notes", {"who": "alice"}):
        assert appctl.keep(host.store, world) == ""
    assert "did not run and was started" in appctl.keep(host.store, world)
    host.check()
    assert host.docker.containers["slipway_notes_blue"].release == record.release
    assert json.loads(host.journal.read_text().splitlines()[-1])["who"] == "the keeper"


def test_failure_ends_with_the_log_and_says_what_still_serves(host: FakeHost) -> None:
    first = host.deploy("1")
    host.docker.dying.add("-2")
    text = str(appctl.failure(host.deploy("2")))
    assert f"{first.release} still serves" in text
    assert "the key is ***" in text


def test_command_without_rights_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied", "/var/lib/slipway/apps")

    monkeypatch.setattr(cli, "_names", refuse)
    assert cli.main(["app", "status"]) == 1
    assert "sudo slipway" in capsys.readouterr().err


# -- how it gets there ----------------------------------------------------------------------------------------------


def test_installed_library_runs_on_its_own_and_is_known_by_its_content(tmp_path: Path) -> None:
    home, command = tmp_path / "lib", tmp_path / "sbin" / "slipway"
    command.parent.mkdir()
    files = agentfiles.read(PACKAGE)
    wanted = agentfiles.version(files)
    assert not agentfiles.installed(wanted, home, command)
    agentfiles.install(agentfiles.unpack(agentfiles.pack(files)), wanted, home, command)
    assert agentfiles.installed(wanted, home, command)
    script = command.read_text().removeprefix("#!/usr/bin/python3 -I\n")
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:8]) == (0, "slipway ")
    (home / wanted / "slipway" / "deploy.py").write_text("tampered")
    assert not agentfiles.installed(wanted, home, command)


def test_two_versions_are_kept_and_the_link_moves(tmp_path: Path) -> None:
    command = tmp_path / "slipway"
    for content in (b"1", b"2", b"3"):
        files = {"__init__.py": content}
        agentfiles.install(files, agentfiles.version(files), tmp_path / "lib", command)
    folders = [path for path in (tmp_path / "lib").iterdir() if not path.is_symlink()]
    assert len(folders) == 2
    assert (tmp_path / "lib/current/slipway/__init__.py").read_bytes() == b"3"


def test_units_of_other_users_read_the_library_whatever_the_umask(tmp_path: Path) -> None:
    files = agentfiles.read(PACKAGE)
    before = os.umask(0o077)
    try:
        agentfiles.install(files, agentfiles.version(files), tmp_path / "lib", tmp_path / "slipway")
    finally:
        os.umask(before)
    for path in (tmp_path / "lib", tmp_path / "lib/current/slipway", tmp_path / "lib/current/slipway/backup"):
        assert path.stat().st_mode & 0o777 == 0o755, path


def test_archive_that_is_not_what_was_announced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(agentfiles.AgentError, match="not the version"):
        agentfiles.install({"__init__.py": b""}, "0" * 12, tmp_path / "lib", tmp_path / "slipway")


def test_library_needs_nothing_but_the_standard_library_to_start() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); from slipway.cli import main"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# -- connections ----------------------------------------------------------------------------------------------------

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 10001        0 1 1 0 100 0 0 10 0
   1: 6457D50A:1F40 0157D50A:A1B2 01 00000000:00000000 00:00000000 00000000 10001        0 2 1 0 20 4 30 10 -1
   2: 0100007F:1F40 0100007F:C001 01 00000000:00000000 00:00000000 00000000 10001        0 3 1 0 20 4 30 10 -1
   3: 6457D50A:1F40 0157D50A:A1B3 06 00000000:00000000 00:00000000 00000000 10001        0 4 1 0 20 4 30 10 -1
   4: 6457D50A:9999 0157D50A:1920 01 00000000:00000000 00:00000000 00000000 10001        0 5 1 0 20 4 30 10 -1
"""


def test_only_open_connections_from_outside_on_the_apps_port_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe()
    monkeypatch.setattr(probe, "connections", lambda _pid: parse_tcp(TCP))
    assert probe.busy(1, 8000) == 1


def test_mapped_and_plain_loopback_of_ipv6_are_loopback() -> None:
    head = TCP.splitlines()[0] + "\n"
    mapped = "0000000000000000FFFF00000100007F"
    plain = "00000000000000000000000001000000"
    outside = "0000000000000000FFFF00000157D50A"
    text = head + "".join(f"0: {peer}:1F40 {peer}:C001 01 x\n" for peer in (mapped, plain, outside))
    assert [one.loopback for one in parse_tcp(text)] == [True, True, False]


def test_probe_of_a_real_server_and_of_none() -> None:
    import http.server
    import os
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["Host"] == "notes.example.com" else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        probe = Probe()
        assert probe.get("127.0.0.1", port, "/", host="notes.example.com", timeout=60).good
        assert probe.get("127.0.0.1", port, "/", host="", timeout=60).status == 400
        assert probe.owner("127.0.0.1", port, {"here": (os.getpid(), port)}, timeout=60) == "here"
        assert probe.owner("127.0.0.1", port, {"here": (os.getpid(), port + 1)}, timeout=60) == ""
        server.shutdown()
    assert probe.get("127.0.0.1", port, "/", host="", timeout=60).said == f"connection refused on port {port}"
