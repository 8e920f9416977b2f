# SPDX-License-Identifier: Apache-2.0
"""What a host is, so exactly that two looks can be compared: nothing that a --check run could write is left out on purpose.

Left out are logs, what a clock or a timer writes by itself, and what every login leaves.
"""

from __future__ import annotations

import json

from tests.integration.world import World

FOLDERS = (
    "/etc",
    "/usr/lib/slipway",
    "/usr/local",
    "/usr/lib/systemd",
    "/var/lib/slipway",
    "/srv",
    "/opt",
    "/root",
    "/var/spool/cron",
)
VOLATILE = (
    "/etc/ld.so.cache", "/etc/mtab", "/etc/resolv.conf", "/etc/slipway-lab/", "/var/lib/slipway/metrics/", "/root/.ansible",
    "/var/lib/slipway/apps/*/lock", "/etc/.pwd.lock",
)  # fmt: skip
_PROGRAM = r"""
import fnmatch, hashlib, json, os, stat, subprocess, sys
folders, volatile = json.loads(sys.argv[1])
found = {}
def skip(path):
    return any(fnmatch.fnmatch(path, one.rstrip("/") + ("/*" if one.endswith("/") else "")) for one in volatile)
def note(path):
    if skip(path):
        return
    one = os.lstat(path)
    text = f"{stat.filemode(one.st_mode)} {one.st_uid}:{one.st_gid}"
    if stat.S_ISLNK(one.st_mode):
        text += " -> " + os.readlink(path)
    elif stat.S_ISREG(one.st_mode):
        text += f" {one.st_mtime_ns} " + hashlib.sha256(open(path, "rb").read()).hexdigest()[:16]
    found["file " + path] = text
for top in folders:
    for folder, _, names in os.walk(top) if os.path.isdir(top) else ():
        if "__pycache__" in folder:
            continue
        note(folder)
        for name in names:
            note(os.path.join(folder, name))
def said(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
for line in said("systemctl", "show", "--all", "*.service", "*.timer", "*.socket", "-p", "Id,UnitFileState,ActiveState,InvocationID,MainPID").split("\n\n"):
    unit = dict(part.split("=", 1) for part in line.splitlines() if "=" in part)
    name = unit.pop("Id", "")
    # Those that a timer or a login starts come and go by themselves.
    if name and not name.startswith(("session", "user@", "user-runtime", "systemd-", "run-", "getty", "apt-", "dpkg-", "ssh@", "slipway-keep", "fwupd", "man-db", "phpsession")):
        found["unit " + name] = json.dumps(unit, sort_keys=True)
for line in said("docker", "ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.Image}} {{.State}}").splitlines():
    name, _, rest = line.partition(" ")
    limits = said("docker", "inspect", "--format", "{{.HostConfig.Memory}} {{.State.StartedAt}} {{.RestartCount}}", name).strip()
    found["container " + name] = rest + " " + limits
for line in said("docker", "image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines():
    found["image " + line.split(" ")[0]] = line
query = "SELECT name || ' ' || coalesce(setting, '') || ' ' || pending_restart FROM pg_settings WHERE name NOT LIKE 'transaction%' ORDER BY 1"
for line in said("runuser", "-u", "postgres", "--", "psql", "-XAtqc", query).splitlines():
    found["setting " + line.split(" ")[0]] = line
found["postmaster"] = said("runuser", "-u", "postgres", "--", "psql", "-XAtqc", "SELECT pg_postmaster_start_time(), pg_conf_load_time()").strip()
found["nft"] = hashlib.sha256("\n".join(l for l in said("nft", "list", "ruleset").splitlines() if "counter" not in l and "expires" not in l).encode()).hexdigest()
found["packages"] = hashlib.sha256(said("dpkg-query", "-W").encode()).hexdigest()
print(json.dumps(found))
"""


def fingerprint(world: World) -> dict[str, str]:
    """Files (mode, owner, time, content), units (state and which run of theirs), containers, images, settings, firewall, packages."""
    words = ["python3", "-c", _PROGRAM, json.dumps([FOLDERS, VOLATILE])]
    found: dict[str, str] = json.loads(world.root(words, timeout=120))
    assert len(found) > 500, "a host has more than that to look at"
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """What is not the same, by name."""
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
