# SPDX-License-Identifier: Apache-2.0
"""Does the reverse proxy on this host answer for its domains? Asked on loopback, as a browser would ask.

Whether the certificate's issuer is trusted is not judged here (the lab has an authority of its own): a name that
matches and dates that hold are.
"""

from __future__ import annotations

import datetime
import http.client
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..commands import run
from ..errors import SlipwayError

LOOPBACK = "127.0.0.1"
_PASSING = re.compile(r"acme:error:(?:malformed - JWS|badNonce|serverInternal)")
"""Refusals that say nothing on the domain. Caddy 2.6 has a signature refused now and then (mholt/acmez issue 18) and would
wait a minute; a failed look at the domain is never asked for again here, since authorities count those."""


class NotServedError(SlipwayError):
    """The proxy does not answer, or has no certificate for a domain."""


@dataclass(frozen=True)
class Certificate:
    """What a domain was answered with: its issuer, the end of its validity (UTC), and whether it names the domain."""

    domain: str
    issuer: str
    not_after: datetime.datetime
    matches: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain data; ``not_after`` in ISO 8601."""
        return {"domain": self.domain, "issuer": self.issuer, "not_after": self.not_after.isoformat()}


def parse_certificate(domain: str, text: str) -> Certificate:
    """From ``openssl x509 -noout -issuer -enddate -checkhost DOMAIN``. Raises NotServedError on other text."""
    end = re.search(r"^notAfter=(.+)$", text, re.MULTILINE)
    issuer = re.search(r"^issuer=\s*(.*)$", text, re.MULTILINE)
    if not end:
        raise NotServedError(f"openssl could not read the certificate of {domain}: {text.strip()[:200]}")
    moment = datetime.datetime.strptime(end[1].strip(), "%b %d %H:%M:%S %Y %Z").replace(tzinfo=datetime.UTC)
    matches = "does match certificate" in text
    return Certificate(domain, issuer[1].strip() if issuer else "", moment, matches)


def fetch_certificate(domain: str, *, address: str = LOOPBACK, port: int = 443, timeout: float = 5) -> Certificate:
    """The certificate that ``address`` presents for ``domain``. Raises OSError (an ``ssl.SSLError`` is one) when none."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what is judged, and what not, stands at the top
    with (
        socket.create_connection((address, port), timeout) as raw,
        context.wrap_socket(raw, server_hostname=domain) as tls,
    ):
        der = tls.getpeercert(binary_form=True) or b""
    argv = ["openssl", "x509", "-noout", "-issuer", "-enddate", "-checkhost", domain]
    return parse_certificate(domain, run(argv, stdin=ssl.DER_cert_to_PEM_cert(der), check=False).stdout)


def check_redirect(domain: str, *, address: str = LOOPBACK, port: int = 80, timeout: float = 5) -> None:
    """Plain HTTP for ``domain`` leads to HTTPS. Raises NotServedError, or OSError when nothing answers."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/", headers={"Host": domain})
        answer = connection.getresponse()
        target = answer.getheader("Location") or ""
    except http.client.HTTPException as error:
        raise NotServedError(f"http://{domain}/ got no answer that can be read ({type(error).__name__})") from error
    finally:
        connection.close()
    if answer.status != 308 or not target.startswith("https://"):
        raise NotServedError(
            f"http://{domain}/ is answered {answer.status} {target}".rstrip(), "a redirect (308) to https",
            "look for another program on port 80: ss -ltnp",
        )  # fmt: skip


def wait_for_certificate(
    domain: str, deadline: float, *, now: datetime.datetime | None = None, known: str = ""
) -> Certificate:
    """Ask until ``domain`` has a valid certificate or ``deadline`` (``time.monotonic()``) has passed; at least once.

    ``known``: the error in the proxy's journal that is dealt with already (:func:`newest_error`). Raises NotServedError with
    the proxy's last words on the domain.
    """
    while True:
        reason = ""
        try:
            found = fetch_certificate(domain)
        except OSError as error:
            reason = f"no certificate ({getattr(error, 'reason', None) or error})"
        else:
            moment = now or datetime.datetime.now(datetime.UTC)
            if found.matches and found.not_after > moment:
                return found
            reason = "a certificate for another name" if not found.matches else "a certificate that has run out"
        if time.monotonic() >= deadline:
            said = last_words(domain)
            raise NotServedError(
                f"https://{domain}/ has {reason}." + (f" Caddy says: {said}" if said else ""),
                "a certificate for it",
                f"let DNS point {domain} at this host and leave ports 80 and 443 open to the world, then run again; "
                "to go on without: caddy_verify_certificates: false",
            )
        newest = newest_error(domain)
        if newest != known and _PASSING.search(newest):
            known = newest
            run(["systemctl", "reload", "caddy.service"], check=False)
        time.sleep(0.5)


def last_words(domain: str) -> str:
    """What the newest error about ``domain`` in Caddy's journal says, cut to 400 characters; empty when there is none."""
    line = newest_error(domain)
    error = re.search(r'"error":"((?:[^"\\]|\\.)*)"', line)
    return (error[1] if error else line)[:400]


def newest_error(domain: str) -> str:
    """The newest error about ``domain`` in Caddy's journal, as it stands there with its time; empty when there is none."""
    named = re.compile(rf"(?<![\w.-]){re.escape(domain)}(?![\w.-])")
    argv = ["journalctl", "-u", "caddy.service", "-n", "200", "-o", "cat", "--no-pager"]
    lines = run(argv, check=False).stdout.splitlines()
    for line in reversed(lines):
        if named.search(line) and '"level":"error"' in line:
            return line
    return ""


def verify(domains: Sequence[str], seconds: float) -> list[Certificate]:
    """Every domain redirects from HTTP and has its certificate within ``seconds`` in all. Raises NotServedError."""
    deadline = time.monotonic() + seconds
    for domain in domains:
        while True:
            try:
                check_redirect(domain)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise NotServedError(
                        f"Nothing answers on port 80 ({error.strerror or error})", "Caddy",
                        "read journalctl -u caddy.service -n 50",
                    ) from error  # fmt: skip
                time.sleep(0.2)
    known = {domain: newest_error(domain) for domain in domains if not _has_certificate(domain)}
    _ask_again_now(domains, known)
    return [wait_for_certificate(domain, deadline, known=known.get(domain, "")) for domain in domains]


def _has_certificate(domain: str) -> bool:
    try:
        fetch_certificate(domain)
    except OSError:
        return False
    return True


def _ask_again_now(domains: Sequence[str], without: Mapping[str, str]) -> None:
    """Where an earlier attempt at a domain's certificate has failed, have Caddy try again at once.

    ``without``: the domains that have none, with the newest error about each.

    By itself it waits longer after each failure, up to hours: too long for someone who has just mended their DNS.
    While no domain at all is served a restart disturbs nobody, and is the better choice after a reload: HTTP/3 of
    Caddy 2.6 knows only the certificates of the configuration that the process began with.
    """
    if not without:
        return
    if len(without) == len(domains) and _was_reloaded():
        run(["systemctl", "restart", "caddy.service"], check=False)  # the wait that follows decides
    elif any(without.values()):
        run(["systemctl", "reload", "caddy.service"], check=False)  # likewise


def _was_reloaded() -> bool:
    said = run(["systemctl", "show", "--property=ExecReload", "caddy.service"], check=False).stdout
    return "start_time=[" in said and "start_time=[n/a]" not in said
