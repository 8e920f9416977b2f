# SPDX-License-Identifier: Apache-2.0
"""``fab init``: a whole inventory or nothing, secrets encrypted and never shown, every answer judged."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from slipway.errors import InputError

from console import answers, init, new_inventory
from console.age_keys import bech32, new_key
from console.answers import Answers, Image
from tests.unit.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILqV3Ap9iAw+HpNvftXkF2zD/OpMwnjVCCoCPnAR/3Qu me@laptop"
FLAGS = {"host": "203.0.113.7", "domain": "notes.example.com", "email": "me@example.com"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with one SSH key, and nothing of the real one."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    (folder / ".ssh/id_ed25519.pub").write_text(KEY + "\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("SLIPWAY_VAULT_PASSWORD", raising=False)
    return folder


@pytest.fixture
def inventories(tmp_path: Path) -> Path:
    """Where inventories go, in a checkout of its own that has the example application."""
    (tmp_path / "checkout/examples/notes").mkdir(parents=True)
    (tmp_path / "checkout/examples/notes/Dockerfile").write_text("FROM scratch\n")
    folder = tmp_path / "checkout/inventories"
    folder.mkdir()
    return folder


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def decrypted(vault: Path, password: str) -> Any:
    from ansible.parsing.vault import VaultLib, VaultSecret

    return yaml.safe_load(VaultLib([("any", VaultSecret(password.encode()))]).decrypt(vault.read_text()))


def test_flags_alone_make_a_whole_inventory(home: Path, inventories: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = init.run(FLAGS, inventories, interactive=False)
    assert target == inventories / "production"
    hosts = yaml.safe_load((target / "hosts.yml").read_text())
    assert hosts["all"]["hosts"]["web1"]["ansible_host"] == "203.0.113.7"
    assert all("web1" in hosts[group]["hosts"] for group in ("edge", "app", "db"))
    main = yaml.safe_load((target / "group_vars/all/main.yml").read_text())
    assert main["slipway_admin_keys"] == [KEY]
    (app,) = yaml.safe_load((target / "group_vars/all/apps.yml").read_text())["slipway_apps"]
    assert app["domains"] == ["notes.example.com"]
    assert (target / app["image"]["path"]).resolve() == inventories.parent / "examples/notes"
    password_file = home / ".config/slipway/production.vault-password"
    vault = decrypted(target / "group_vars/all/vault.yml", password_file.read_text().strip())
    secrets = vault["vault_apps"]["notes"]
    assert min(len(value) for value in secrets.values()) >= 40
    shown = capsys.readouterr().out
    assert "notes.example.com" in shown
    for secret in (*secrets.values(), password_file.read_text().strip()):
        assert secret not in shown


def test_secrets_are_readable_by_their_owner_alone(home: Path, inventories: Path) -> None:
    os.umask(0o022)
    target = init.run(FLAGS, inventories, interactive=False)
    password_file = home / ".config/slipway/production.vault-password"
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(password_file.parent.stat().st_mode) == 0o700
    assert (target / "group_vars/all/vault.yml").read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;production\n")


def test_two_inventories_share_no_secret(home: Path, inventories: Path) -> None:
    found = set()
    for name in ("production", "staging"):
        target = init.run({**FLAGS, "name": name}, inventories, interactive=False)
        password = (home / f".config/slipway/{name}.vault-password").read_text().strip()
        found |= {password, *decrypted(target / "group_vars/all/vault.yml", password)["vault_apps"]["notes"].values()}
    assert len(found) == 8
    assert (
        yaml.safe_load((inventories / "staging/group_vars/all/main.yml").read_text())["slipway_environment"]
        == "staging"
    )


def test_nothing_is_ever_overwritten(home: Path, inventories: Path) -> None:
    target = init.run(FLAGS, inventories, interactive=False)
    before = {path: path.read_bytes() for path in target.rglob("*.yml")}
    with pytest.raises(InputError, match="never overwritten"):
        init.run({**FLAGS, "host": "203.0.113.9"}, inventories, interactive=False)
    assert {path: path.read_bytes() for path in target.rglob("*.yml")} == before


def test_password_file_of_another_checkout_is_kept_and_the_new_label_leads_to_the_new_file(
    home: Path, inventories: Path
) -> None:
    taken = home / ".config/slipway/production.vault-password"
    taken.parent.mkdir(parents=True)
    taken.write_text("of another checkout\n")
    target = init.run(FLAGS, inventories, interactive=False)
    assert taken.read_text() == "of another checkout\n"
    label = (target / "group_vars/all/vault.yml").read_text().splitlines()[0].split(";")[3]
    assert label.startswith("production-")
    assert (taken.parent / f"{label}.vault-password").exists()


@pytest.mark.parametrize("missing", ["host", "domain", "email"])
def test_without_terminal_the_missing_flag_is_named(home: Path, inventories: Path, missing: str) -> None:
    with pytest.raises(InputError, match=f"--{missing} missing"):
        init.run({key: value for key, value in FLAGS.items() if key != missing}, inventories, interactive=False)
    assert everything_below(inventories) == []


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("host", "root@203.0.113.7", "alone"),
        ("host", "300.1.1.1", "no IP address"),
        ("domain", "https://notes.example.com", "no https://"),
        ("email", "me", "e-mail address"),
        ("app", "My App", "lower-case letter"),
        ("app", "postgres", "needs itself"),
        ("tier", "grwth", "write growth"),
        ("name", "lab", "taken by Slipway itself"),
        ("name", "../etc", "cannot name an inventory"),
        ("image", "nowhere", "neither a folder here nor an image"),
        ("image", "registry.example.com/notes:latest", "says nothing about what runs"),
        ("image", "./nowhere", "There is no folder"),
        ("port", "0", "1 to 65535"),
        ("health", "healthz", "starts with /"),
        ("key", "~/.ssh/nothing.pub", "No public key"),
    ],
)
def test_wrong_answer_is_refused_with_the_reason(
    home: Path, inventories: Path, flag: str, value: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        init.run({**FLAGS, flag: value}, inventories, interactive=False)
    assert everything_below(inventories) == []
    assert not (home / ".config").exists()


def test_private_key_is_never_taken_for_a_public_one(home: Path, inventories: Path) -> None:
    private = home / ".ssh/id_ed25519"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nplanted-key\n")
    with pytest.raises(InputError, match=r"private key.*id_ed25519\.pub") as caught:
        init.run({**FLAGS, "key": str(private)}, inventories, interactive=False)
    assert "planted" not in str(caught.value)


def test_keys_that_a_hardened_server_refuses_are_left_out(home: Path) -> None:
    (home / ".ssh/id_ecdsa.pub").write_text("ecdsa-sha2-nistp256 AAAAE2VjZHNh me\n")
    (home / ".ssh/work.pub").write_text("ssh-rsa AAAAB3NzaC1yc2E= work\n")
    assert [line.split()[0] for _, line in answers.find_keys(home / ".ssh")] == ["ssh-ed25519", "ssh-rsa"]


def test_no_key_at_all_says_how_to_make_one(home: Path, inventories: Path) -> None:
    (home / ".ssh/id_ed25519.pub").unlink()
    with pytest.raises(InputError, match="ssh-keygen -t ed25519"):
        init.run(FLAGS, inventories, interactive=False)


def test_questions_are_put_again_until_the_answer_is_right(
    home: Path, inventories: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (inventories.parent / "shop").mkdir()
    (inventories.parent / "shop/Dockerfile").write_text("FROM scratch\nEXPOSE 3000/tcp\n")
    given = ["", "", "https://x", "203.0.113.7", "shop.example.com", "nobody", "me@example.com",
             str(inventories.parent / "shop"), "Shop", "shop", "", "/up", "growth", ""]  # fmt: skip
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return given.pop(0)

    monkeypatch.setattr("builtins.input", answer)
    target = init.run({}, inventories, interactive=True)
    assert given == []
    (app,) = yaml.safe_load((target / "group_vars/all/apps.yml").read_text())["slipway_apps"]
    assert (app["name"], app["port"], app["health"]["path"]) == ("shop", 3000, "/up")
    assert "release_command" not in app
    assert yaml.safe_load((target / "group_vars/all/main.yml").read_text())["slipway_recovery_tier"] == "growth"
    assert "lower-case letter" in capsys.readouterr().out
    assert any("[3000]" in question for question in asked), "the Dockerfile's EXPOSE is the default"


def test_end_of_input_writes_nothing(home: Path, inventories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(question: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    with pytest.raises(EOFError):
        init.run({}, inventories, interactive=True)
    assert everything_below(inventories) == []


@pytest.mark.parametrize("step", ["mkdtemp", "rename", "fsync", "encrypt"])
def test_failure_at_any_point_leaves_nothing(
    home: Path, inventories: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    place = {"mkdtemp": "tempfile.mkdtemp", "rename": "pathlib.Path.rename", "fsync": "os.fsync",
             "encrypt": "console.new_inventory.encrypt"}[step]  # fmt: skip
    monkeypatch.setattr(place, fail)
    with pytest.raises(KeyboardInterrupt):
        init.run(FLAGS, inventories, interactive=False)
    assert everything_below(inventories) == []
    assert [path for path in home.rglob("*") if "vault-password" in path.name] == []


def test_sigterm_in_the_middle_leaves_nothing(home: Path, inventories: Path) -> None:
    """A real process, stopped while it writes."""
    program = (
        "import sys, time, os; sys.path[:0] = sys.argv[1:3]\n"
        "from console import new_inventory\n"
        "def slow(*a): print('writing', flush=True); time.sleep(600)\n"
        "new_inventory.os.fsync = slow\n"
        "from console import init; from pathlib import Path; import json\n"
        "init.run(json.loads(sys.argv[3]), Path(sys.argv[4]), interactive=False)\n"
    )
    argv = [
        sys.executable,
        "-c",
        program,
        str(ROOT),
        str(ROOT / "plugins/module_utils"),
        json.dumps(FLAGS),
        str(inventories),
    ]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "HOME": str(home)}
    )
    assert process.stdout is not None
    assert any(line.strip() == "writing" for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=LIMIT) != 0
    assert everything_below(inventories) == []
    assert [path for path in home.rglob("*") if "vault-password" in path.name] == []


def test_full_disk_is_one_message(home: Path, inventories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> str:
        raise OSError(28, "No space left on device", str(inventories))

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(new_inventory.SlipwayError, match="No space left on device"):
        init.run(FLAGS, inventories, interactive=False)


@pytest.mark.parametrize(
    ("text", "source", "image"),
    [
        ("registry.example.com/notes:1.4.2", "", Image("registry", name="registry.example.com/notes", tag="1.4.2")),
        ("localhost:5000/a/b:1", "", Image("registry", name="localhost:5000/a/b", tag="1")),
        ("notes:7", "ship", Image("ship", name="notes", tag="7")),
    ],
)
def test_images_are_recognised_by_their_form(text: str, source: str, image: Image) -> None:
    assert answers.parse_image(text, source) == image


def test_odd_characters_in_an_answer_stay_inside_their_value(inventories: Path) -> None:
    folder = inventories.parent / 'my "shop": {x}'
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    chosen = Answers("production", "production", "2001:db8::7", "a.example.com", "o'b\"x@example.com", "app",
                     Image("build", folder=str(folder)), 80, "/a?b=c:d#e", "startup", (KEY,))  # fmt: skip
    files = new_inventory.render(chosen, inventories / "production", new_inventory.BackupKeys(new_key(), new_key()))
    app = yaml.safe_load(files["group_vars/all/apps.yml"])["slipway_apps"][0]
    assert (inventories / "production" / app["image"]["path"]).resolve() == folder.resolve()
    assert app["health"]["path"] == "/a?b=c:d#e"
    assert yaml.safe_load(files["hosts.yml"])["all"]["hosts"]["web1"]["ansible_host"] == "2001:db8::7"


def test_a_new_inventory_can_be_backed_up_and_its_recovery_key_is_in_no_vault(
    home: Path,
    inventories: Path,
) -> None:
    """Its own folder keeps it out of git; nobody else can read it."""
    target = init.run(FLAGS, inventories, interactive=False)
    key = target / new_inventory.RECOVERY
    assert key.stat().st_mode & 0o777 == 0o600
    assert (target / ".gitignore").read_text().splitlines()[-1] == new_inventory.RECOVERY
    settings = yaml.safe_load((target / "group_vars/all/backups.yml").read_text())
    assert len(settings["slipway_backup_recipients"]) == 2
    assert settings["slipway_backup_recipients"][1] in key.read_text()
    assert "AGE-SECRET-KEY-1" in key.read_text()
    assert "slipway_drills_beside_database" not in settings


def test_drills_elsewhere_keep_the_key_off_the_server(home: Path, inventories: Path) -> None:
    target = init.run({**FLAGS, "drills": "elsewhere"}, inventories, interactive=False)
    settings = yaml.safe_load((target / "group_vars/all/backups.yml").read_text())
    assert settings["slipway_drills_beside_database"] is False


def test_age_keys_are_bech32_as_age_writes_them() -> None:
    """A vector of age-keygen, and of BIP 173."""
    assert bech32("a", b"") == "a12uel5l"
    key = new_key()
    assert key.identity.startswith("AGE-SECRET-KEY-1")
    assert len(key.recipient) == 62
    assert key.identity not in repr(key)
