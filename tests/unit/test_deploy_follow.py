# SPDX-License-Identifier: Apache-2.0
"""Following a deploy from the control node: a cut connection costs a moment, never the deploy."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.vps.plugins.action import app_follow

IMAGE = {"name": "image", "status": "ok", "detail": "ship slipway/notes:1", "duration": 6.2}
COMMAND = {"name": "release_command", "status": "skipped", "detail": "none", "duration": 0.0}
HEALTH = {"name": "health", "status": "ok", "detail": "healthy after 2.0 s", "duration": 2.0}


def followed(answers: list[Any], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], MagicMock]:
    """What following returns when the host answers so, one look after the other; and the connection."""
    action = app_follow.ActionModule.__new__(app_follow.ActionModule)
    action._task = MagicMock(args={"app": "notes", "request": "1", "phase": "health"})
    action._connection = MagicMock()
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    looks = MagicMock(side_effect=answers)
    monkeypatch.setattr(app_follow.ActionModule, "_execute_module", looks)
    return action.run(), action._connection


def test_cut_connection_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    end = {"waiting": False, "phases": [HEALTH], "changed": True, "invocation": {"module_args": {}}}
    answers = [{"waiting": True}, AnsibleConnectionFailure("reset by peer"), AnsibleConnectionFailure("refused"), end]
    result, connection = followed(answers, monkeypatch)
    assert result == {"phases": [HEALTH], "changed": True}
    assert connection.reset.call_count == 2


def test_connection_that_stays_away_ends_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_follow, "LOST_SECONDS", -1)
    with pytest.raises(AnsibleError, match=r"The deploy of notes goes on there.*run the same playbook again"):
        followed([AnsibleConnectionFailure("no route to host")], monkeypatch)


def test_failure_of_the_deploy_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = followed([{"failed": True, "msg": "The new release was not healthy"}], monkeypatch)
    assert result == {"failed": True, "msg": "The new release was not healthy"}


def test_each_phase_is_told_once_and_a_skipped_one_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(app_follow.display, "display", told.append)
    answers = [
        {"waiting": True, "phases": [IMAGE]},
        {"waiting": True, "phases": []},
        {"waiting": False, "phases": [IMAGE, COMMAND, HEALTH]},
    ]
    followed(answers, monkeypatch)
    assert told == [
        "  notes: image: 6.2 s, ship slipway/notes:1",
        "  notes: health: 2.0 s, healthy after 2.0 s",
    ]
