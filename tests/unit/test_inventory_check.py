# SPDX-License-Identifier: Apache-2.0
"""The check as a user meets it: ``ansible-playbook -i <inventory> playbooks/check.yml``, no host needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = str(ROOT / ".venv/bin/ansible-playbook")
PASSWORD = "a-password"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILqV3Ap9iAw+HpNvftXkF2zD/OpMwnjVCCoCPnAR/3Qu me"
VALUES = {"hosts.yml": "192.0.2.1", "main.yml": KEY, "apps.yml": "notes.example.com"}
VALUES |= {
    "backups.yml": "age15ahyyy20pd8wmcz07xg2wf5eeancpkqjkfk4ercwucr8vn4gk3lsaall98",
    "vault.yml": f"AGE-SECRET-KEY-1{'Q' * 58}",
}


@pytest.fixture(scope="module")
def filled_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example inventory, filled in and its vault encrypted: what a careful user ends up with."""
    folder = tmp_path_factory.mktemp("check") / "production"
    shutil.copytree(ROOT / "inventories/example", folder)
    for path in folder.rglob("*.yml"):
        text = path.read_text().replace("email: CHANGEME", "email: me@example.com")
        path.write_text(text.replace("CHANGEME", VALUES.get(path.name, "secret-value")))
    vault = [str(ROOT / ".venv/bin/ansible-vault"), "encrypt", str(folder / "group_vars/all/vault.yml")]
    subprocess.run(vault, check=True, capture_output=True, cwd=ROOT, env=environment(PASSWORD))
    return folder


@pytest.fixture
def inventory(filled_in: Path, tmp_path: Path) -> Path:
    """A copy of it for one test to spoil."""
    return Path(shutil.copytree(filled_in, tmp_path / "production"))


def environment(password: str) -> dict[str, str]:
    """The environment of a CI runner: the vault password in it, no colours."""
    return {**os.environ, "ANSIBLE_NOCOLOR": "1", "SLIPWAY_VAULT_PASSWORD": password}


def check(inventory: Path, *args: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    """Run the check as a user does."""
    return subprocess.run(
        [PLAYBOOK, "-i", str(inventory), "playbooks/check.yml", *args],
        check=False, capture_output=True, text=True, cwd=ROOT, env=environment(password),
    )  # fmt: skip


def add(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_filled_in_example_passes_and_no_connection_is_taken(inventory: Path) -> None:
    """192.0.2.1 is an address that nobody has."""
    done = check(inventory)
    assert done.returncode == 0, done.stdout + done.stderr


def test_misspelled_names_are_found_with_file_and_line(inventory: Path) -> None:
    main = inventory / "group_vars/all/main.yml"
    add(main, "slipway_admin_usr: me\n")
    apps = inventory / "group_vars/all/apps.yml"
    apps.write_text(apps.read_text().replace("    image:", "    imgae: x\n    image:", 1))
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("# ansible_port", "ansible_prot"))
    done = check(inventory, "-e", "realese=1")
    assert done.returncode != 0
    line = len(main.read_text().splitlines())
    assert f"main.yml:{line}: slipway_admin_usr: unknown variable. Did you mean 'slipway_admin_user'?" in done.stdout
    assert "slipway_apps[0].imgae: unknown key. Did you mean 'image'?" in done.stdout
    assert "ansible_prot: unknown variable. Did you mean 'ansible_port'?" in done.stdout
    assert "realese: unknown variable. Did you mean 'release'?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_template_that_leads_nowhere_is_found_without_its_value(inventory: Path) -> None:
    apps = inventory / "group_vars/all/apps.yml"
    apps.write_text(apps.read_text().replace("vault_apps.notes.secret_key", "vault_apps.nots.secret_key"))
    done = check(inventory)
    assert done.returncode != 0
    assert "slipway_apps[0].secrets.SECRET_KEY" in done.stdout
    assert "secret-value" not in done.stdout + done.stderr


def test_unencrypted_vault_is_refused_and_its_values_are_not_shown(inventory: Path) -> None:
    (inventory / "group_vars/all/vault.yml").write_text(
        "vault_apps: {notes: {database_password: planted-7f3k, secret_key: planted-9q2m}}\n"
    )
    done = check(inventory)
    assert done.returncode != 0
    assert "not encrypted" in done.stdout
    assert "planted" not in done.stdout + done.stderr


def test_wrong_vault_password_is_one_message(inventory: Path) -> None:
    done = check(inventory, password="another")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr


def test_broken_yaml_is_named_with_its_line(inventory: Path) -> None:
    add(inventory / "group_vars/all/main.yml", "a: [1\nb: 2\n")
    done = check(inventory)
    assert done.returncode != 0
    lines = len((inventory / "group_vars/all/main.yml").read_text().splitlines())
    assert f"main.yml:{lines} is not YAML" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_inventory_without_a_host_is_noticed(inventory: Path) -> None:
    (inventory / "hosts.yml").write_text("---\nall:\n  hosts: {}\n")
    done = check(inventory)
    assert done.returncode != 0
    assert "One thing is wrong with the inventory" in done.stdout
    assert "no host" in done.stdout


def test_untouched_example_is_refused() -> None:
    done = subprocess.run(
        [PLAYBOOK, "playbooks/check.yml"], check=False, capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "still says CHANGEME" in done.stdout
    assert "bin/fab init" in done.stdout
