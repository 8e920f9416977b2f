# SPDX-License-Identifier: Apache-2.0
"""What a host is: one cheap look that replaces full fact gathering. Linux only, standard library only."""

from __future__ import annotations

import grp
import json
import os
import platform
import pwd
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..commands import run
from ..postgres import whereabouts
from ..sizing.budget import plan_ram_mb

LAB_FACTS = Path("/etc/slipway-lab.json")


def parse_os_release(text: str) -> dict[str, str]:
    """``/etc/os-release`` as ``{id, version_id, codename, pretty}``; missing fields are empty."""
    fields = dict(re.findall(r'^([A-Z_]+)="?(.*?)"?$', text, flags=re.MULTILINE))
    return {
        "id": fields.get("ID", ""),
        "version_id": fields.get("VERSION_ID", ""),
        "codename": fields.get("VERSION_CODENAME", ""),
        "pretty": fields.get("PRETTY_NAME", ""),
    }


def parse_packages(status: str, wanted: Iterable[str] = ()) -> dict[str, str]:
    """Installed versions of the wanted packages (of all when none is named), from the text of ``/var/lib/dpkg/status``."""
    names = set(wanted)
    found: dict[str, str] = {}
    for block in status.split("\n\n"):
        match = re.match(r"Package: (\S+)", block)
        if match and (not names or match[1] in names) and "\nStatus: install ok installed" in block:
            version = re.search(r"^Version: (\S+)", block, flags=re.MULTILINE)
            found[match[1]] = version[1] if version else ""
    return found


_LISTENER = re.compile(r'^\S+\s+\d+\s+\d+\s+\S*?:(\d+)\s+\S+(?:\s+users:\(\("([^"]+)")?')


def parse_listeners(text: str, ports: Iterable[int]) -> dict[str, str]:
    """``ss -Hltnp`` as port -> name of the process that listens there, for the ports asked."""
    wanted = {str(port) for port in ports}
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LISTENER.match(line)
        if match and match[1] in wanted:
            found.setdefault(match[1], match[2] or "unknown")
    return found


def _virtualisation() -> str:
    """``container``, ``vm`` or ``none``, as systemd sees it."""
    if run(["systemd-detect-virt", "--container", "--quiet"], check=False).ok:
        return "container"
    return "vm" if run(["systemd-detect-virt", "--vm", "--quiet"], check=False).ok else "none"


def _memory_mb() -> int:
    total = int(re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)[1])  # type: ignore[index]
    return total // 1024


def parse_open_files(limits: str) -> int:
    """Hard limit of open files from the text of ``/proc/<pid>/limits``; 2^30 where there is none."""
    match = re.search(r"^Max open files\s+\S+\s+(\d+|unlimited)", limits, re.MULTILINE)
    return int(match[1]) if match and match[1] != "unlimited" else 2**30


def parse_interfaces(text: str) -> dict[str, list[str]]:
    """``ip -json address`` as name of each interface but loopback -> its addresses with their prefix; link-local ones left out."""
    return {
        entry["ifname"]: [f"{one['local']}/{one['prefixlen']}" for one in entry["addr_info"] if one["scope"] != "link"]
        for entry in json.loads(text or "[]")
        if entry and entry.get("ifname") and entry["ifname"] != "lo"
    }


def parse_default_interface(routes: str) -> str:
    """The interface of the IPv4 default route from the text of ``/proc/net/route``; empty where there is none."""
    fields = [line.split() for line in routes.splitlines()]
    found = [(int(one[6]), one[0]) for one in fields if len(one) > 7 and one[1] == one[7] == "00000000"]
    return min(found)[1] if found else ""


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, PermissionError):
        return ""


def kernel_has_wireguard(
    release: str, modules: Path = Path("/lib/modules"), loaded: Path = Path("/sys/module")
) -> bool:
    """Whether WireGuard is loaded, built in, or there to be loaded by the kernel that runs. Nothing is loaded for it."""
    lists = [modules / release / name for name in ("modules.builtin", "modules.dep")]
    return (loaded / "wireguard").exists() or any(
        "/wireguard.ko" in path.read_text(errors="replace") for path in lists if path.exists()
    )


def parse_admins(passwd: str, group: str, shadow: str) -> list[str]:
    """Users as an admin shall be: member of sudo, Bash, a password (or none) that never runs out. From three files of /etc."""
    members = re.search(r"^sudo:[^:]*:[^:]*:(.*)$", group, flags=re.MULTILINE)
    lasting = {
        fields[0] for fields in (line.split(":") for line in shadow.splitlines()) if fields[3:5] == ["0", "99999"]
    }
    shells = {fields[0]: fields[6] for fields in (line.split(":") for line in passwd.splitlines()) if len(fields) == 7}
    return sorted(
        name
        for name in (members[1].split(",") if members else [])
        if name in lasting and shells.get(name) == "/bin/bash"
    )


def gather(packages: Iterable[str] = (), ports: Iterable[int] = (22, 80, 443)) -> dict[str, Any]:
    """The facts of this host; sizes in MB (2^20 bytes), ``now`` in seconds since the epoch.

    A lab container sees the memory and cores of the whole machine: its own share stands in
    ``/etc/slipway-lab.json``, and ``lab`` is then true.
    """
    disk = shutil.disk_usage("/")
    lab = json.loads(LAB_FACTS.read_text()) if LAB_FACTS.exists() else {}
    ram_mb = int(lab.get("ram_mb") or _memory_mb())
    virtualisation = _virtualisation()
    status = Path("/var/lib/dpkg/status")
    majors = [int(entry) for entry in os.listdir("/usr/lib/postgresql") if entry.isdigit()] if os.path.isdir(
        "/usr/lib/postgresql") else []  # fmt: skip
    return {
        "os": parse_os_release(Path("/etc/os-release").read_text()),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "hostname": platform.node(),
        "ram_mb": ram_mb,
        "ram_plan_mb": plan_ram_mb(ram_mb),
        "cores": int(lab.get("cores") or len(os.sched_getaffinity(0))),
        "disk_total_mb": int(lab.get("disk_mb") or disk.total // 2**20),
        "disk_free_mb": disk.free // 2**20,
        "virt": virtualisation,
        "container": virtualisation == "container",
        "lab": bool(lab),
        "packages": parse_packages(status.read_text(errors="replace"), packages) if status.exists() else {},
        "ports": parse_listeners(run(["ss", "-Hltnp"], check=False).stdout, ports) if shutil.which("ss") else {},
        "interfaces": parse_interfaces(run(["ip", "-json", "address"], check=False).stdout)
        if shutil.which("ip")
        else {},
        "default_interface": parse_default_interface(Path("/proc/net/route").read_text()),
        "wireguard": kernel_has_wireguard(platform.release()),
        # What no process on this host can go beyond; containers and sandboxes often have less than a machine of its own.
        "open_files_max": parse_open_files(Path("/proc/1/limits").read_text()),
        "users": sorted(entry.pw_name for entry in pwd.getpwall()),
        "groups": sorted(entry.gr_name for entry in grp.getgrall()),
        "admins": parse_admins(*(_text_of(f"/etc/{name}") for name in ("passwd", "group", "shadow"))),
        "postgres_major": max(majors, default=None),
        "data": whereabouts.look(),
        "uid": os.geteuid(),
        "now": int(time.time()),
    }
