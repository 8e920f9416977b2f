# SPDX-License-Identifier: Apache-2.0
"""Keys of a lab: the one that opens root on its hosts, and the host keys that connections are checked against."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from console.age_keys import new_key
from lab.model import DOMAIN, Host, HostSpec, Lab
from lab.process import run


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time past this point for ``path`` (a lock file, made where missing)."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure_lab_key(lab: Lab) -> None:
    """Make the lab's folder and its key where they are missing."""
    lab.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not lab.key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"slipway-lab-{lab.name}", "-f", str(lab.key)])
    ensure_age_keys(lab)


def ensure_age_keys(lab: Lab) -> None:
    """Make the keys of age that read the lab's backups, where they are missing: the drills' and the operator's.

    Each is two files, ``<name>.age`` and ``<name>.age.pub``. Without the virtual environment there are none: it is
    playbooks that need them, and those need it too.
    """
    with contextlib.suppress(ImportError):
        for name in ("drill", "recovery"):
            path = lab.folder / f"{name}.age"
            if not path.exists():
                key = new_key()
                path.with_suffix(".age.pub").write_text(f"{key.recipient}\n", encoding="ascii")
                path.touch(mode=0o600)
                path.write_text(f"{key.identity}\n", encoding="ascii")


def new_host_keys(lab: Lab, name: str) -> Path:
    """Fresh host keys for a new host, as a first boot would make them; returns their folder."""
    folder = lab.folder / "hosts" / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "etc" / "ssh").mkdir(parents=True)
    run(["ssh-keygen", "-A", "-f", str(folder)])
    return folder / "etc" / "ssh"


def forget_host_keys(lab: Lab, name: str) -> None:
    """Drop what is known of a destroyed host."""
    shutil.rmtree(lab.folder / "hosts" / name, ignore_errors=True)


def seed(lab: Lab, spec: HostSpec, host_keys: Path) -> bytes:
    """The tar of what a new host is given before its first boot: keys, and its nominal size.

    The size is told by a file since ``/proc/meminfo`` in a container shows the machine's memory.
    """
    size = {"ram_mb": spec.ram_mb, "cores": spec.cores, "disk_mb": spec.disk_mb}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, content: bytes | None, mode: int) -> None:
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            if content is None:
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))

        add("root/.ssh", None, 0o700)
        add("root/.ssh/authorized_keys", lab.key.with_suffix(".pub").read_bytes(), 0o600)
        add("etc/slipway-lab.json", (json.dumps(size) + "\n").encode(), 0o644)
        for key in sorted(host_keys.iterdir()):
            add(f"etc/ssh/{key.name}", key.read_bytes(), 0o644 if key.suffix == ".pub" else 0o600)
    return buffer.getvalue()


def write_ssh_files(lab: Lab, hosts: Iterable[Host]) -> None:
    """Renew ``known_hosts`` and ``ssh_config`` of the lab from the hosts there are."""
    known, config = [], []
    for host in hosts:
        names = ",".join(n for n in (host.ip, host.ip6, host.name, f"{host.name}.{DOMAIN}") if n)
        for public in sorted((lab.folder / "hosts" / host.name / "etc" / "ssh").glob("*.pub")):
            kind, key = public.read_text(encoding="ascii").split()[:2]
            known.append(f"{names} {kind} {key}\n")
        config.append(f"Host {host.name}\n  HostName {host.ip}\n  User root\n")
    config.append(
        f'Host *\n  IdentityFile "{lab.key}"\n  IdentitiesOnly yes\n  UserKnownHostsFile "{lab.known_hosts}"\n'
        "  StrictHostKeyChecking yes\n  PasswordAuthentication no\n  LogLevel ERROR\n"
    )
    for path, lines in ((lab.known_hosts, known), (lab.ssh_config, config)):
        staged = path.with_suffix(".new")
        staged.write_text("".join(lines), encoding="utf-8")
        staged.replace(path)
