# SPDX-License-Identifier: Apache-2.0
"""SCRAM verifiers: made as PostgreSQL makes them, compared without being rewritten."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slipway.errors import InputError
from slipway.postgres import scram

PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=12, max_size=64)
# Made by PostgreSQL 17: CREATE ROLE x PASSWORD 'pencil-pencil-pencil', then read from pg_authid.
OF_POSTGRES = (
    "pencil-pencil-pencil",
    "SCRAM-SHA-256$4096:35Iz2I4v9HYbijSCWwTg1A==$D/MGcjeE1GTMLcng55xIeCaoUwhKV/XCk8Jw0w7u590=:qimBCMB8MpLt2hjI6+wkpa6XhZdPeHrFUnUbbt3r8hY=",
)


def test_a_verifier_that_postgres_made_is_recognised() -> None:
    password, stored = OF_POSTGRES
    assert scram.matches(password, stored)
    assert not scram.matches(password + "x", stored)


def test_the_rfc_example_gives_the_keys_of_the_rfc() -> None:
    # RFC 7677, section 3: user, pencil, salt W22ZaJ0SNY7soEsUEjb6gQ==, 4096 rounds; its server signature proves ServerKey.
    import hmac

    stored = scram.verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    server_key = base64.b64decode(stored.rpartition(":")[2])
    message = (
        "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,"
        "i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.digest(server_key, message.encode(), "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@settings(max_examples=20, deadline=None)
@given(PRINTABLE)
def test_a_password_matches_its_own_verifier_and_no_other(password: str) -> None:
    stored = scram.verifier(password)
    assert scram.matches(password, stored)
    assert not scram.matches(password[:-1] + chr((ord(password[-1]) - 0x20) % 0x5E + 0x21), stored)
    assert password not in stored


@pytest.mark.parametrize(
    "stored", [None, "", "md5d8578edf8458ce06fbc5bb76a58c5ca4", "SCRAM-SHA-256$4096:a$b:c", "SCRAM-SHA-256$x"]
)
def test_what_is_no_verifier_matches_nothing(stored: str | None) -> None:
    assert not scram.matches("any-password-at-all", stored)


@pytest.mark.parametrize("password", ["", "short", "with space in it", "tab\tin-the-middle", "grüße-aus-köln"])
def test_a_password_that_cannot_be_used_is_refused_without_being_shown(password: str) -> None:
    with pytest.raises(InputError) as caught:
        scram.check_password(password, "database role notes")
    assert "notes" in str(caught.value)
    assert not password or password not in str(caught.value)
