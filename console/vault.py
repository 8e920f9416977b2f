# SPDX-License-Identifier: Apache-2.0
"""Where an inventory's vault password is, so that nobody has to type or name it.

``ansible.cfg`` names ``bin/vault-password``; Ansible runs it and reads the password from its output. Which inventory
is meant is taken from the arguments of the command that asks. The standard library alone, and any Python 3.8: this
runs before and outside the virtual environment too.
"""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
from pathlib import Path
from typing import Sequence  # noqa: UP035  (collections.abc has no subscript before Python 3.9)

HEADER = "$ANSIBLE_VAULT;"


class VaultPasswordError(Exception):
    """The password cannot be given; the message says where it was looked for and what to do."""


def password_folder() -> Path:
    """``~/.config/slipway`` (or below XDG_CONFIG_HOME): outside of every checkout."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "slipway"


def password_file(label: str) -> Path:
    """The file with the password of the vault that is labelled so."""
    return password_folder() / (label + ".vault-password")


def inventory_of(path: Path) -> Path | None:
    """The inventory folder that ``path`` is, or lies in, or None: the nearest folder with group_vars or host_vars."""
    try:
        path = path.expanduser()
        if not path.exists():
            return None
    except (OSError, RuntimeError):  # a word of the command line that can't be a path: too long, an unknown ~user
        return None
    path = path.resolve()
    for folder in [path, *path.parents]:
        if (folder / "group_vars").is_dir() or (folder / "host_vars").is_dir():
            # A checkout's own folders are no inventory.
            return None if (folder / "ansible.cfg").exists() else folder
    return None


def inventory_in(arguments: Sequence[str]) -> Path | None:
    """The inventory a command line names: by ``-i``, else by any file within one (``ansible-vault edit FILE``)."""
    named = []
    for index, word in enumerate(arguments):
        if word in ("-i", "--inventory", "--inventory-file") and index + 1 < len(arguments):
            named.append(arguments[index + 1])
        elif word.startswith(("--inventory=", "--inventory-file=")):
            named.append(word.partition("=")[2])
        elif word.startswith("-i") and len(word) > 2 and not word.startswith("--"):
            named.append(word[2:].lstrip("="))
    # After -i, other words may be files too; a playbook or script is never within an inventory.
    for word in [*named, *(word for word in arguments[1:] if not word.startswith("-"))]:
        found = inventory_of(Path(word))
        if found:
            return found
    return None


def label_of(inventory: Path) -> str | None:
    """The label in the header of the inventory's encrypted file (its own name where the header has none), or None."""
    for folder in ("group_vars", "host_vars"):
        for path in sorted((inventory / folder).rglob("*")):
            if not path.is_file():
                continue
            with path.open("rb") as handle:
                first = handle.readline(200).decode("ascii", "replace").strip()
            if first.startswith(HEADER):
                parts = first.split(";")
                return parts[3] if len(parts) > 3 else inventory.name
    return None


def read_password(path: Path) -> str:
    """The password in ``path``. Raises VaultPasswordError where it is missing, empty, or readable by others."""
    try:
        status = path.stat()
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        raise VaultPasswordError(
            f"No vault password in {path}. Copy that file from the computer on which the inventory was made, "
            "or set SLIPWAY_VAULT_PASSWORD in the environment (CI)."
        ) from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise VaultPasswordError(f"Others can read {path}. Run: chmod 600 {path}")
    if not text:
        raise VaultPasswordError(f"{path} is empty. Put the vault password into it.")
    return text


def password_for(inventory: Path | None, *, encrypting: bool = False) -> str:
    """The vault password of ``inventory``: from the environment, else its file.

    Ansible wants a password even where nothing is encrypted, and gets random letters there; not when it is about to
    encrypt (``encrypting``), where they would be lost with the content. Raises VaultPasswordError.
    """
    given = os.environ.get("SLIPWAY_VAULT_PASSWORD", "")
    if given:
        return given
    label = label_of(inventory) if inventory else None
    if label:
        return read_password(password_file(label))
    if not encrypting:
        return secrets.token_hex(16)
    if inventory is None:
        raise VaultPasswordError("No inventory is named, so no vault password can be chosen. Name a file within one.")
    path = password_file(inventory.name)
    if not path.exists():
        raise VaultPasswordError(
            f"The inventory {inventory.name} has no vault password yet. Make one: "
            f"mkdir -p {path.parent} && (umask 077; openssl rand -base64 32 > {path})"
        )
    return read_password(path)


def is_encrypting(arguments: Sequence[str]) -> bool:
    """Whether the command line is one of ``ansible-vault`` that may encrypt something new."""
    names = [Path(word).name for word in arguments[:2]]
    return "ansible-vault" in names and any(
        word in ("encrypt", "encrypt_string", "create", "rekey") for word in arguments
    )


def caller_arguments(process: int) -> list[str]:
    """The argument list of a process: from /proc, elsewhere (macOS) from ps, where spaces in a path split it."""
    try:
        raw = Path(f"/proc/{process}/cmdline").read_bytes()
        return [word for word in raw.decode("utf-8", "surrogateescape").split("\0") if word]
    except OSError:
        done = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(process)],
            check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        return done.stdout.split()


def main() -> int:
    """Print the password for the command that started this one. Errors go to stderr, which Ansible shows."""
    try:
        arguments = caller_arguments(os.getppid())
        print(password_for(inventory_in(arguments), encrypting=is_encrypting(arguments)))
    except VaultPasswordError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
