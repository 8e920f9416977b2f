# SPDX-License-Identifier: Apache-2.0
"""A new inventory folder: its files as text, its secrets, and how they get onto the disk all at once or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.errors import InputError, SlipwayError
from slipway.inventory.rules import check_values

from .age_keys import AgeKey, new_key
from .answers import Answers, Image
from .vault import password_file, password_folder

RECOVERY = "recovery-key.txt"
HEADLINE = "# Every setting, with its default, is explained in inventories/example/.\n"


def quoted(value: str) -> str:
    """A YAML scalar for any text: JSON's quotes are YAML's."""
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class BackupKeys:
    """Who can read the backups: the drills, and the operator when all else is lost."""

    drills: AgeKey
    recovery: AgeKey


def render(answers: Answers, folder: Path, keys: BackupKeys) -> dict[str, str]:
    """The inventory's readable files by their path below its folder (``folder``: where it will be)."""
    groups = {"edge": "the public's traffic (Caddy)", "app": "the applications", "db": "PostgreSQL"}
    hosts = "---\n" + HEADLINE.replace("Every setting", "What else a host may have")
    hosts += f"all:\n  hosts:\n    web1:\n      ansible_host: {quoted(answers.host)}\n"
    for group, purpose in groups.items():
        hosts += f"{group}: # {purpose}\n  hosts:\n    web1:\n"
    may_log_in = "".join(f"  - {quoted(key)}\n" for key in answers.keys)
    main = (
        f"---\n{HEADLINE}slipway_environment: {answers.environment}\nslipway_admin_user: ops\n"
        f"slipway_admin_keys:\n{may_log_in}slipway_admin_email: {quoted(answers.email)}\n"
        f"slipway_recovery_tier: {answers.tier}\n"
    )
    return {
        "hosts.yml": hosts,
        "group_vars/all/main.yml": main,
        "group_vars/all/apps.yml": _render_app(answers, folder),
        "group_vars/all/backups.yml": _render_backups(answers, keys),
        ".gitignore": f"# Opens every backup: no place for it in a repository.\n{RECOVERY}\n",
    }


def _render_backups(answers: Answers, keys: BackupKeys) -> str:
    lines = [
        "---",
        HEADLINE.rstrip(),
        "# Any one of these can read the backups; the server that writes them cannot.",
        "slipway_backup_recipients:",
        f"  - {keys.drills.recipient} # the drills': vault_backup_identity in vault.yml",
        f"  - {keys.recovery.recipient} # your own: {RECOVERY}, which belongs on no server",
        "# A folder of the server to begin with. It is lost with the server: docs/backups.md says how to use a bucket instead.",
        "slipway_backup_store:",
        "  path: /var/backups/slipway",
    ]
    if answers.drills == "elsewhere":
        lines.append("slipway_drills_beside_database: false # name a host under the group drill in hosts.yml")
    return "\n".join(lines) + "\n"


def _render_app(answers: Answers, folder: Path) -> str:
    notes = is_example(answers.image)
    lines = [
        "---",
        HEADLINE.rstrip(),
        "slipway_apps:",
        f"  - name: {answers.app}",
        "    domains:",
        f"      - {answers.domain}",
        "    image:",
        f"      source: {answers.image.source}",
    ]
    if answers.image.folder:
        lines.append(f"      path: {quoted(_path_from(folder, answers.image.folder))}")
    else:
        lines += [f"      name: {quoted(answers.image.name)}", f"      tag: {quoted(answers.image.tag)}"]
    lines += [
        f"    port: {answers.port}",
        "    database: true",
        "    health:",
        f"      path: {quoted(answers.health)}",
        "    release_command: [python3, -m, notes.migrate]"
        if notes
        else "    # Run before each switch, in the new image (schema migrations):\n    # release_command: [python, manage.py, migrate]",
        "    env:",
        "      LOG_LEVEL: info",
        "    secrets:",
        f'      SECRET_KEY: "{{{{ vault_apps.{answers.app}.secret_key }}}}"',
    ]
    return "\n".join(lines) + "\n"


def is_example(image: Image) -> bool:
    """Whether the image is built from the example application."""
    return bool(image.folder) and Path(image.folder).parts[-2:] == ("examples", "notes")


def _path_from(folder: Path, target: str) -> str:
    """``target`` relative to the inventory where both are in one tree, so that the pair can move; else absolute."""
    checkout = folder.resolve().parent.parent
    if Path(target).is_relative_to(checkout):
        return os.path.relpath(target, folder.resolve())
    return target


def new_secrets(answers: Answers, keys: BackupKeys) -> dict[str, Any]:
    """The vault's content: 256 random bits for each secret."""
    return {
        "vault_backup_identity": keys.drills.identity,
        "vault_pitr_passphrase": secrets.token_urlsafe(36),
        "vault_apps": {
            answers.app: {
                name: secrets.token_urlsafe(32) for name in ("database_password", "secret_key", "redis_password")
            }
        },
    }


def _recovery_text(answers: Answers, key: AgeKey) -> str:
    return (
        f"# Opens every backup of {answers.name}. Keep it off the servers and off this computer; docs/restore.md says how to use it.\n"
        f"# public key: {key.recipient}\n{key.identity}\n"
    )


def encrypt(plain: str, password: str, label: str) -> str:
    """``plain`` as an ansible-vault file whose header carries ``label``."""
    from ansible.parsing.vault import VaultLib, VaultSecret

    secret = VaultSecret(password.encode())
    return str(VaultLib([(label, secret)]).encrypt(plain, secret=secret, vault_id=label).decode())


def verify(answers: Answers, files: dict[str, str], vault: dict[str, Any]) -> None:
    """Hold the new files to the schema before they are written. Raises InputError."""
    import yaml

    merged: dict[str, Any] = dict(vault)
    for name, text in files.items():
        if name.startswith("group_vars/"):
            merged.update(yaml.safe_load(text))
    problems = list(check_values(merged))
    if problems:
        raise InputError(f"The inventory {answers.name} would be wrong: {problems[0]}")


def free_label(name: str) -> str:
    """The inventory's name, or that and four random digits where another checkout's password file has it already."""
    label = name
    while password_file(label).exists():
        label = f"{name}-{secrets.token_hex(2)}"
    return label


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, so that clean-up runs."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def write(answers: Answers, inventories: Path) -> tuple[Path, Path]:
    """Write ``inventories/<name>`` and its vault password file; returns both paths.

    Nothing is ever overwritten, and a failure or Ctrl-C at any point leaves neither behind. Raises SlipwayError.
    """
    target = inventories / answers.name
    refuse_existing(target)
    keys = BackupKeys(new_key(), new_key())
    files = render(answers, target, keys)
    vault = new_secrets(answers, keys)
    verify(answers, files, vault)
    label, password = free_label(answers.name), secrets.token_urlsafe(32)
    secret_file = password_file(label)
    comment = f"---\n# Open it with: ansible-vault edit inventories/{answers.name}/group_vars/all/vault.yml\n"
    body = comment + "".join(_plain_yaml(vault, 0))
    files["group_vars/all/vault.yml"] = encrypt(body, password, label)
    made: list[Path] = []
    try:
        with interruptible():
            password_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
            inventories.mkdir(exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix=f".{answers.name}.new-", dir=inventories))
            made.append(staged)
            for name, text in files.items():
                path = staged / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            recovery = os.open(staged / RECOVERY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(recovery, "w", encoding="utf-8") as handle:
                handle.write(_recovery_text(answers, keys.recovery))
            staged.chmod(0o755)
            descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            made.append(secret_file)
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                handle.write(password + "\n")
                handle.flush()
                os.fsync(handle.fileno())
            refuse_existing(target)
            staged.rename(target)
            made.clear()
    except OSError as error:
        raise SlipwayError(f"The inventory could not be written: {error.strerror} ({error.filename})") from error
    finally:
        for path in made:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return target, secret_file


def refuse_existing(target: Path) -> None:
    """Raises InputError where the inventory is there already."""
    if target.exists():
        raise InputError(
            f"{target} is there already, and is never overwritten", "", "choose another --name, or edit its files"
        )


def _plain_yaml(value: dict[str, Any], depth: int) -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield f"{'  ' * depth}{key}:\n"
            yield from _plain_yaml(inner, depth + 1)
        else:
            yield f"{'  ' * depth}{key}: {quoted(str(inner))}\n"
