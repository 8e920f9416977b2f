# SPDX-License-Identifier: Apache-2.0
"""The hardened host, judged by lynis and ssh-audit and by trying the door."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from lab.checks import audit_findings
from tests.integration.world import VENV, World

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
LYNIS_AT_LEAST = 79


@pytest.fixture(scope="module")
def lynis(converged: World) -> Iterator[str]:
    """The report of one audit; lynis is gone again afterwards."""
    converged.root("apt-get -q update && apt-get install -q -y --no-install-recommends lynis", timeout=300)
    try:
        converged.root("lynis audit system --quick --no-colors --quiet >/dev/null 2>&1", check=False, timeout=300)
        yield converged.root(["cat", "/var/log/lynis-report.dat"])
    finally:
        converged.root("apt-get purge -q -y lynis; apt-get autoremove -q -y; rm -f /var/log/lynis*", timeout=300)


def test_the_hardening_index_of_lynis_is_high_enough(lynis: str) -> None:
    index = int(re.findall(r"^hardening_index=(\d+)", lynis, re.MULTILINE)[-1])
    assert index >= LYNIS_AT_LEAST, f"lynis gives {index}"


def test_lynis_warns_of_nothing(lynis: str) -> None:
    warnings = re.findall(r"^warning\[\]=(.*)", lynis, re.MULTILINE)
    # PostgreSQL's own files are readable in Debian's packaging and hold no secret: passwords are in the catalogue.
    assert [warning for warning in warnings if not warning.startswith("DBS-1828")] == []


def test_ssh_audit_finds_nothing_to_fail_or_warn_of(converged: World) -> None:
    # Without the rate test, which is an attack by sshd's own lights.
    argv = [str(VENV / "ssh-audit"), "--skip-rate-test", "--json", converged.ip]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert audit_findings(done.stdout) == (0, 0), done.stdout


def test_sshd_keeps_to_the_policy_for_debian_13_order_included(converged: World) -> None:
    argv = [str(VENV / "ssh-audit"), "--skip-rate-test", "-P", "Hardened Debian 13 (version 1)", converged.ip]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_root_cannot_log_in_even_with_the_right_key(converged: World) -> None:
    done = converged.ssh("true", user="root")
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_no_password_is_ever_asked_for(converged: World) -> None:
    done = subprocess.run(
        ["ssh", "-F", str(converged.lab.ssh_config), "-v", "-o", "BatchMode=yes", "-o", "PreferredAuthentications=password",
         "-l", "ops", converged.host.name, "true"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 255
    assert re.findall(r"Authentications that can continue: (\S+)", done.stderr) == ["publickey"]


def test_the_admin_becomes_root_and_sudo_keeps_a_log(converged: World) -> None:
    assert converged.ssh("sudo -n id -u; : 4711").stdout.strip() == "0"
    assert "COMMAND=/usr/bin/id -u" in converged.root(["tail", "-n", "50", "/var/log/sudo.log"])


def tunnel(world: World, *options: str) -> subprocess.CompletedProcess[str]:
    """An ssh of the admin with forwarding options."""
    return subprocess.run(
        ["ssh", "-F", str(world.lab.ssh_config), "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-l", "ops",
         *options], capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_admin_can_tunnel_to_the_host_but_not_open_ports_on_it(converged: World) -> None:
    name = converged.host.name
    assert tunnel(converged, "-W", "127.0.0.1:22", name).stdout.startswith("SSH-2.0-")
    remote = tunnel(converged, "-R", "127.0.0.1:7070:127.0.0.1:22", name, "true")
    assert remote.returncode == 255
    assert "remote port forwarding failed" in remote.stderr


def test_addresses_that_keep_guessing_are_banned_and_nobody_else(converged: World) -> None:
    """The second host guesses; this machine still gets in."""
    assert converged.acme is not None
    guess = f"timeout 10 ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null guess@{converged.ip} true"
    reach = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{converged.ip}/22' 2>/dev/null && echo open"
    assert "open" in converged.root(reach, host=converged.acme, check=False)
    try:
        for _ in range(7):
            converged.root(guess, host=converged.acme, check=False, timeout=30)
        banned = ""
        for _ in range(20):
            banned = converged.root(["fail2ban-client", "get", "sshd", "banip"])
            if converged.acme.ip in banned:
                break
            time.sleep(1)
        assert converged.acme.ip in banned
        assert "open" not in converged.root(reach, host=converged.acme, check=False)
        assert converged.ssh("true").returncode == 0
    finally:
        converged.root(["fail2ban-client", "unban", "--all"])


def test_wrong_passwords_lock_an_account_and_a_key_still_opens_it(converged: World) -> None:
    try:
        converged.root("useradd --create-home --groups sudo tried && echo 'tried:Correct-Horse-7-Battery' | chpasswd")
        for _ in range(6):
            converged.root("echo wrong | runuser -u ops -- su tried -c true", check=False)
        assert "tried" in converged.root(["faillock", "--user", "tried"])
        done = converged.root("echo Correct-Horse-7-Battery | runuser -u ops -- su tried -c 'echo in'", check=False)
        assert "in" not in done.split(), "the right password opened a locked account"
        key = (converged.lab.folder / "id_ed25519.pub").read_text()
        converged.driver.put_file(converged.host, "/tmp/key", key.encode())
        converged.root(
            "install -d -m 700 -o tried -g tried ~tried/.ssh && install -m 600 -o tried -g tried /tmp/key ~tried/.ssh/authorized_keys"
        )
        assert converged.ssh("true", user="tried").returncode == 0
    finally:
        converged.root("userdel --remove --force tried; rm -f /tmp/key /run/faillock/tried", check=False)


def test_weak_passwords_are_refused(converged: World) -> None:
    try:
        converged.root("useradd weak")
        said = converged.root("echo 'weak:password1' | chpasswd 2>&1", check=False)
        assert "BAD PASSWORD" in said
    finally:
        converged.root("userdel weak", check=False)


def test_nothing_dumps_core_and_new_files_are_private(converged: World) -> None:
    done = converged.ssh("bash -lc 'ulimit -Hc; umask; echo $TMOUT'")
    assert done.stdout.split() == ["0", "0027", "900"]


def test_security_updates_are_on_with_a_time_for_reboots(converged: World) -> None:
    config = converged.root("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in config
    assert 'Unattended-Upgrade::Automatic-Reboot-Time "04:30";' in config
    origins = re.findall(r'Unattended-Upgrade::Origins-Pattern:: "(.*)";', config)
    assert origins
    assert all("ecurity" in origin for origin in origins)
    converged.root("unattended-upgrade --dry-run", timeout=300)


def test_the_journal_outlives_a_reboot_within_its_limit(converged: World) -> None:
    assert converged.root("ls /var/log/journal").strip()
    assert "SystemMaxUse=1G" in converged.root("systemd-analyze cat-config systemd/journald.conf")


def test_docker_and_postgres_keep_what_they_need(converged: World) -> None:
    assert converged.root(["sysctl", "-n", "net.ipv4.ip_forward"]).strip() == "1"
    assert "RemoveIPC=yes" not in converged.root(
        "systemd-analyze cat-config systemd/logind.conf | grep -v '^#' || true"
    )
    limits = converged.root("cat /etc/security/limits.d/*.conf")
    assert "nproc" not in limits


def test_no_unit_has_failed(converged: World) -> None:
    assert converged.root("systemctl --failed --no-legend").strip() == ""


def test_reports_are_of_use_to_a_program(lynis: str, converged: World) -> None:
    """The audit found the firewall, the bans and the updates by itself."""
    assert "firewall_active=1" in lynis
    assert json.loads(converged.root(["nft", "-j", "list", "table", "inet", "slipway"]))["nftables"]
