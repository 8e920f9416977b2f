# SPDX-License-Identifier: Apache-2.0
"""The Caddyfile of one site, as text. Written for Caddy 2.6 (Debian 13) and newer.

What each part is for stands in docs/caddy.md; what was measured and led to it, here beside the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .site import ANY_ORIGIN, Site

SNIPPETS = "/etc/caddy/snippets.d"
HEAD = "# Managed by Slipway (role caddy): change caddy_sites, not this file.\n"

Lines = list[str]


def quote(text: str) -> str:
    """``text`` as one token of a Caddyfile. Placeholders such as ``{http.request.host}`` keep their meaning."""
    return '"' + text.replace('"', '\\"') + '"'


def block(head: str, lines: Iterable[str]) -> Lines:
    """``head { ... }`` with the lines indented by a tab."""
    return [f"{head} {{", *(f"\t{line}" if line else "" for line in lines), "}"]


def addresses(scheme: str, domains: Iterable[str]) -> str:
    """The head of a site's block."""
    return ", ".join(f"{scheme}://{domain}" for domain in domains)


def headers(site: Site) -> Lines:
    """Response headers. Deferred, so that they replace what the application says; with ``?`` only where it says nothing."""
    firm = {
        "X-Content-Type-Options": "nosniff",
        "Strict-Transport-Security": site.hsts,
        "Content-Security-Policy": site.csp,
    }
    gentle = {"X-Frame-Options": site.frame_options, "Referrer-Policy": site.referrer_policy}
    taken = {name.lower() for name in site.headers}
    lines = ["defer", "-Server", "-X-Powered-By"]
    lines += [f"{name} {quote(value)}" for name, value in firm.items() if value and name.lower() not in taken]
    lines += [f"{name} {quote(value)}" if value else f"-{name}" for name, value in site.headers.items()]
    # One directive each: together in a block, the presence of any one would leave all of them out.
    single = [f"header ?{name} {quote(value)}" for name, value in gentle.items() if value and name.lower() not in taken]
    return [*block("header", lines), *single]


def cors(site: Site) -> Lines:
    """Answers to pages of other sites: the listed origins are named back, others get no permission (preflight: 403)."""
    if not site.cors_origins:
        return []
    if site.cors_origins == (ANY_ORIGIN,):
        lines = block("@cors", ["header Origin *"])
        allowed = quote(ANY_ORIGIN)
    else:
        # Several values of one field are alternatives.
        lines = block("@cors", [f"header Origin {quote(origin)}" for origin in site.cors_origins])
        lines.append("header +Vary Origin")
        allowed = "{http.request.header.Origin}"
    lines += block("@cors_preflight", ["method OPTIONS", "header Access-Control-Request-Method *"])
    lines.append(f"header @cors Access-Control-Allow-Origin {allowed}")
    if site.cors_credentials:
        lines.append('header @cors Access-Control-Allow-Credentials "true"')
    if site.cors_expose:
        lines.append(f"header @cors Access-Control-Expose-Headers {quote(', '.join(site.cors_expose))}")
    answer = [
        f"header @cors Access-Control-Allow-Methods {quote(', '.join(site.cors_methods))}",
        f"header @cors Access-Control-Allow-Headers {quote(', '.join(site.cors_headers))}",
        'header @cors Access-Control-Max-Age "7200"',
        "respond @cors 204",
        "respond 403",
    ]
    return lines + block("handle @cors_preflight", answer)


def proxy(site: Site, matcher: str, try_seconds: int) -> Lines:
    """``reverse_proxy`` of what ``matcher`` names to the application's stable port.

    Keep-alive is off, so that every request takes the port's redirect anew: a deploy switches it without a reload.
    """
    lines = [
        *([f"lb_try_duration {try_seconds}s", "lb_try_interval 250ms"] if try_seconds else []),
        "flush_interval -1",
        *block("transport http", ["keepalive off", "dial_timeout 5s"]),
    ]
    if site.cors_origins:
        lines += [f"header_down -Access-Control-{name}" for name in ("Allow-Origin", "Allow-Credentials")]
    return block(f"reverse_proxy {matcher} {site.upstream_address}:{site.upstream_port}", lines)


def limits(site: Site) -> Lines:
    """The largest body: a declared one is refused before the application hears of it, an undeclared one when it is reached."""
    length = "{http.request.header.Content-Length}"
    return [
        *block("request_body", [f"max_size {site.body_limit}"]),
        f"@too_large expression `{length}.size() > 0 && int({length}) > {site.body_limit}`",
        *block("handle @too_large", ["error 413"]),
    ]


def service(site: Site) -> Lines:
    """The block that serves the application."""
    lines = [f"import slipway_log {site.name}", f"import site_{site.name}_headers"]
    if site.compress:
        lines.append("encode zstd gzip")
    if site.basic_auth:
        lines += block("basicauth", [f"{quote(user)} {_hash(value)}" for user, value in site.basic_auth.items()])
    lines += limits(site)
    lines += cors(site)
    if site.snippet.strip():
        # A file of its own: a message about it names its lines as the user counts them.
        lines.append(f"import {SNIPPETS}/{site.name}.caddy")
    # Caddy 2.6 has closed a request's body once a dial has failed, so that trying a POST again ends in an error
    # some seconds later: bodies are tried once and answered 503 at once. GETs wait for a starting application.
    # No ``handle`` around them: it would come before most of what a snippet may say.
    lines += ["@waits method GET HEAD OPTIONS", "@tries_once not method GET HEAD OPTIONS"]
    lines += proxy(site, "@waits", site.try_seconds)
    lines += proxy(site, "@tries_once", 0)
    lines += block("handle_errors", [f"import site_{site.name}_headers", "import slipway_errors"])
    return lines


def _hash(value: str) -> str:
    """A bcrypt hash as Caddy 2.6 wants it (base64 is not needed where it begins with ``$``)."""
    return quote(value)


def render(site: Site) -> str:
    """The whole file of one site."""
    tls = "import slipway_tls_internal" if site.tls_internal else "import slipway_tls"
    everywhere = (*site.domains, *site.redirects)
    parts = [
        block(f"(site_{site.name}_headers)", headers(site)),
        block(addresses("http", everywhere), ["import slipway_plain_http"]),
        block(addresses("https", site.domains), [tls, *service(site)]),
    ]
    if site.redirects:
        lead = [tls, f"import site_{site.name}_headers", f"redir https://{site.main_domain}{{uri}} 308"]
        parts.append(block(addresses("https", site.redirects), lead))
    return HEAD + "\n" + "\n\n".join("\n".join(part) for part in parts) + "\n"


def paths(name: str) -> list[str]:
    """Where a site's file and its snippet stand."""
    return [f"/etc/caddy/sites.d/{name}.caddy", f"{SNIPPETS}/{name}.caddy"]


def files(sites: Iterable[Site]) -> list[Mapping[str, str]]:
    """The files of all sites, as ``slipway.vps.managed_files`` takes them. Readable by Caddy alone: hashes may be in them."""
    listed: list[Mapping[str, str]] = []
    for site in sites:
        rights = {"mode": "0640", "group": "caddy"}
        path, snippet = paths(site.name)
        listed.append({"path": path, "content": render(site), **rights})
        if site.snippet.strip():
            listed.append({"path": snippet, "content": site.snippet.rstrip("\n") + "\n", **rights})
        else:
            listed.append({"path": snippet, "state": "absent"})
    return listed
