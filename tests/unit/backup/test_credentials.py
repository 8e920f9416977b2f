# SPDX-License-Identifier: Apache-2.0
"""Where a process finds its credentials, and where it must not look."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slipway.backup import config


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not root, and the folder of root's own files here."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    monkeypatch.setattr(config, "CREDENTIALS", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "identity").write_text("roots")


def test_a_person_is_given_what_lies_there() -> None:
    assert config.credential("identity") == b"roots"


def test_a_unit_is_given_what_it_was_handed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    handed = tmp_path / "handed"
    handed.mkdir()
    (handed / "identity").write_text("mine")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    assert config.credential("identity") == b"mine"
    assert config.credential("writer") is None


def test_a_unit_that_was_handed_nothing_does_not_try_roots_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not read them, and would end with a complaint of rights rather than of a missing key."""
    monkeypatch.setenv("INVOCATION_ID", "0123")
    assert config.credential("identity") is None
    assert config.credential_path("identity") is None
