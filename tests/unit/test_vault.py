# SPDX-License-Identifier: Apache-2.0
"""The vault password is found from the command line that asks, and never guessed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from console import vault

ROOT = Path(__file__).resolve().parents[2]
HEADER = "$ANSIBLE_VAULT;1.2;AES256;{}\n3132\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inventories ``one`` (labelled one-a1b2) and ``two`` (no vault), password files below a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("SLIPWAY_VAULT_PASSWORD", raising=False)
    for name in ("one", "two"):
        (tmp_path / name / "group_vars/all").mkdir(parents=True)
        (tmp_path / name / "hosts.yml").write_text("---\n")
    (tmp_path / "one/group_vars/all/vault.yml").write_text(HEADER.format("one-a1b2"))
    vault.password_folder().mkdir(parents=True, mode=0o700)
    path = vault.password_file("one-a1b2")
    path.write_text("the password\n")
    path.chmod(0o600)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["-i", "{}/one", "playbooks/site.yml"],
        ["-i{}/one", "site.yml"],
        ["--inventory={}/one/hosts.yml", "site.yml"],
        ["--inventory", "{}/one/", "-e", "a=b", "site.yml"],
        ["edit", "{}/one/group_vars/all/vault.yml"],
        ["-i", "{}/two", "-i", "{}/one"],
    ],
)
def test_inventory_is_taken_from_the_command_line(world: Path, words: list[str]) -> None:
    arguments = ["ansible", *(word.format(world) for word in words)]
    expected = world / ("two" if "{}/two" in words else "one")
    assert vault.inventory_in(arguments) == expected


def test_label_leads_to_the_password(world: Path) -> None:
    assert vault.password_for(world / "one") == "the password"


def test_without_anything_encrypted_a_random_stand_in_is_given(world: Path) -> None:
    first, second = vault.password_for(world / "two"), vault.password_for(None)
    assert len(first) >= 32
    assert first != second


def test_nothing_is_ever_encrypted_with_a_stand_in(world: Path) -> None:
    arguments = ["python3", "/x/bin/ansible-vault", "encrypt", f"{world}/two/group_vars/all/vault.yml"]
    assert vault.is_encrypting(arguments)
    with pytest.raises(vault.VaultPasswordError, match="has no vault password yet"):
        vault.password_for(world / "two", encrypting=True)
    with pytest.raises(vault.VaultPasswordError, match="No inventory is named"):
        vault.password_for(None, encrypting=True)


def test_missing_password_names_the_file_and_the_remedy(world: Path) -> None:
    vault.password_file("one-a1b2").unlink()
    with pytest.raises(vault.VaultPasswordError, match=r"one-a1b2\.vault-password.*SLIPWAY_VAULT_PASSWORD"):
        vault.password_for(world / "one")


def test_password_that_others_can_read_is_refused(world: Path) -> None:
    vault.password_file("one-a1b2").chmod(0o644)
    with pytest.raises(vault.VaultPasswordError, match="chmod 600"):
        vault.password_for(world / "one")


def test_environment_wins(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_VAULT_PASSWORD", "from CI")
    assert vault.password_for(world / "one") == "from CI"


def test_the_checkout_itself_is_no_inventory() -> None:
    assert vault.inventory_of(ROOT / "playbooks/check.yml") is None


def test_ansible_decrypts_with_nothing_but_the_inventory_named(world: Path) -> None:
    """The real thing: ansible-vault and ansible-inventory find the password by themselves."""
    inventory = world / "two"
    path = vault.password_file("two")
    path.write_text("another password\n")
    path.chmod(0o600)
    secret = inventory / "group_vars/all/vault.yml"
    secret.write_text("vault_planted: readable-7f3k\n")
    (inventory / "hosts.yml").write_text("all: {hosts: {web1: }}\n")

    def run(*argv: str) -> str:
        done = subprocess.run(
            [str(ROOT / ".venv/bin" / argv[0]), *argv[1:]],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=dict(os.environ),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("ansible-vault", "encrypt", str(secret))
    assert "readable-7f3k" not in secret.read_text()
    assert "readable-7f3k" in run("ansible-inventory", "-i", str(inventory), "--list")
    assert "readable-7f3k" in run("ansible-vault", "view", str(secret))
