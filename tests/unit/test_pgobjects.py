# SPDX-License-Identifier: Apache-2.0
"""The plan for roles and databases: least privilege, nothing dropped, nothing said twice, no secret shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from slipway.errors import InputError
from slipway.postgres import objects as pgobjects
from slipway.postgres import scram
from slipway.postgres import server as pgserver
from slipway.postgres.objects import DatabaseFound, Found, LookupFound, RoleFound, parse, plan, wished_lookup

PASSWORD = "planted-in-a-unit-test"


def wish(**changes: Any) -> tuple[pgobjects.DatabaseSpec, ...]:
    return parse([{"name": "notes", "password": PASSWORD, **changes}])


def settled() -> Found:
    """A cluster in which the wish for ``notes`` is fulfilled."""
    roles = {"notes": RoleFound(verifier=scram.verifier(PASSWORD))}
    return Found(roles, {"notes": DatabaseFound("notes"), "postgres": DatabaseFound("postgres")})


def labels(found: Found, **changes: Any) -> list[str]:
    return [step.label for step in plan(wish(**changes), found)]


def test_nothing_is_left_to_do_when_all_is_as_wished() -> None:
    assert plan(wish(), settled()) == []


def test_a_new_app_gets_a_role_before_its_database_and_a_closed_one() -> None:
    steps = plan(wish(extensions=["citext"]), Found())
    assert [step.label for step in steps] == [
        "create role notes",
        "create database notes",
        "close database notes to others",
        "close schema public of notes to others",
        "create extension citext in notes",
    ]
    assert "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS" in steps[0].sql
    assert steps[-1].database == "notes"


def test_the_password_is_in_no_statement_and_the_verifier_in_no_text_that_people_see() -> None:
    for found in (Found(), replace(settled(), roles={"notes": RoleFound(verifier=scram.verifier("another-password"))})):
        steps = plan(wish(), found)
        assert any("SCRAM-SHA-256" in step.sql for step in steps)
        assert all(PASSWORD not in step.sql for step in steps)
        assert "SCRAM" not in repr(steps)
    assert PASSWORD not in repr(wish())


@pytest.mark.parametrize("stored", [None, "md5d8578edf8458ce06fbc5bb76a58c5ca4", scram.verifier("the-password-before")])
def test_a_changed_password_is_noticed(stored: str | None) -> None:
    found = replace(settled(), roles={"notes": RoleFound(verifier=stored)})
    assert labels(found) == ["change the password of role notes"]


def test_privileges_that_crept_in_are_taken_back() -> None:
    role = RoleFound(elevated=("superuser", "createdb"), verifier=scram.verifier(PASSWORD))
    database = DatabaseFound(
        "postgres", 5, frozenset({"CONNECT"}), schema_owner="postgres", schema_public=frozenset({"CREATE"})
    )
    found = Found(
        {"notes": role}, {"notes": database, "template1": DatabaseFound("postgres", public=frozenset({"CONNECT"}))}
    )
    assert labels(found) == [
        "close database template1 to others",
        "give role notes an app's rights (takes superuser, createdb)",
        "give database notes to notes",
        "limit database notes to -1 connections",
        "close database notes to others",
        "give schema public of notes to its owner",
        "close schema public of notes to others",
    ]


def test_a_database_that_is_no_longer_wished_is_left_alone() -> None:
    assert plan((), settled()) == []


def test_settings_of_the_owner_are_set_once_and_those_of_others_left() -> None:
    role = RoleFound(
        verifier=scram.verifier(PASSWORD), settings={"notes": {"lock_timeout": "5s", "search_path": "app"}}
    )
    found = replace(settled(), roles={"notes": role})
    assert labels(found, settings={"lock_timeout": "5s"}) == []
    assert labels(found, settings={"lock_timeout": "9s", "jit": False}) == [
        "set jit = off for notes in notes",
        "set lock_timeout = 9s for notes in notes",
    ]


def test_the_poolers_function_is_written_anew_when_anybody_else_may_call_it() -> None:
    roles = {"pgbouncer": RoleFound(), pgobjects.LOOKUP_OWNER: RoleFound(login=False)}
    as_wished = Found(roles, {}, wished_lookup("pgbouncer"))
    assert plan((), as_wished, pooler="pgbouncer") == []
    opened = replace(as_wished, lookup=replace(as_wished.lookup, callers=frozenset({"pgbouncer", "PUBLIC"})))
    assert len(plan((), opened, pooler="pgbouncer")) == 1
    assert len(plan((), replace(as_wished, lookup=LookupFound()), pooler="pgbouncer")) == 1


def test_a_password_or_a_login_of_the_poolers_roles_is_taken_back() -> None:
    roles = {"pgbouncer": RoleFound(verifier="x"), pgobjects.LOOKUP_OWNER: RoleFound(login=True)}
    steps = plan((), Found(roles, {}, wished_lookup("pgbouncer")), pooler="pgbouncer")
    assert [step.sql.split(" NOSUPER")[0] for step in steps] == [
        'ALTER ROLE "pgbouncer" PASSWORD NULL',
        f'ALTER ROLE "{pgobjects.LOOKUP_OWNER}" NOLOGIN',
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Notes"}, {"name": "notes; DROP"}, {"name": 'no"tes'}, {"name": "postgres"}, {"name": "pg_notes"},
        {"name": "notes_session"}, {"owner": "postgres"}, {"owner": "pgbouncer"}, {"extensions": ["x; DROP"]},
        {"connection_limit": 0}, {"settings": {"a = b; --": "1"}}, {"password": "short"},
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_is_refused_with_one_message(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        wish(**changes)


def test_two_entries_that_contradict_each_other_are_refused() -> None:
    one = {"name": "a", "password": PASSWORD}
    with pytest.raises(InputError, match="Two databases"):
        parse([one, one])
    with pytest.raises(InputError, match="several passwords"):
        parse([one, {"name": "b", "owner": "a", "password": PASSWORD + "x"}])


@pytest.mark.parametrize(("value", "sql"), [("a", "'a'"), ("o'clock", "'o''clock'"), ("a\\b", "E'a\\\\b'")])
def test_constants_are_quoted(value: str, sql: str) -> None:
    assert pgobjects.literal(value) == sql


SS = """\
LISTEN 0      200        127.0.0.1:5432       0.0.0.0:*
LISTEN 0      200            [::1]:5432          [::]:*
LISTEN 0      128          0.0.0.0:22         0.0.0.0:*
LISTEN 0      128                *:80               *:*
LISTEN 0      128  [fe80::1%eth0]:6432          [::]:*
"""


@pytest.mark.parametrize(
    ("port", "addresses"), [(5432, ["127.0.0.1", "::1"]), (22, ["*"]), (80, ["*"]), (6432, ["fe80::1"]), (1, [])]
)
def test_listening_addresses_are_read_from_ss(port: int, addresses: list[str]) -> None:
    assert pgserver.parse_listening(SS, port) == addresses


def test_listening_beyond_what_is_allowed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgserver, "listening", lambda _port: ["*"])
    with pytest.raises(pgserver.ServerError, match="listens on port 5432 of"):
        pgserver.check_listening(5432, ["localhost"], "PostgreSQL")
    assert pgserver.check_listening(5432, ["*"], "PostgreSQL") == ["*"]


def test_an_address_that_nobody_listens_on_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgserver, "listening", lambda _port: ["127.0.0.1"])
    with pytest.raises(pgserver.ServerError):
        pgserver.check_listening(6432, ["127.0.0.1", "10.213.87.1"], "PgBouncer")


PEER = pgobjects.PeerSpec("slipway_backup", "slipway-backup")


def test_a_superuser_for_a_system_user_has_no_password() -> None:
    assert [step.sql for step in plan((), Found(), peers=[PEER])] == ['CREATE ROLE "slipway_backup" LOGIN SUPERUSER']
    there = RoleFound(elevated=("superuser",))
    assert plan((), Found({"slipway_backup": there}), peers=[PEER]) == []
    given_one = replace(there, verifier=scram.verifier(PASSWORD))
    steps = plan((), Found({"slipway_backup": given_one}), peers=[PEER])
    assert [step.sql for step in steps] == ['ALTER ROLE "slipway_backup" PASSWORD NULL']
    demoted = plan((), Found({"slipway_backup": RoleFound()}), peers=[PEER])
    assert [step.sql for step in demoted] == ['ALTER ROLE "slipway_backup" LOGIN SUPERUSER']


def test_such_a_role_cannot_bear_a_name_of_the_servers_own() -> None:
    with pytest.raises(InputError):
        pgobjects.PeerSpec.parse({"role": "postgres", "system_user": "slipway-backup"})
