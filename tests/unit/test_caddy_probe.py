# SPDX-License-Identifier: Apache-2.0
"""Asking a proxy for its domains, against small servers of our own."""

from __future__ import annotations

import datetime
import http.server
import threading
import time
from collections.abc import Iterator

import pytest
from slipway.caddy import probe
from slipway.caddy.probe import Certificate, NotServedError, check_redirect, parse_certificate
from slipway.commands import Outcome

GOOD = """issuer=CN = Pebble Intermediate CA 5af6a0
notAfter=Feb 18 20:37:26 2027 GMT
Hostname notes.example.com does match certificate
"""

LATE = GOOD.replace("notes.", "late.")


def test_issuer_end_and_name_are_read_from_openssl() -> None:
    found = parse_certificate("notes.example.com", GOOD)
    assert found.issuer == "CN = Pebble Intermediate CA 5af6a0"
    assert found.not_after == datetime.datetime(2027, 2, 18, 20, 37, 26, tzinfo=datetime.UTC)
    assert found.matches
    assert found.to_dict()["not_after"] == "2027-02-18T20:37:26+00:00"


def test_a_certificate_for_another_name_does_not_match() -> None:
    assert not parse_certificate("notes.example.com", GOOD.replace("does match", "does NOT match")).matches


def test_what_is_no_certificate_is_said_so() -> None:
    with pytest.raises(NotServedError, match=r"could not read the certificate of notes\.example\.com"):
        parse_certificate("notes.example.com", "unable to load certificate")


class Answers(http.server.BaseHTTPRequestHandler):
    """Redirects one host, serves the others itself."""

    def do_GET(self) -> None:
        good = self.headers["Host"] == "good.example.com"
        self.send_response(308 if good else 200)
        if good:
            self.send_header("Location", "https://good.example.com/")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_redirect_to_https_passes(port: int) -> None:
    check_redirect("good.example.com", port=port)


def test_another_program_on_port_80_is_noticed(port: int) -> None:
    with pytest.raises(NotServedError, match="answered 200"):
        check_redirect("other.example.com", port=port)


def journal(*errors: str) -> str:
    """Caddy's journal with these errors on late.example.com, a second apart."""
    lines = [
        f'{{"level":"error","ts":{place}.5,"logger":"tls.obtain","error":"[late.example.com] Obtain: {said}","attempt":1}}'
        for place, said in enumerate(errors)
    ]
    return "\n".join(["some other line", *lines, '{"level":"info","msg":"late.example.com"}'])


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        ([], ["HTTP 400 urn:ietf:params:acme:error:malformed - JWS verification error"], 1),
        (["HTTP 400 urn:ietf:params:acme:error:malformed - JWS verification error"], [], 0),
        (["HTTP 400 urn:ietf:params:acme:error:badNonce - x"], ["HTTP 400 urn:ietf:params:acme:error:badNonce - x"], 1),
        ([], ["HTTP 403 urn:ietf:params:acme:error:unauthorized - nothing at 203.0.113.7"], 0),
    ],
)
def test_only_a_new_error_that_says_nothing_on_the_domain_is_asked_again(
    before: list[str], after: list[str], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([journal(*before), *[journal(*before, *after)] * 9])
    calls: list[list[str]] = []

    def run(argv: list[str], **_: object) -> Outcome:
        calls.append(argv)
        return Outcome((), 0, next(told) if argv[0] == "journalctl" else "", "")

    tries = iter([OSError("internal error"), OSError("internal error"), parse_certificate("late.example.com", LATE)])

    def fetch(_domain: str) -> Certificate:
        found = next(tries)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(probe, "run", run)
    monkeypatch.setattr(probe, "fetch_certificate", fetch)
    monkeypatch.setattr(probe.time, "sleep", lambda _seconds: None)
    known = probe.newest_error("late.example.com")
    probe.wait_for_certificate("late.example.com", time.monotonic() + 60, known=known)
    assert calls.count(["systemctl", "reload", "caddy.service"]) == asked


def test_the_last_words_are_the_newest_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "run", lambda *_, **__: Outcome((), 0, journal("first", "second"), ""))
    assert probe.last_words("late.example.com") == "[late.example.com] Obtain: second"
    assert probe.last_words("example.com") == ""
