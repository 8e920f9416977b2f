# SPDX-License-Identifier: Apache-2.0
"""What ssh says at first contact, and the one message a person gets for it. The texts are OpenSSH 9 and 10's own."""

from __future__ import annotations

import pytest
from slipway.host import reach
from slipway.host.reach import Target, Verdict, judge

HOST = Target("203.0.113.7")
OFFERED = (
    "debug1: Offering public key: /home/me/.ssh/id_ed25519 ED25519 SHA256:abc explicit agent\n"
    "debug1: Offering public key: work RSA SHA256:def agent\n"
)
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
The fingerprint for the ED25519 key sent by the remote host is
SHA256:pzpcFO5i.
Offending ED25519 key in /home/me/.ssh/known_hosts:12
Host key verification failed.
"""


def test_the_probe_opens_a_connection_of_its_own_and_asks_nothing() -> None:
    argv = reach.ssh_argv(Target("h", 2222), "ops", key="/k", timeout=7, args=["-o", "ControlMaster=auto"])
    assert argv[:7] == ["ssh", "-v", "-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no"]
    assert argv.index("ControlPath=none") < argv.index("ControlMaster=auto")
    assert argv[-6:] == ['IdentityFile="/k"', "-l", "ops", "--", "h", reach.PROBE]
    assert "Port=2222" in argv
    assert "ConnectTimeout=7" in argv


@pytest.mark.parametrize(
    ("stdout", "root"), [("slipway-reached uid=0\n", True), ("motd\nslipway-reached uid=1000\n", False)]
)
def test_a_login_is_recognised_among_what_login_scripts_print(stdout: str, root: bool) -> None:
    found = judge(HOST, "ops", 0, stdout, "")
    assert (found.verdict, found.root) == (Verdict.OK, root)


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("ssh: Could not resolve hostname x: Name or service not known", ["no address", "ansible_host"]),
        ("ssh: connect to host x port 22: Connection refused", ["refuses connections", "ansible_port", "fail2ban"]),
        ("ssh: connect to host x port 22: Connection timed out", ["no answer", "port 22"]),
        ("ssh: connect to host x port 22: No route to host", ["no answer"]),
        ("Unable to negotiate with x port 22: no matching key exchange method found.", ["no algorithm", "9.0"]),
        ("Not allowed at this time", ["for a moment", "wait a minute"]),
        ("kex_exchange_identification: Connection closed by remote host", ["closed before the login"]),
        ("Permissions 0644 for '/k' are too open.\nUNPROTECTED PRIVATE KEY FILE!", ["chmod 600 /k"]),
        ("Host key verification failed.", ["does not know", "ssh-keyscan 203.0.113.7"]),
        ("something new", ["something new", "ssh -v ops@203.0.113.7"]),
    ],
)
def test_a_host_that_cannot_be_reached_ends_the_search_with_a_reason_and_a_remedy(
    stderr: str, words: list[str]
) -> None:
    found = judge(HOST, "ops", 255, "", f"debug1: noise\n{stderr}\n")
    assert found.verdict is Verdict.STOP
    for word in words:
        assert word in str(found.error)


def test_a_refused_key_lets_the_next_user_be_tried_and_names_the_keys() -> None:
    found = judge(HOST, "ops", 255, "", OFFERED + "ops@203.0.113.7: Permission denied (publickey).\n")
    assert found.verdict is Verdict.DENIED
    assert "/home/me/.ssh/id_ed25519 (SHA256:abc), work (SHA256:def)" in str(found.error)


def test_a_missing_key_file_is_named() -> None:
    stderr = "no such identity: /home/me/nokey: No such file or directory\nops@h: Permission denied (publickey).\n"
    assert "there is no file /home/me/nokey" in str(judge(HOST, "ops", 255, "", stderr).error)


def test_a_changed_host_key_says_why_it_may_be_an_attack_and_what_to_type() -> None:
    message = str(judge(HOST, "root", 255, "", CHANGED).error)
    assert "somebody stands between you and it" in message
    assert "now SHA256:pzpcFO5i)" in message
    assert "ssh-keygen -f /home/me/.ssh/known_hosts -R 203.0.113.7 " in message
    assert "'[h]:2222'" in str(judge(Target("h", 2222), "root", 255, "", CHANGED).error)


def test_the_user_a_cloud_image_asks_for_is_taken_up() -> None:
    stdout = 'Please login as the user "debian" rather than the user "root".\n'
    found = judge(HOST, "root", 142, stdout, "")
    assert (found.verdict, found.instead) == (Verdict.DENIED, "debian")


def test_missing_python_and_missing_sudo_are_told_apart() -> None:
    python = judge(HOST, "root", 0, "slipway-reached uid=0\nslipway-reached no-python\n", "")
    assert python.verdict is Verdict.STOP
    assert "apt-get install -y python3" in str(python.error)
    sudo = judge(HOST, "me", 0, "slipway-reached uid=1000\nslipway-reached no-sudo\n", "")
    assert sudo.verdict is Verdict.DENIED
    assert "NOPASSWD" in str(sudo.error)


def test_an_expired_password_is_explained() -> None:
    found = judge(HOST, "root", 1, "", "Password change required but no TTY available.\n")
    assert "ssh -t root@203.0.113.7" in str(found.error)


def test_refusals_of_several_users_are_one_message() -> None:
    denied = OFFERED + "Permission denied (publickey).\n"
    errors = [judge(HOST, user, 255, "", denied).error for user in ("ops", "root")]
    message = str(reach.summary(HOST, ["ops", "root"], [error for error in errors if error]))
    assert message.count("Keys tried") == 1
    assert "none of these users in: ops, root" in message
