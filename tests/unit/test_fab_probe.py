# SPDX-License-Identifier: Apache-2.0
"""What ``fab status`` runs on a server: that it answers anywhere, and reads what roles lay down."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from console import probe, remote
from tests.unit.test_fab import HEALTHY

ROOT = Path(__file__).resolve().parents[2]


def test_probe_runs_anywhere_and_answers_json(tmp_path: Path) -> None:
    """On this machine, which need have nothing of Slipway: every part answers or is null."""
    apt = tmp_path / "apt-get"  # the real one reckons for seconds where much could be updated
    apt.write_text(
        "#!/bin/sh\necho 'Inst a [1] (2 Debian:13)'; echo 'Inst b [1] (2 Debian-Security:13)'; echo Conf a\n"
    )
    apt.chmod(0o755)
    source = remote.probe_source(["a.example.com'); import os; ("], "")
    found = b'"PATH": "'
    assert source.count(found) == 1
    done = subprocess.run(
        ["/usr/bin/python3", "-"],
        input=source.replace(found, found + f"{tmp_path}:".encode()),
        check=False,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout)
    assert seen["system"]["ram_mb"] > 0
    assert seen["updates"] == {"all": 2, "security": 1}
    assert seen["certificates"][0]["domain"] == "a.example.com'); import os; ("
    assert set(HEALTHY) == set(seen)


def test_the_probe_asks_every_peer_of_the_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file as the role lays it down, with loopback for those who answer."""
    peer = "\n[Peer]\n# host: {}\nPublicKey = k=\nAllowedIPs = {}/32\nEndpoint = 203.0.113.9:51820\n"
    file = tmp_path / "peers.conf"
    file.write_text(
        "# Managed\nListenPort = 51820\n" + peer.format("db1", "127.0.0.1") + peer.format("db2", "127.0.0.2")
    )
    monkeypatch.setattr(probe, "PEERS", str(file))
    ping = tmp_path / "ping"
    ping.write_text('#!/bin/sh\nfor last; do :; done\ntest "$last" = 127.0.0.1\n')
    ping.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert probe.network() == {"db1": True, "db2": False}
    file.write_text("")
    assert probe.network() is None


def test_probe_needs_nothing_but_the_standard_library() -> None:
    text = (ROOT / "console/probe.py").read_text()
    assert "import slipway" not in text
    assert "from slipway" not in text
    assert "from ." not in text


def test_pool_lines_survive_missing_columns() -> None:
    assert probe.pool_line({"database": "notes"})["cl_waiting"] == 0
