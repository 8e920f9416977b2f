# SPDX-License-Identifier: Apache-2.0
"""Lab hosts as systemd containers of the Docker engine: the fast driver."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Sequence
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path, PurePosixPath
from typing import Any

from lab import images, keys
from lab.driver import Progress
from lab.model import DOMAIN, Host, HostSpec, Lab, LabError, lab_root
from lab.network import IPv4, IPv6, cut_rules, free_subnets, matching_ip6, next_address
from lab.process import Completed, installed, output, run

_LABEL = "dev.slipway"
_CAPABILITIES = {"SYS_MODULE": 16, "SYS_RESOURCE": 24}
_ENGINE_KNOWS = 23
_SSH_SECONDS = 60
_INIT = "/lib/systemd/systemd"


def container_name(lab: str, host: str) -> str:
    """What a host's container is called."""
    return f"slipway-{lab}-{host}"


def dropped_capabilities(engine_version: str, status: str) -> list[str]:
    """Which capabilities a host goes without: loading modules, and what this machine itself lacks.

    ``status`` is /proc/PID/status with the bounding set. Engines before 23 give "all" without asking what there is
    and fail; later ones know, and fail when told to drop what is not there.
    """
    match = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    held = int(match[1], 16) if match else ~0
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if int(engine_version.partition(".")[0] or 0) >= _ENGINE_KNOWS:
        return [name for name in ("SYS_MODULE",) if name not in missing]
    return sorted({"SYS_MODULE", *missing})


def machine_options(cgroup_version: str, dropped: Sequence[str]) -> tuple[list[str], list[str]]:
    """``docker create`` options and the command for a systemd host with a Docker engine of its own.

    cgroup v1 has no namespace that systemd could own, so the machine's tree is shared. On v2 each host has its own,
    mounted read-only by the engine: made writable before systemd starts. Modules belong to the machine's kernel.
    """
    options = ["--cap-add", "ALL"] + [word for name in dropped for word in ("--cap-drop", name)]
    for profile in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"):
        options += ["--security-opt", profile]
    if cgroup_version == "2":
        options += ["--cgroupns", "private"]
        first = ["mount -o remount,rw /sys/fs/cgroup"]
    else:
        options += ["--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
        first = []
    # As on a machine of its own: without it systemd cannot hand credentials to units.
    command = ["/bin/sh", "-c", " && ".join([*first, "mount --make-rshared /", f"exec {_INIT}"])]
    options += ["--volume", "/var/lib/docker"]  # overlayfs does not stack on overlayfs
    for mount in ("/run:exec,mode=755", "/run/lock:mode=1777", "/tmp:exec,mode=1777"):  # noqa: S108
        options += ["--tmpfs", mount]
    return [*options, "--stop-signal", "SIGRTMIN+3", "--env", "container=docker"], command


def remove_cgroups(ids: Sequence[str], root: Path = Path("/sys/fs/cgroup")) -> None:
    """Remove the control groups of containers that are gone with their host: on cgroup v1 they are the machine's.

    What is in use or not ours to remove stays; so does everything on v2, where they went with the host.
    """
    for id_ in ids:
        if re.fullmatch(r"[0-9a-f]{64}", id_):
            for folder in root.glob(f"*/docker/{id_}"):
                with contextlib.suppress(OSError):
                    folder.rmdir()


class DockerDriver:
    """See :class:`lab.driver.Driver`. State lives in the engine (labels), keys in the lab's folder."""

    name = "docker"

    @cached_property
    def _engine(self) -> dict[str, Any]:
        """``docker info``; raises where there is no engine."""
        if not installed("docker"):
            raise LabError("There is no Docker engine on this machine", remedy="run bin/setup")
        done = run(["docker", "info", "--format", "{{json .}}"], check=False, timeout=30)
        info: dict[str, Any] = json.loads(done.out or b"{}") if done.code == 0 else {}
        if not info.get("ServerVersion"):
            raise LabError(
                f"The Docker engine does not answer: {done.why}",
                "a running engine that this user may use",
                "run bin/setup, which starts it",
            )
        return info

    def _require_engine(self) -> None:
        self._engine  # noqa: B018 - the look itself raises where there is none

    # -- hosts ---------------------------------------------------------------------------------------------------

    def hosts(self, lab: Lab | None) -> list[Host]:
        """Hosts of one lab, or of all labs of this checkout, by name."""
        self._require_engine()
        wanted = f"{_LABEL}.lab={lab.name}" if lab else f"{_LABEL}.lab"
        argv = ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={wanted}"]
        ids = output([*argv, "--filter", f"label={_LABEL}.root={lab_root()}"]).split()
        if not ids:
            return []
        found = json.loads(run(["docker", "inspect", *ids]).out)
        return sorted((self._host(c) for c in found), key=lambda h: (h.lab, h.name))

    def _host(self, container: dict[str, Any]) -> Host:
        labels = container["Config"]["Labels"]
        state = container["State"]["Status"]
        return Host(
            lab=labels[f"{_LABEL}.lab"],
            name=labels[f"{_LABEL}.host"],
            id=container["Id"],
            image=labels[f"{_LABEL}.image"],
            state=state if state == "running" else "stopped",
            ip=labels[f"{_LABEL}.ip"],
            ip6=labels.get(f"{_LABEL}.ip6", ""),
            ram_mb=int(labels[f"{_LABEL}.ram_mb"]),
            cores=int(labels[f"{_LABEL}.cores"]),
            aliases=tuple(labels.get(f"{_LABEL}.aliases", "").split()),
        )

    def create(self, lab: Lab, spec: HostSpec, progress: Progress) -> Host:
        """Make and start a host; returns once its sshd can be reached."""
        engine = self._engine
        tag = images.ensure(spec.image, progress)
        with keys.locked(lab.folder / "lock"):
            keys.ensure_lab_key(lab)
            four, six = self._network(lab)
            there = self.hosts(lab)
            address = next_address(four, (h.ip for h in there))
            address6 = matching_ip6(address, six) if six else ""
            options, command = machine_options(str(engine.get("CgroupVersion", "1")), self._dropped())
            cores = min(spec.cores, int(engine.get("NCPU", spec.cores)))
            names = [spec.name, f"{spec.name}.{DOMAIN}", *spec.aliases]
            labels = {
                "lab": lab.name, "host": spec.name, "root": str(lab_root()), "image": spec.image, "ip": str(address),
                "ip6": str(address6), "ram_mb": str(spec.ram_mb), "cores": str(cores), "aliases": " ".join(spec.aliases),
            }  # fmt: skip
            argv = ["docker", "create", "--name", container_name(lab.name, spec.name), "--hostname", spec.name]
            argv += ["--network", f"slipway-{lab.name}", "--ip", str(address)]
            argv += ["--ip6", str(address6)] if address6 else []
            argv += [f"--network-alias={n}" for n in names] + [f"--label={_LABEL}.{k}={v}" for k, v in labels.items()]
            argv += ["--memory", f"{spec.ram_mb}m", "--memory-swap", f"{spec.ram_mb}m", "--cpus", str(cores)]
            done = run([*argv, *options, tag, *command], check=False)
            if done.code:
                self._explain_create(lab, spec, done)
            id_ = done.stdout.strip()
            host_keys = keys.new_host_keys(lab, spec.name)
            run(["docker", "cp", "-", f"{id_}:/"], stdin=keys.seed(lab, spec, host_keys))
            run(["docker", "start", id_])
            keys.write_ssh_files(lab, self.hosts(lab))
        host = next(h for h in self.hosts(lab) if h.name == spec.name)
        self._wait(host)
        return host

    def _explain_create(self, lab: Lab, spec: HostSpec, done: Completed) -> None:
        reason = done.why
        if "is already in use by container" in reason:
            raise LabError(
                f"A host {spec.name} of a lab {lab.name} runs already, out of another checkout",
                remedy="choose another lab name with --name, or take that one down where it was started",
            )
        raise LabError(f"Docker could not make host {spec.name}: {reason}")

    def _dropped(self) -> list[str]:
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
        except OSError:
            status = ""
        return dropped_capabilities(str(self._engine["ServerVersion"]), status)

    def destroy(self, host: Host) -> None:
        """Remove a host and its disk."""
        inner = self._inner_containers(host)
        run(["docker", "rm", "--force", "--volumes", host.id])
        remove_cgroups(inner)
        lab = Lab(host.lab)
        keys.forget_host_keys(lab, host.name)
        if lab.folder.exists():
            keys.write_ssh_files(lab, self.hosts(lab))

    def _inner_containers(self, host: Host) -> list[str]:
        """Ids of the containers that the host's own Docker engine knows."""
        if not host.running:
            return []
        return run(["docker", "exec", host.id, "ls", "/var/lib/docker/containers"], check=False).stdout.split()

    # -- network -------------------------------------------------------------------------------------------------

    def _networks(self) -> list[dict[str, Any]]:
        names = output(["docker", "network", "ls", "--quiet", "--no-trunc"]).split()
        found: list[dict[str, Any]] = json.loads(
            run(["docker", "network", "inspect", *names], check=False).out or b"[]"
        )
        return found

    def _network(self, lab: Lab) -> tuple[IPv4, IPv6 | None]:
        """The lab's subnets; its network is made where it is missing."""
        networks = self._networks()
        name = f"slipway-{lab.name}"
        for network in networks:
            if network["Name"] == name:
                nets = [ip_network(c["Subnet"]) for c in network["IPAM"]["Config"]]
                four = next(n for n in nets if isinstance(n, IPv4))
                return four, next((n for n in nets if isinstance(n, IPv6)), None)
        taken = [c["Subnet"] for n in networks for c in n["IPAM"]["Config"] or () if "Subnet" in c]
        if installed("ip"):
            taken += [line.split()[0] for line in output(["ip", "-4", "route", "show"]).splitlines() if line]
        with_ip6 = Path("/proc/net/if_inet6").exists()
        for four, six in free_subnets(taken):
            argv = ["docker", "network", "create", "--subnet", str(four), f"--label={_LABEL}.network={lab.name}"]
            argv += ["--ipv6", "--subnet", str(six)] if with_ip6 else []
            done = run([*argv, name], check=False)
            if done.code == 0:
                return four, six if with_ip6 else None
            if "overlap" not in done.stderr:  # another lab may have taken the subnet meanwhile
                raise LabError(f"Docker could not make the network of lab {lab.name}: {done.why}")
        raise LabError("Every subnet of the lab is taken", remedy="take labs down with bin/lab down --name NAME")

    def destroy_lab(self, lab: Lab) -> None:
        """Remove the lab's network; its hosts are gone already."""
        if any(n["Name"] == f"slipway-{lab.name}" for n in self._networks()):
            run(["docker", "network", "rm", f"slipway-{lab.name}"])

    def cut(self, host: Host, peer: Host | None) -> None:
        """Drop all traffic between two hosts, or (``peer`` None) between the host and everything else."""
        peers = None if peer is None else [a for a in (peer.ip, peer.ip6) if a]
        table = "slipway_lab_cut_" + ("all" if peer is None else peer.name.replace("-", "_"))
        self._nft(host, ["-f", "-"], cut_rules(table, peers))

    def heal(self, host: Host) -> None:
        """Undo every :meth:`cut` of this host."""
        listed = self._nft(host, ["list", "tables"]).stdout
        tables = [line.split()[-1] for line in listed.splitlines() if line.startswith("table inet slipway_lab_cut_")]
        self._nft(host, ["-f", "-"], "".join(f"delete table inet {t}\n" for t in tables))

    def _nft(self, host: Host, arguments: Sequence[str], script: str = "") -> Completed:
        """nft in the host's network namespace, from a container beside it: nothing inside the host can stop it.

        Not this machine's own nft: one older than the host's crashes on the host's rules, and would need root.
        """
        if not host.running:
            raise LabError(f"Host {host.name} does not run", remedy=f"start it with bin/lab start {host.name}")
        tag = images.ensure("services", lambda _line: None)
        argv = ["docker", "run", "--rm", "--interactive", "--network", f"container:{host.id}", "--cap-drop", "ALL"]
        return run([*argv, "--cap-add", "NET_ADMIN", "--entrypoint", "nft", tag, *arguments], stdin=script.encode())

    # -- power ---------------------------------------------------------------------------------------------------

    def kill(self, host: Host) -> None:
        """Power off without warning."""
        if host.running:
            run(["docker", "kill", host.id])

    def start(self, host: Host) -> Host:
        """Switch on again a killed host; returns once sshd answers."""
        run(["docker", "start", host.id])
        return self._again(host)

    def restart(self, host: Host) -> Host:
        """Shut down in order and start again."""
        run(["docker", "restart", "--time", "60", host.id])
        return self._again(host)

    def _again(self, host: Host) -> Host:
        host = next(h for h in self.hosts(Lab(host.lab)) if h.id == host.id)
        self._wait(host)
        return host

    def _wait(self, host: Host) -> None:
        """Until sshd is up: asked inside, since a firewall of the host may rightly keep this machine out."""
        deadline = time.monotonic() + _SSH_SECONDS
        probe = "ss -Hltn sport = :22 2>/dev/null | grep -q . || systemctl is-active --quiet ssh.service"
        while time.monotonic() < deadline:
            if run(["docker", "exec", host.id, "sh", "-c", probe], check=False).code == 0:
                return
            if output(["docker", "inspect", "--format", "{{.State.Running}}", host.id]) != "true":
                logs = run(["docker", "logs", "--tail", "5", host.id], check=False)
                raise LabError(f"Host {host.name} stopped while booting: {logs.why}")
            time.sleep(0.2)
        raise LabError(
            f"Host {host.name} has no sshd after {_SSH_SECONDS} s", remedy=f"look with: docker logs {host.id[:12]}"
        )

    # -- inside --------------------------------------------------------------------------------------------------

    def exec(
        self, host: Host, argv: Sequence[str], *, stdin: bytes = b"", check: bool = True, timeout: float | None = None
    ) -> Completed:
        """Run ``argv`` as root inside the host, past its sshd and firewall."""
        return run(["docker", "exec", "--interactive", host.id, *argv], stdin=stdin, check=check, timeout=timeout)

    def shell(self, host: Host, argv: Sequence[str]) -> int:
        """The same with this terminal attached; returns the exit code."""
        terminal = ["--tty"] if os.isatty(0) else []
        return subprocess.call(["docker", "exec", "--interactive", *terminal, host.id, *argv])

    def read_file(self, host: Host, path: str) -> bytes:
        """A file of the host."""
        return self.exec(host, ["cat", "--", path]).out

    def put_file(self, host: Host, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file on the host (owner root); its folder must exist."""
        target = PurePosixPath(path)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo(target.name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        self.exec(host, ["tar", "-C", str(target.parent), "-xf", "-"], stdin=buffer.getvalue())
