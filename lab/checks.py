# SPDX-License-Identifier: Apache-2.0
"""What the demo proves about a server, asked from outside: from this machine, and from a second host of the lab."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.driver import Driver
from lab.model import Host, Lab, LabError
from lab.process import Completed, run

PUBLIC_PORTS = (22, 80, 443)
UDP_PORTS = "53,68,69,111,123,137,161,500,1900,5353,5355,6432"
SECURITY_HEADERS = ("strict-transport-security", "x-content-type-options", "x-frame-options")


@dataclass(frozen=True)
class Check:
    """One thing asked: ``good`` is true, false, or None where it could not be asked, which is never a pass."""

    title: str
    good: bool | None
    measured: str

    def to_dict(self) -> dict[str, object]:
        """Plain data for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """The server under test, and from where and how it is looked at."""

    driver: Driver
    lab: Lab
    host: Host
    acme: Host
    domain: str
    ca: Path

    def curl(self, url: str, *options: str) -> tuple[Mapping[str, object], Mapping[str, str], str]:
        """curl from this machine, resolving and trusting as a browser of the lab would.

        Returns curl's own figures (``%{json}``), the response headers in lower case, and the body.
        """
        mark = "\n--figures--\n"
        argv = [
            "curl",
            "-sS",
            "--max-time",
            "20",
            "--include",
            "--cacert",
            str(self.ca),
            "--write-out",
            mark + "%{json}",
        ]
        for port in (80, 443):
            argv += ["--resolve", f"{self.domain}:{port}:{self.host.ip}"]
        done = run([*argv, *options, url], check=False)
        if done.code:
            raise LabError(f"{url} does not answer: {done.why}")
        answer, _, figures = done.stdout.rpartition(mark)
        return (json.loads(figures), *split_answer(answer))


def split_answer(answer: str) -> tuple[dict[str, str], str]:
    """Headers (lower case) and body of ``curl --include``; interim answers (1xx) are passed over."""
    head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
    while re.match(r"HTTP/\S+ 1\d\d", head):
        head, _, body = body.partition("\n\n")
    pairs = (line.partition(":") for line in head.splitlines()[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}, body


def open_ports(grepable: str) -> list[int]:
    """The open ports in nmap's grepable output (``-oG -``)."""
    return sorted({int(p) for p in re.findall(r"(\d+)/open/", grepable)})


def audit_findings(report: str) -> tuple[int, int]:
    """How many fails and warnings ``ssh-audit --json`` reports."""
    fails = warns = 0
    data = json.loads(report)
    for kind in ("kex", "key", "enc", "mac"):
        for algorithm in data.get(kind, []):
            notes = algorithm.get("notes", {})
            fails += len(notes.get("fail", []))
            warns += len(notes.get("warn", []))
    return fails, warns


def https(subject: Subject) -> Iterator[Check]:
    """The page itself: certificate, HTTP version, headers, redirect."""
    figures, headers, _ = subject.curl(f"https://{subject.domain}/")
    seconds = float(str(figures["time_total"]))
    code, version = figures["http_code"], figures["http_version"]
    yield Check("The page answers over HTTPS", code == 200, f"status {code} in {seconds * 1000:.0f} ms")
    yield Check("Its certificate is trusted", figures["ssl_verify_result"] == 0, _issuer(subject))
    yield Check("It speaks HTTP/2", version == "2", f"negotiated HTTP/{version}")
    yield http3(subject)
    yield old_tls(subject)
    missing = [h for h in SECURITY_HEADERS if h not in headers]
    found = f"{len(SECURITY_HEADERS)} of {len(SECURITY_HEADERS)}" if not missing else "missing: " + ", ".join(missing)
    yield Check("Security headers are sent", not missing, found)
    _, headers, _ = subject.curl(f"http://{subject.domain}/")
    target = headers.get("location", "none")
    yield Check("Plain HTTP is sent on to HTTPS", target.startswith("https://"), f"to {target}")


def http3(subject: Subject) -> Check:
    """Asked from the second host, whose curl knows HTTP/3."""
    argv = ["curl", "-sS", "--max-time", "10", "--http3-only", "--cacert", "/dev/stdin", "-o", "/dev/null"]
    argv += [
        "--resolve",
        f"{subject.domain}:443:{subject.host.ip}",
        "-w",
        "%{http_version}",
        f"https://{subject.domain}/",
    ]
    done = subject.driver.exec(subject.acme, argv, stdin=subject.ca.read_bytes(), check=False)
    if "does not support" in done.stderr or done.code == 2:  # 2: an option it does not know
        return Check("It speaks HTTP/3", None, "the second host's curl does not")
    return Check(
        "It speaks HTTP/3", done.code == 0 and done.stdout == "3", f"HTTP/{done.stdout}" if done.code == 0 else done.why
    )


def old_tls(subject: Subject) -> Check:
    """TLS 1.1 offered in a way that only the server can refuse."""
    argv = ["openssl", "s_client", "-connect", f"{subject.host.ip}:443", "-servername", subject.domain]
    argv += ["-tls1_1", "-cipher", "ALL@SECLEVEL=0"]
    return judge_old_tls(run(argv, check=False, timeout=20))


def judge_old_tls(done: Completed) -> Check:
    """What ``openssl s_client -tls1_1`` says: only the server's own refusal counts."""
    title = "TLS below 1.2 is refused"
    if done.code == 0:
        return Check(title, False, "it took TLS 1.1")
    refused = "alert protocol version" in done.stderr
    return Check(title, True if refused else None, "TLS 1.1: alert protocol version" if refused else done.why)


def _issuer(subject: Subject) -> str:
    """Who issued the certificate, and for how long."""
    address = f"{subject.host.ip}:443"
    shown = run(["openssl", "s_client", "-connect", address, "-servername", subject.domain], check=False).out
    text = run(["openssl", "x509", "-noout", "-issuer", "-enddate"], stdin=shown, check=False).stdout
    issuer = re.search(r"CN\s*=\s*(.+)", text)
    until = re.search(r"notAfter=(\w+ +\d+) [\d:]+ (\d+)", text)
    return f"by {issuer[1]}, until {until[1]} {until[2]}" if issuer and until else "chain verified by curl"


def database(subject: Subject) -> Iterator[Check]:
    """A write through the application comes back: it runs on its database."""
    note = {"id": str(uuid.uuid4()), "text": "Written by bin/demo"}
    base = f"https://{subject.domain}/api/notes"
    json_type = ("-H", "Content-Type: application/json")
    figures, _, _ = subject.curl(base, *json_type, "--data", json.dumps(note))
    _, _, body = subject.curl(f"{base}/{note['id']}")
    seconds = float(str(figures["time_total"]))
    yield Check(
        "A note is written and read back",
        note["text"] in body,
        f"{seconds * 1000:.0f} ms through Caddy, app, PgBouncer, Postgres",
    )


def ports(subject: Subject) -> Iterator[Check]:
    """What a second host can reach: every TCP port over IPv4 and IPv6, the usual UDP ports."""
    fast = ["nmap", "-n", "-Pn", "-p-", "--open", "--min-rate", "15000", "--max-retries", "1", "-oG", "-"]
    for family, address, options in (("IPv4", subject.host.ip, ()), ("IPv6", subject.host.ip6, ("-6",))):
        if not address:
            yield Check(f"Open TCP ports over {family}", None, f"the lab has no {family}")
            continue
        done = subject.driver.exec(subject.acme, [*fast, *options, address], check=False, timeout=180)
        if done.code:
            yield Check(f"Open TCP ports over {family}", None, f"nmap failed: {done.why}")
            continue
        found = open_ports(done.stdout)
        listed = ", ".join(map(str, found)) or "none"
        yield Check(f"Open TCP ports over {family}", found == list(PUBLIC_PORTS), f"{listed} of 65535")
    udp = ["nmap", "-n", "-Pn", "-sU", "-p", UDP_PORTS, "--open", "--max-retries", "1", "-oG", "-", subject.host.ip]
    done = subject.driver.exec(subject.acme, udp, check=False, timeout=120)
    found = open_ports(done.stdout)
    asked = UDP_PORTS.count(",") + 1
    listed = ", ".join(map(str, found)) or "none"
    yield Check("Open UDP ports among the usual", None if done.code else not found, f"{listed} of {asked}")


def ssh(subject: Subject, admin: str) -> Iterator[Check]:
    """Who gets in, and by which algorithms."""
    base = [
        "ssh",
        "-F",
        str(subject.lab.ssh_config),
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=10",
        "-o",
        "ControlPath=none",
    ]
    let_in = run([*base, "-l", admin, subject.host.name, "sudo", "-n", "id", "-u"], check=False)
    yield Check(
        f"{admin} gets in with the key", let_in.code == 0, "sudo works" if let_in.stdout.strip() == "0" else let_in.why
    )
    refused = run([*base, "-l", "root", subject.host.name, "true"], check=False)
    denied = refused.code != 0 and "Permission denied" in refused.stderr
    yield Check("root does not get in", denied, "refused" if denied else "let in" if not refused.code else refused.why)
    methods = re.search(r"Permission denied \(([^)]*)\)", refused.stderr)
    yield Check(
        "No passwords are taken",
        methods is not None and methods[1] == "publickey",
        f"methods: {methods[1] if methods else 'unknown'}",
    )
    audit = subject.driver.exec(subject.acme, ["ssh-audit", "--json", subject.host.ip], check=False, timeout=60)
    try:
        fails, warns = audit_findings(audit.stdout)
    except ValueError:
        yield Check("ssh-audit is content", None, f"it gave no report: {audit.why}")
    else:
        yield Check("ssh-audit is content", fails + warns == 0, f"{fails} fails, {warns} warnings")


def all_checks(subject: Subject, admin: str, say: Callable[[str], None]) -> list[Check]:
    """Every check in order; one that cannot be asked ends up as not proved, and the others are asked still."""
    found: list[Check] = []
    asked: tuple[tuple[str, Iterator[Check]], ...] = (
        ("HTTPS", https(subject)),
        ("a write through the app", database(subject)),
        ("SSH", ssh(subject, admin)),
        ("a scan of all ports", ports(subject)),
    )
    for title, checks in asked:
        say(title)
        try:
            found.extend(checks)
        except LabError as error:
            found.append(Check(f"Asking about {title}", None, str(error)))
    return found
