# SPDX-License-Identifier: Apache-2.0
"""What a driver must do for the lab: the commands, the demo and molecule know only this.

``docker`` (:mod:`lab.docker`) is the one there is: systemd containers, up in a second. QEMU machines (a kernel
of their own, real reboots) are meant to join as ``qemu``; they are not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lab.model import Host, HostSpec, Lab, LabError
from lab.process import Completed

Progress = Callable[[str], None]
"""Called with one short line whenever something is about to take time."""


class Driver(Protocol):
    """Makes hosts, reaches into them, and breaks them on purpose.

    Every method raises :class:`lab.model.LabError` where it cannot do its work. A host is a running machine with
    sshd up, root open to the lab's key only, and ``/etc/slipway-lab.json`` naming its nominal size.
    """

    name: str

    def create(self, lab: Lab, spec: HostSpec, progress: Progress) -> Host:
        """Make and start a host; returns once its sshd can be reached."""
        ...

    def destroy(self, host: Host) -> None:
        """Remove a host and its disk."""
        ...

    def destroy_lab(self, lab: Lab) -> None:
        """Remove the lab's network; its hosts are gone already."""
        ...

    def hosts(self, lab: Lab | None) -> list[Host]:
        """Hosts of one lab, or of all labs of this checkout, by name."""
        ...

    def exec(
        self, host: Host, argv: Sequence[str], *, stdin: bytes = b"", check: bool = True, timeout: float | None = None
    ) -> Completed:
        """Run ``argv`` as root inside the host, past its sshd and firewall."""
        ...

    def shell(self, host: Host, argv: Sequence[str]) -> int:
        """The same with this terminal attached; returns the exit code."""
        ...

    def read_file(self, host: Host, path: str) -> bytes:
        """A file of the host."""
        ...

    def put_file(self, host: Host, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file on the host (owner root); its folder must exist."""
        ...

    def cut(self, host: Host, peer: Host | None) -> None:
        """Drop all traffic between two hosts, or (``peer`` None) between the host and everything else."""
        ...

    def heal(self, host: Host) -> None:
        """Undo every :meth:`cut` of this host."""
        ...

    def kill(self, host: Host) -> None:
        """Power off without warning."""
        ...

    def start(self, host: Host) -> Host:
        """Switch on again a killed host; returns once sshd answers, with its present addresses."""
        ...

    def restart(self, host: Host) -> Host:
        """Shut down in order and start again."""
        ...


def get_driver(name: str = "docker") -> Driver:
    """The driver called ``name``; raises :class:`LabError` for one that does not exist."""
    if name == "docker":
        from lab.docker import DockerDriver

        return DockerDriver()
    if name == "qemu":
        raise LabError("QEMU machines are not there yet", "driver docker", "leave the driver out, or set it to docker")
    raise LabError(f"There is no lab driver '{name}'", "docker", "leave the driver out, or set it to docker")
