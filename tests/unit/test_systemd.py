# SPDX-License-Identifier: Apache-2.0
"""units: the steps from what systemd says to what is wished."""

from __future__ import annotations

from typing import Any

import pytest
from slipway.commands import Outcome
from slipway.errors import InputError
from slipway.host import systemd
from slipway.host.systemd import Step, UnitFound, UnitSpec, parse_show, plan, reread, touched

RUNNING = UnitFound("loaded", "active", "enabled", "simple")
STOPPED = UnitFound("loaded", "inactive", "disabled", "simple")
MISSING = UnitFound()
MASKED = UnitFound("masked", "inactive", "masked", "")


@pytest.mark.parametrize(
    ("wish", "found", "steps"),
    [
        ({"enabled": True, "state": "started"}, RUNNING, []),
        ({"enabled": True, "state": "started"}, STOPPED, ["enable", "start"]),
        ({"enabled": True, "state": "started"}, MISSING, ["enable", "start"]),
        ({"state": "started", "restart": True}, RUNNING, ["restart"]),
        ({"state": "started", "restart": True}, STOPPED, ["start"]),
        ({"state": "started", "reload": True}, RUNNING, ["reload"]),
        ({"state": "started", "restart": True, "reload": True}, RUNNING, ["restart"]),
        ({"reload": True}, STOPPED, []),
        ({"enabled": False, "state": "stopped"}, RUNNING, ["disable", "stop"]),
        ({"enabled": False, "state": "stopped", "masked": True}, RUNNING, ["disable", "stop", "mask"]),
        ({"enabled": False, "state": "stopped", "masked": True}, MASKED, []),
        ({"enabled": False, "state": "stopped", "missing_ok": True}, MISSING, []),
        ({"masked": True, "missing_ok": True}, MISSING, ["mask"]),
        ({"masked": False, "enabled": True, "state": "started"}, MASKED, ["unmask", "enable", "start"]),
        ({"state": "started"}, UnitFound("loaded", "inactive", "static", "oneshot"), []),
        ({"state": "started"}, UnitFound("loaded", "inactive", "enabled", "oneshot", remains=True), ["start"]),
        ({"state": "started"}, UnitFound("loaded", "failed", "enabled", "oneshot"), ["start"]),
        ({"enabled": True}, UnitFound("loaded", "active", "static", "simple"), []),
    ],
)
def test_steps_from_found_to_wished(wish: dict[str, Any], found: UnitFound, steps: list[str]) -> None:
    planned = plan(UnitSpec.parse({"name": "x.service", **wish}), found)
    assert [step.verb for step in planned] == steps


def test_show_of_several_units_is_told_apart_and_aliases_count() -> None:
    text = (
        "Type=notify\nId=ssh.service\nNames=ssh.service sshd.service\nLoadState=loaded\nActiveState=active\n"
        "UnitFileState=enabled\n\nId=gone.service\nNames=gone.service\nLoadState=not-found\nActiveState=inactive\n"
    )
    units = parse_show(text)
    assert units["sshd.service"] == UnitFound("loaded", "active", "enabled", "notify")
    assert units["gone.service"].load == "not-found"


def test_a_name_without_a_type_is_refused() -> None:
    with pytest.raises(InputError, match="ssh"):
        UnitSpec.parse({"name": "ssh"})


def test_neighbours_of_the_same_verb_go_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(systemd, "run", lambda argv, **_: calls.append(argv) or Outcome(tuple(argv), 0, "", ""))
    steps = [
        Step("start", "docker.service"), Step("start", "slipway-network.service"),
        Step("restart", "systemd-journald.service"), Step("start", "caddy.service"), Step("enable", "caddy.service"),
    ]  # fmt: skip
    systemd.apply(steps, daemon_reload=False)
    assert [[argv[1], *argv[3:]] for argv in calls] == [
        ["enable", "caddy.service"],
        ["start", "docker.service", "slipway-network.service"],
        ["restart", "systemd-journald.service"],
        ["start", "caddy.service"],
    ]


@pytest.mark.parametrize(
    ("watched", "changed", "expected"),
    [
        ([], ["/etc/a"], False),
        (["/etc/a"], [], False),
        (["/etc/a"], ["/etc/a"], True),
        (["/etc/a"], ["/etc/a/b", "/etc/ab"], False),
        (["/etc/a/"], ["/etc/a/b"], True),
        (["/etc/a/"], ["/etc/a", "/etc/ab"], False),
        (["/"], ["/etc/a"], True),
    ],
)
def test_a_path_that_is_watched_and_changed_is_noticed(watched: list[str], changed: list[str], expected: bool) -> None:
    assert touched(watched, changed) is expected
    spec = UnitSpec.parse({"name": "a.service", "restart_on": watched, "reload_on": watched}, changed)
    assert (spec.restart, spec.reload) == (expected, expected)


def test_what_is_asked_for_anyway_needs_no_changed_path() -> None:
    spec = UnitSpec.parse({"name": "a.service", "restart": True, "restart_on": ["/etc/a"]})
    assert (spec.restart, spec.reload) == (True, False)


def test_systemd_reads_again_only_what_lies_in_its_folders() -> None:
    assert reread(["/etc/docker/daemon.json", "/etc/systemd/system/a.service.d/b.conf"])
    assert not reread(["/etc/docker/daemon.json", "/etc/systemd.conf"])


def test_what_ran_before_a_failed_start_runs_again_and_what_was_new_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def note(argv: list[str], **_: Any) -> Outcome:
        calls.append(argv[1:])
        return Outcome(tuple(argv), 1, "", "no")  # however badly it goes

    monkeypatch.setattr(systemd, "run", note)
    steps = [Step("enable", "new.timer"), Step("start", "new.timer"), Step("restart", "old.service")]
    systemd.take_back(steps, {"old.service": RUNNING, "new.timer": MISSING})
    assert calls == [
        ["daemon-reload"],
        ["stop", "--", "new.timer"],
        ["restart", "--", "old.service"],
        ["disable", "--", "new.timer"],
    ]
