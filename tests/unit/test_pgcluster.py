# SPDX-License-Identifier: Apache-2.0
"""Starting and restarting a PostgreSQL cluster: no more often than needed, and never left down by new settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from slipway.host.systemd import UnitError, UnitFound
from slipway.postgres import cluster
from slipway.postgres.cluster import ClusterError, Wish, converge


@pytest.fixture
def wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wish:
    """A cluster with files, kept settings in ``tmp_path``, and a server that agrees with everything."""
    (tmp_path / "postgresql.conf").touch()
    (tmp_path / "slipway.conf").write_text("shared_buffers = 1GB\n")
    monkeypatch.setattr(Wish, "conf_dir", property(lambda _self: tmp_path))
    monkeypatch.setattr(cluster, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(cluster, "_settle", lambda *_: [])
    monkeypatch.setattr(cluster, "_prove", lambda *_: None)
    return Wish(17, {"shared_buffers": "1GB"}, tmp_path / "slipway.conf", restart=True)


def systemd_says(monkeypatch: pytest.MonkeyPatch, wish: Wish, *, running: bool) -> list[str]:
    """Units as they are before; the verbs that the cluster is started with come into the list."""
    found = UnitFound("loaded", "active" if running else "inactive", "enabled")
    monkeypatch.setattr(cluster.systemd, "show", lambda names: dict.fromkeys(names, found))
    verbs: list[str] = []
    monkeypatch.setattr(cluster, "_start", lambda _wish, verb: verbs.append(verb))
    return verbs


def test_a_running_cluster_is_restarted_when_asked(wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    verbs = systemd_says(monkeypatch, wish, running=True)
    assert converge(wish).steps == ["restart"]
    assert verbs == ["restart"]


def test_one_that_was_started_just_now_is_not_restarted(wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    verbs = systemd_says(monkeypatch, wish, running=False)
    assert converge(wish).steps == ["start"]
    assert verbs == ["start"]


def test_no_warning_of_a_restart_that_a_start_made_needless(wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd_says(monkeypatch, wish, running=False)
    assert converge(replace(wish, restart_allowed=False)).warnings == []


@pytest.mark.parametrize("running", [True, False])
def test_settings_that_do_not_start_are_put_back(wish: Wish, monkeypatch: pytest.MonkeyPatch, *, running: bool) -> None:
    systemd_says(monkeypatch, wish, running=running)
    wish.kept.parent.mkdir()
    wish.kept.write_text("shared_buffers = 512MB\n")
    contents: list[str] = []

    def start(_wish: Wish, _verb: str) -> None:
        contents.append(wish.conf.read_text())
        if len(contents) == 1:
            raise UnitError("systemctl start failed: out of memory")

    monkeypatch.setattr(cluster, "_start", start)
    with pytest.raises(ClusterError, match=r"does not start with the new settings.*out of memory"):
        converge(wish)
    assert contents == ["shared_buffers = 1GB\n", "shared_buffers = 512MB\n"]
    assert cluster._refused(wish).read_text() == "shared_buffers = 1GB\n"
