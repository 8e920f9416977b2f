# SPDX-License-Identifier: Apache-2.0
"""The role caddy on a running host, asked from outside as a browser would ask."""

from __future__ import annotations

import concurrent.futures
import time

import pytest

from lab import services
from tests.integration.edge import ALLOWED, DOMAIN, WWW, Edge
from tests.integration.world import recap

pytestmark = pytest.mark.lab
pytest_plugins = ["tests.integration.edge_fixture"]


def test_a_second_run_changes_nothing_and_does_not_reload(edge: Edge) -> None:
    before = edge.started()
    done = edge.ok("--diff")
    assert recap(done)["changed"] == 0
    assert edge.started() == before


def test_security_headers_stand_on_every_answer(edge: Edge) -> None:
    for path in ("/", "/own-headers"):
        found = edge.head(path=path)
        assert found["strict-transport-security"] == "max-age=31536000"
        assert found["x-content-type-options"] == "nosniff"
        assert found["content-security-policy"] == "default-src 'self'"
        assert found["referrer-policy"] == "strict-origin-when-cross-origin"
        assert found["x-extra"] == 'say "hi"'
        assert "server" not in found
        assert "x-powered-by" not in found
    assert edge.head(path="/")["x-frame-options"] == "SAMEORIGIN"
    assert edge.head(path="/own-headers")["x-frame-options"] == "DENY"


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_old_tls_is_refused(edge: Edge, version: str) -> None:
    # The cipher list opens openssl's own door to old versions, so that it is the server that refuses.
    said = edge.world.root(
        f"echo | openssl s_client -connect 127.0.0.1:443 -servername {DOMAIN} -{version} -cipher ALL:@SECLEVEL=0 2>&1",
        check=False,
    )
    assert "alert protocol version" in said


@pytest.mark.parametrize(("version", "name"), [("tls1_2", "TLSv1.2"), ("tls1_3", "TLSv1.3")])
def test_present_tls_is_spoken(edge: Edge, version: str, name: str) -> None:
    said = edge.world.root(f"echo | openssl s_client -connect 127.0.0.1:443 -servername {DOMAIN} -{version} 2>&1")
    assert f"New, {name}" in said or f"Protocol: {name}" in said


def test_http_2_and_http_3_are_spoken(edge: Edge) -> None:
    assert edge.inside("--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}") == "2 200"
    assert edge.inside("--http3-only", "-o", "/dev/null", "-w", "%{http_version} %{http_code}") == "3 200"
    assert 'h3=":443"' in edge.head()["alt-svc"]


def test_plain_http_and_further_domains_lead_to_the_main_address(edge: Edge) -> None:
    plain = edge.head(path="/a?b=c", scheme="http")
    assert (plain["status"], plain["location"]) == ("308", f"https://{DOMAIN}/a?b=c")
    assert "server" not in plain
    www = edge.head(path="/a?b=c", domain=WWW)
    assert (www["status"], www["location"]) == ("308", f"https://{DOMAIN}/a?b=c")


def test_a_host_that_nobody_named_learns_nothing(edge: Edge) -> None:
    plain = edge.world.curl("/", domain="other.lab.test", scheme="http")
    assert (plain.returncode, plain.stdout) == (52, "")  # closed without a word
    tls = edge.world.curl("/", "-k", domain="other.lab.test")
    assert tls.returncode == 35  # no handshake, so no certificate and no names in it


def test_an_allowed_origin_gets_permission_and_another_gets_none(edge: Edge) -> None:
    ask = ("-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST")
    allowed = edge.head(*ask, "-H", f"Origin: {ALLOWED}")
    assert allowed["status"] == "204"
    assert allowed["access-control-allow-origin"] == ALLOWED
    assert allowed["access-control-allow-credentials"] == "true"
    assert "POST" in allowed["access-control-allow-methods"]
    denied = edge.head(*ask, "-H", "Origin: https://evil.example.com")
    assert denied["status"] == "403"
    assert not [name for name in denied if name.startswith("access-control")]


def test_the_applications_own_permission_is_replaced_by_the_list(edge: Edge) -> None:
    found = edge.head("-H", f"Origin: {ALLOWED}", path="/own-headers")
    assert found["access-control-allow-origin"] == ALLOWED
    assert "Origin" in found["vary"]
    assert "access-control-allow-origin" not in edge.head(path="/own-headers")


def test_a_body_beyond_the_limit_is_refused_declared_or_not(edge: Edge) -> None:
    edge.world.root("head -c 1500000 /dev/zero > /root/large; head -c 900000 /dev/zero > /root/small")
    code = ("-o", "/dev/null", "-w", "%{http_code}")
    assert edge.inside("--data-binary", "@/root/small", *code) == "200"
    assert edge.inside("--data-binary", "@/root/large", *code) == "413"
    chunked = ("--http1.1", "-H", "Transfer-Encoding: chunked", "-H", "Expect:")
    assert edge.inside(*chunked, "--data-binary", "@/root/large", *code) == "413"


def test_answers_are_compressed_when_asked(edge: Edge) -> None:
    for encoding in ("gzip", "zstd"):
        assert edge.head("-H", f"Accept-Encoding: {encoding}", path="/large")["content-encoding"] == encoding
    assert "content-encoding" not in edge.head(path="/large")


def test_a_stream_arrives_line_by_line_even_compressed(edge: Edge) -> None:
    # Its three lines take three seconds: the first byte must be there long before the last.
    timing = edge.inside(
        "--compressed", "-N", "-o", "/dev/null", "-w", "%{time_starttransfer} %{time_total}", path="/stream"
    )
    first, whole = (float(part) for part in timing.split())
    assert first < 1
    assert whole > 2.5


def test_a_get_waits_for_a_starting_application_and_a_post_is_told_at_once(edge: Edge) -> None:
    edge.stop_app()
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            get = pool.submit(edge.world.curl, "/", "-o", "/dev/null", "-w", "%{http_code}", domain=DOMAIN)
            began = time.monotonic()
            post = edge.head("-d", "x=1", "-H", "Accept: application/json")
            assert time.monotonic() - began < 1.5
            assert (post["status"], post["retry-after"], post["content-type"]) == ("503", "10", "application/json")
            edge.start_app()
            assert get.result().stdout == "200"
    finally:
        edge.start_app()


def test_an_application_that_is_down_shows_a_page_with_all_headers(edge: Edge) -> None:
    edge.stop_app()
    try:
        found = edge.head("-X", "DELETE")
        page = edge.world.curl("/", "-X", "DELETE", domain=DOMAIN).stdout
    finally:
        edge.start_app()
    assert found["status"] == "503"
    assert found["cache-control"] == "no-store"
    assert found["strict-transport-security"] == "max-age=31536000"
    assert "Back in a moment" in page
    assert "127.0.0.1" not in page


def test_credentials_never_reach_the_access_log(edge: Edge) -> None:
    planted = "planted-hush-81kx"
    given = [f"{name}: {planted}" for name in ("Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization")]
    edge.inside(*[part for header in given for part in ("-H", header)], path=f"/logged?token={planted}&page=1")
    log = edge.world.root("cat /var/log/caddy/edge.access.log")
    assert "/logged?" in log
    assert planted not in log


def test_an_access_log_that_was_rotated_is_written_on(edge: Edge) -> None:
    edge.ok(caddy_log_roll_mib=1)
    edge.world.root("systemctl restart caddy.service")  # an open log keeps its size limit over a reload
    try:
        edge.inside("-o", "/dev/null", path="/?n=[1-250]&filler=" + "x" * 6000)
        assert len(edge.world.root("ls /var/log/caddy/ | grep '^edge[.]access'").split()) > 1, "nothing was rotated"
        edge.inside(path="/?mark=after-the-rotation")
        time.sleep(1)
        assert "after-the-rotation" in edge.world.root("cat /var/log/caddy/edge.access.log")
        assert "write error" not in edge.world.root("journalctl -o cat -u caddy.service --since=-2min")
    finally:
        edge.ok()
        edge.world.root("systemctl restart caddy.service")


def test_a_snippet_that_does_not_parse_changes_nothing_and_is_named(edge: Edge) -> None:
    before = edge.world.root("sha256sum /etc/caddy/Caddyfile /etc/caddy/*/*"), edge.started()
    done = edge.converge(site={"snippet": 'respond /x "ok"\nrespnd /y "no"\n'})
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "/etc/caddy/snippets.d/edge.caddy:2" in said
    assert "respnd" in said
    assert "Traceback" not in said
    assert (edge.world.root("sha256sum /etc/caddy/Caddyfile /etc/caddy/*/*"), edge.started()) == before
    assert edge.head()["status"] == "200"


def test_a_snippet_that_parses_is_served_by_a_reload_and_goes_again(edge: Edge) -> None:
    before = edge.started()
    try:
        edge.ok(site={"snippet": 'respond /snip "from the snippet"\n'})
        assert edge.world.curl("/snip", domain=DOMAIN).stdout == "from the snippet"
        after = edge.started()
        assert after["MainPID"] == before["MainPID"]  # reloaded, not restarted
        assert after["ExecReload"] != before["ExecReload"]
    finally:
        edge.ok()
    assert "from the snippet" not in edge.world.curl("/snip", domain=DOMAIN).stdout


@pytest.mark.parametrize(
    ("site", "said"),
    [({"domans": ["x.lab.test"]}, "did you mean 'domains'"), ({"body_limit": "huge"}, "a size such as 10MB")],
)
def test_a_site_that_makes_no_sense_is_refused_in_one_sentence(edge: Edge, site: dict[str, object], said: str) -> None:
    done = edge.converge(site=site)
    assert done.returncode != 0
    assert said.lower() in (done.stdout + done.stderr).lower()
    assert recap(done)["changed"] == 0


def test_a_domain_without_dns_is_named_and_has_its_certificate_soon_after_dns_is_mended(edge: Edge) -> None:
    late = "late.lab.test"
    site = {"domains": [DOMAIN, late]}
    try:
        done = edge.converge(site=site, caddy_verify_seconds=6)
        said = done.stdout + done.stderr
        assert done.returncode != 0
        assert f"https://{late}/ has no certificate" in said
        assert "let DNS point" in said
        assert edge.head()["status"] == "200"  # the domain beside it is served all the while
        assert edge.world.acme is not None
        services.name_hosts(edge.world.driver, edge.world.acme, {late: edge.world.host})
        # By itself Caddy would try again after a minute, then two, then longer.
        edge.ok(site=site, caddy_verify_seconds=20)
        assert edge.head(domain=late)["status"] == "200"
    finally:
        edge.ok()


def test_the_admin_interface_is_for_root_alone(edge: Edge) -> None:
    assert "2019" not in edge.world.root("ss -Hltn")
    ask = "curl -s --max-time 3 --unix-socket /run/caddy/admin.sock -H 'Host;' http://x/config/"
    assert '"apps"' in edge.world.root(ask)
    assert edge.world.root(f"runuser -u nobody -- {ask}", check=False) == ""


def test_metrics_are_on_loopback_only(edge: Edge) -> None:
    assert "caddy_http_requests_total" in edge.world.root("curl -s http://127.0.0.1:2020/metrics")
    assert "127.0.0.1:2020" in edge.world.root("ss -Hltn")
    assert "*:2020" not in edge.world.root("ss -Hltn")


def test_the_service_is_sandboxed_and_comes_back_after_a_crash(edge: Edge) -> None:
    verdict = edge.world.root("systemd-analyze security caddy.service --no-pager | tail -1")
    assert float(verdict.split(":")[1].split()[0]) <= 2.5, verdict
    pid = edge.started()["MainPID"]
    edge.world.root(["kill", "-KILL", pid])
    limit = time.monotonic() + 10
    while edge.world.curl("/", domain=DOMAIN).returncode != 0:
        assert time.monotonic() < limit
        time.sleep(0.2)
    assert edge.started()["MainPID"] not in (pid, "0")


def test_an_address_that_asks_too_often_is_shut_out_for_a_while(edge: Edge) -> None:
    limit = {"requests": 5, "seconds": 30, "ban_seconds": 4, "paths": ["/login"]}
    try:
        edge.ok(site={"rate_limit": limit})
        for _ in range(8):
            edge.world.curl("/elsewhere", domain=DOMAIN)
        assert edge.world.curl("/login", domain=DOMAIN).returncode == 0
        for _ in range(5):
            edge.world.curl("/login", domain=DOMAIN)
        until = time.monotonic() + 15
        while edge.world.curl("/", "--connect-timeout", "1", domain=DOMAIN).returncode == 0:
            assert time.monotonic() < until, "not shut out"
            time.sleep(0.3)
        until = time.monotonic() + 30
        while edge.world.curl("/", "--connect-timeout", "1", domain=DOMAIN).returncode != 0:
            assert time.monotonic() < until, "not let in again"
            time.sleep(0.5)
    finally:
        edge.ok()
    assert "slipway-edge" not in edge.world.root("fail2ban-client status")
