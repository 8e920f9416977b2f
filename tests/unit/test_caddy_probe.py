# SPDX-License-Identifier: Apache-2.0
"""Asking a proxy for its domains, against small servers of our own."""

from __future__ import annotations

import datetime
import http.server
import threading
from collections.abc import Iterator

import pytest
from slipway.caddy.probe import NotServedError, check_redirect, parse_certificate

GOOD = """issuer=CN = Pebble Intermediate CA 5af6a0
notAfter=Feb 18 20:37:26 2027 GMT
Hostname notes.example.com does match certificate
"""


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
