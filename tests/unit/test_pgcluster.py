# SPDX-License-Identifier: Apache-2.0
"""Starting and restarting a PostgreSQL cluster: no more often than needed, and never left down by new settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    restarts(monkeypatch, answers=[""], ended=True)
    return verbs


def restarts(monkeypatch: pytest.MonkeyPatch, *, answers: list[str], ended: bool) -> list[str]:
    """A restart by systemd that has ``ended`` or goes on, and when the server that answers was begun, look by look."""
    order: list[str] = []
    looks = [*answers]

    class Restarting:
        def poll(self) -> int | None:
            return 1 if ended else None

        def wait(self) -> int:
            order.append("waited for systemd")
            return 0

    @contextmanager
    def paused(*_: object, **__: object) -> Iterator[bool]:
        order.append("pause")
        yield True
        order.append("resume")

    monkeypatch.setattr(cluster, "run", lambda *_, **__: None)
    monkeypatch.setattr(cluster.pgpooler, "paused", paused)
    monkeypatch.setattr(cluster.pgpooler, "resume_left", lambda _port: [])
    monkeypatch.setattr(cluster, "_begin_restart", lambda _wish: Restarting())
    monkeypatch.setattr(
        cluster, "_ask", lambda _wish, query: order.append("checkpoint") if query == "CHECKPOINT" else None
    )
    monkeypatch.setattr(cluster, "_begun", lambda _wish: looks.pop(0) if len(looks) > 1 else looks[0])
    return order


def test_clients_go_on_as_soon_as_the_server_answers_not_when_its_unit_says_so(
    wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs = systemd_says(monkeypatch, wish, running=True)
    order = restarts(monkeypatch, answers=["before", "before", "", "", "after"], ended=False)
    assert converge(wish).held_seconds >= 0
    assert order == ["checkpoint", "pause", "resume", "waited for systemd"]
    assert verbs == [], "it was not started a second time"


def test_a_restart_after_which_the_same_server_or_none_answers_is_tried_once_more_behind_the_pause(
    wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answers in (["before"], ["before", ""]):
        verbs = systemd_says(monkeypatch, wish, running=True)
        order = restarts(monkeypatch, answers=answers, ended=True)
        converge(wish)
        assert (verbs, order) == (["restart"], ["checkpoint", "pause", "resume", "waited for systemd"])


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
