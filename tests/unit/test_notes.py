# SPDX-License-Identifier: Apache-2.0
"""The parts of the example application that need only the standard library.

FastAPI and psycopg_pool are deliberately not in the development environment: the rest is tested as it runs, in its
container against a real PostgreSQL (tests/integration/test_notes_app.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "notes"))

from notes import gate, logs, migrate, security, settings

GOOD = {"DATABASE_URL": "postgresql://notes:pw@db/notes", "SECRET_KEY": "0123456789abcdef"}


def made(**env: str) -> settings.Settings:
    return settings.from_environment({**GOOD, **env})


def test_what_is_not_set_has_its_documented_default() -> None:
    found = made()
    assert (found.port, found.workers, found.concurrency, found.pool_max) == (8000, 1, 100, 30)
    assert found.session_url == found.database_url
    assert (found.release, found.colour, found.fail_rate) == ("dev", "none", 0.0)


def test_settings_are_typed() -> None:
    found = made(PORT="8080", WORKERS="2", FAIL_READY="true", FAIL_RATE="0.5", LOG_LEVEL="DEBUG", RELEASE="1.4.2")
    assert (found.port, found.workers, found.fail_ready, found.fail_rate) == (8080, 2, True, 0.5)
    assert (found.log_level, found.release) == ("debug", "1.4.2")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "mysql://u:hidden@db/x"}, "DATABASE_URL is not a PostgreSQL URL"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY has 5 characters"),
        ({"PORT": "70000"}, "PORT is '70000'; expected a whole number from 1 to 65535"),
        ({"WORKERS": "many"}, "WORKERS is 'many'"),
        ({"FAIL_RATE": "2"}, "FAIL_RATE is '2'; expected a number from 0 to 1"),
        ({"FAIL_JOBS": "perhaps"}, "FAIL_JOBS is 'perhaps'; expected 1 or 0"),
        ({"FAIL_READY": "perhaps"}, "FAIL_READY is 'perhaps'; expected 1 or 0"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL is 'loud'; expected one of"),
    ],
)
def test_a_bad_setting_is_named_with_what_was_expected(env: dict[str, str], message: str) -> None:
    with pytest.raises(settings.SettingError) as error:
        made(**env)
    assert message in str(error.value)
    assert "hidden" not in str(error.value)
    assert "short" not in str(error.value)


def test_migrations_are_numbered_without_gaps_and_pending_counts_from_the_level() -> None:
    assert [step.level for step in migrate.MIGRATIONS] == list(range(1, migrate.LEVEL + 1))
    assert migrate.pending(0) == migrate.MIGRATIONS
    assert migrate.pending(migrate.LEVEL) == ()
    # A newer schema than this release knows is no reason to do anything: a rollback must be able to run.
    assert migrate.pending(migrate.LEVEL + 1) == ()


def test_migrations_only_add() -> None:
    for step in migrate.MIGRATIONS:
        words = step.sql.upper().split()
        assert not {"DROP", "RENAME", "DELETE", "TRUNCATE"} & set(words), step.name


def test_a_form_token_fits_its_visitor_alone() -> None:
    visitor = security.new_visitor()
    token = security.form_token("key", visitor)
    assert security.token_fits("key", visitor, token)
    assert not security.token_fits("key", security.new_visitor(), token)
    assert not security.token_fits("other key", visitor, token)
    assert not security.token_fits("key", None, token)
    assert not security.token_fits("key", visitor, "é")


@pytest.mark.parametrize("cookie", [None, "", "x" * 32, "0" * 31, "0" * 32 + "\n"])
def test_a_cookie_that_is_not_ours_is_nobody(cookie: str | None) -> None:
    assert security.known_visitor(cookie) is None


def test_log_lines_are_json_with_the_release() -> None:
    record = logging.LogRecord("notes", logging.WARNING, __file__, 1, "not %s", ("ready",), None)
    record.reason = "no answer"
    line = json.loads(logs.JsonLines("r7", "green").format(record))
    assert line["what"] == "not ready"
    assert (line["level"], line["release"], line["colour"], line["reason"]) == ("warning", "r7", "green", "no answer")


async def ask(app: Any, path: str = "/x") -> int:
    """Status of one request through an ASGI application; 0 when there was none."""
    status = 0

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app({"type": "http", "path": path, "method": "GET"}, None, send)
    return status


async def empty(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b""})


def test_fail_rate_fails_that_share_and_never_the_health_endpoints() -> None:
    async def go() -> tuple[list[int], list[int]]:
        app = gate.Gate(empty, made(FAIL_RATE="0.25"))
        return [await ask(app) for _ in range(100)], [await ask(app, "/readyz") for _ in range(10)]

    normal, health = asyncio.run(go())
    assert normal.count(500) == 25
    assert health == [200] * 10


def test_requests_beyond_the_concurrency_wait_and_then_get_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "QUEUE_SECONDS", 0.2)
    running = most = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.15)
        running -= 1
        await empty(scope, receive, send)

    async def go() -> tuple[list[int], int]:
        bounded = gate.Gate(app, made(CONCURRENCY="2"))
        statuses = asyncio.gather(*(ask(bounded) for _ in range(8)))
        await asyncio.sleep(0.05)
        return await statuses, await ask(bounded, "/healthz")

    statuses, health = asyncio.run(go())
    assert most <= 3  # two, and the health request that is always admitted
    assert sorted(set(statuses)) == [200, 503]
    assert statuses.count(200) == 4
    assert health == 200
