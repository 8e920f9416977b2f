# SPDX-License-Identifier: Apache-2.0
"""The command bin/lab: disposable VPSs."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from slipway.errors import InputError, SlipwayError, did_you_mean

from lab import images, inventory, s3, services, ui
from lab.driver import Driver, get_driver
from lab.keys import ensure_age_keys, write_ssh_files
from lab.model import DEFAULT_LAB, SERVICES_HOST, Host, HostSpec, Lab, LabError, parse_size

Arguments = argparse.Namespace
_EXAMPLES = """\
examples:
  bin/lab up web1                         a bare Debian VPS (2 GB, 2 cores), root open to the lab's key
  bin/lab up web1 db1:rung0 --memory 4g   two; db1 from the image with all packages of rung 0 in it
  bin/lab up web1 --acme                  and a services host: certificate authority, registry, scanners
  bin/lab up web1 --s3                    and a real S3 server with a bucket for backups
  bin/lab ssh web1 -- uptime              over real SSH;  bin/lab exec web1 -- ... past sshd and firewall
  bin/lab cut web1 db1; bin/lab heal web1
  bin/lab down                            all of it (of this lab: --name, or $SLIPWAY_LAB)
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message, remedy="see bin/lab --help")


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument(
        "--name", default=os.environ.get("SLIPWAY_LAB") or DEFAULT_LAB, help="the lab's name (default: %(default)s)"
    )
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("--quiet", action="store_true", help="no progress")
    common.add_argument("--driver", default="docker", help=argparse.SUPPRESS)
    parser = _Parser(
        prog="bin/lab", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, action: Callable[[Arguments], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common], help=text, description=text)
        sub.set_defaults(action=action)
        return sub

    up = command("up", _up, "make hosts that are missing, start those that are off")
    up.add_argument("hosts", nargs="+", metavar="HOST[:IMAGE]", help="images: bare, rung0, services, s3")
    up.add_argument("--memory", default="2g", help="RAM of each new host (default: %(default)s)")
    up.add_argument("--cores", type=int, default=2, help="cores of each new host (default: %(default)s)")
    up.add_argument("--disk", default="40g", help="disk size each new host reports (default: %(default)s)")
    up.add_argument("--image", default="bare", help="image of hosts that name none (default: %(default)s)")
    up.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="a further name of the first host; may be repeated"
    )
    up.add_argument("--acme", action="store_true", help=f"also the services host '{SERVICES_HOST}'")
    up.add_argument("--s3", action="store_true", help=f"also the S3 server '{s3.S3_HOST}'")
    down = command("down", _down, "remove hosts (all, and the network, where none is named)")
    down.add_argument("hosts", nargs="*", metavar="HOST")
    down.add_argument("--all", action="store_true", help="every lab of this checkout")
    down.add_argument("--images", action="store_true", help="with --all: the images too")
    listing = command("list", _list, "hosts, their addresses and state")
    listing.add_argument("--all", action="store_true", help="every lab of this checkout")
    cut = command("cut", _cut, "cut a host off: from one peer, or from everything")
    cut.add_argument("host", metavar="HOST")
    cut.add_argument("peer", nargs="?", metavar="PEER")
    for name, action, text in (
        ("heal", _heal, "undo every cut of these hosts"),
        ("kill", _kill, "power hosts off without warning"),
        ("start", _start, "switch hosts on again"),
        ("restart", _restart, "shut hosts down in order and start them again"),
    ):
        command(name, action, text).add_argument("hosts", nargs="+", metavar="HOST")
    ssh = command("ssh", _ssh, "a shell or a command over real SSH")
    ssh.add_argument("--user", default="root", help="whom to log in as (default: %(default)s)")
    inside = command("exec", _exec, "a command inside the host, past its sshd and firewall")
    for sub in (ssh, inside):
        sub.add_argument("host", metavar="HOST")
        sub.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    command("ip", _ip, "the address of a host").add_argument("host", metavar="HOST")
    dns = command("dns", _dns, "let the certificate authority find a name at a host")
    dns.add_argument("host", metavar="HOST")
    dns.add_argument("domains", nargs="+", metavar="DOMAIN")
    inv = command("inventory", _inventory, "an Ansible inventory of the lab")
    inv.add_argument("--group", action="append", default=[], metavar="GROUP=HOST,...", help="may be repeated")
    inv.add_argument("--user", default="root", help="the login user (default: %(default)s)")
    image = command("images", _images, "list the lab's images, or build them")
    image.add_argument("images", nargs="*", metavar="IMAGE", help="to build: bare, rung0, services, s3, python")
    image.add_argument("--rebuild", action="store_true", help="build again even where there is one")
    return parser


# -- helpers -----------------------------------------------------------------------------------------------------


def _driver(args: Arguments) -> Driver:
    return get_driver(args.driver)


def find(driver: Driver, lab: Lab, names: Sequence[str]) -> list[Host]:
    """The hosts called ``names``; raises :class:`LabError` for one that is not there."""
    there = {h.name: h for h in driver.hosts(lab)}
    for name in names:
        if name not in there:
            near = did_you_mean(name, there)
            raise LabError(
                f"There is no host {name} in lab {lab.name}",
                f"one of: {', '.join(there)}" if there else "",
                f"write {near} instead" if near else f"make it with: bin/lab up {name} --name {lab.name}",
            )
    return [there[n] for n in names]


def _spec(text: str, args: Arguments, aliases: tuple[str, ...]) -> HostSpec:
    name, _, image = text.partition(":")
    return HostSpec(
        name=name,
        image=image or args.image,
        ram_mb=parse_size(args.memory),
        cores=args.cores,
        disk_mb=parse_size(args.disk),
        aliases=aliases,
    )


def _show(hosts: Sequence[Host], args: Arguments) -> None:
    if args.json:
        print(json.dumps([h.to_dict() for h in hosts], indent=2))
    elif hosts:
        rows = [("LAB", "HOST", "STATE", "ADDRESS", "IPV6", "RAM", "CORES", "IMAGE")]
        rows += [(h.lab, h.name, h.state, h.ip, h.ip6, f"{h.ram_mb} MB", str(h.cores), h.image) for h in hosts]
        print(ui.table(rows))
    else:
        print("no hosts")


# -- commands ----------------------------------------------------------------------------------------------------


def _up(args: Arguments) -> int:
    driver, lab, say = _driver(args), Lab(args.name), ui.Narrator(quiet=args.quiet)
    specs = [_spec(text, args, tuple(args.alias) if n == 0 else ()) for n, text in enumerate(args.hosts)]
    if args.acme and all(s.name != SERVICES_HOST for s in specs):
        specs.append(services.spec())
    if args.s3 and all(s.name != s3.S3_HOST for s in specs):
        specs.append(s3.spec())
    up(driver, lab, specs, say)
    _show(driver.hosts(lab), args)
    return 0


def bring(driver: Driver, lab: Lab, spec: HostSpec, say: Callable[[str], None], host: Host | None) -> Host:
    """Make a host, or start the one there is (``host``)."""
    if host is None:
        host = driver.create(lab, spec, say)
        say(f"{host.name} is up at {host.ip}")
    elif not host.running:
        host = driver.start(host)
        say(f"{host.name} is switched on again at {host.ip}")
    else:
        say(f"{host.name} is up already at {host.ip}")
    return host


def up(driver: Driver, lab: Lab, specs: Sequence[HostSpec], say: Callable[[str], None]) -> list[Host]:
    """Make the hosts that are missing, start those that are off; the services of the lab's own hosts run at the end."""
    there = {h.name: h for h in driver.hosts(lab)}
    with ThreadPoolExecutor(max_workers=2) as pool:
        hosts = list(pool.map(lambda spec: bring(driver, lab, spec, say, there.get(spec.name)), specs))
    ensure_age_keys(lab)  # a lab of an older checkout has none yet
    services.refresh(driver, lab, say)
    s3.refresh(driver, lab, say)
    return hosts


def _down(args: Arguments) -> int:
    driver, say = _driver(args), ui.Narrator(quiet=args.quiet)
    if args.hosts:
        lab = Lab(args.name)
        for host in find(driver, lab, args.hosts):
            driver.destroy(host)
            say(f"{host.name} is gone")
        return 0
    names = {args.name} if not args.all else {h.lab for h in driver.hosts(None)} | inventory.lab_folders()
    for name in sorted(names):
        down(driver, Lab(name), say)
    if args.all and args.images:
        for tag in images.remove_all():
            say(f"image {tag} is gone")
    return 0


def down(driver: Driver, lab: Lab, say: Callable[[str], None]) -> None:
    """Remove a whole lab: hosts, network, keys."""
    for host in driver.hosts(lab):
        driver.destroy(host)
        say(f"{host.name} is gone")
    driver.destroy_lab(lab)
    inventory.remove_folder(lab)


def _list(args: Arguments) -> int:
    _show(_driver(args).hosts(None if args.all else Lab(args.name)), args)
    return 0


def _cut(args: Arguments) -> int:
    driver, lab = _driver(args), Lab(args.name)
    (host,) = find(driver, lab, [args.host])
    driver.cut(host, find(driver, lab, [args.peer])[0] if args.peer else None)
    return 0


def _each(args: Arguments, action: Callable[[Driver, Host], object]) -> int:
    driver, lab = _driver(args), Lab(args.name)
    for host in find(driver, lab, args.hosts):
        action(driver, host)
    if args.json:
        _show(find(driver, lab, args.hosts), args)
    return 0


def _heal(args: Arguments) -> int:
    return _each(args, lambda driver, host: driver.heal(host))


def _kill(args: Arguments) -> int:
    return _each(args, lambda driver, host: driver.kill(host))


def _start(args: Arguments) -> int:
    return _each(args, lambda driver, host: driver.start(host)) or _refresh(args)


def _restart(args: Arguments) -> int:
    return _each(args, lambda driver, host: driver.restart(host)) or _refresh(args)


def _refresh(args: Arguments) -> int:
    driver, lab, say = _driver(args), Lab(args.name), ui.Narrator(quiet=args.quiet)
    services.refresh(driver, lab, say)
    s3.refresh(driver, lab, say)
    return 0


def _command(args: Arguments) -> list[str]:
    argv: list[str] = args.argv
    return argv[1:] if argv[:1] == ["--"] else argv


def _ssh(args: Arguments) -> int:
    driver, lab = _driver(args), Lab(args.name)
    (host,) = find(driver, lab, [args.host])
    write_ssh_files(lab, driver.hosts(lab))
    sys.stdout.flush()
    return subprocess.call(["ssh", "-F", str(lab.ssh_config), "-l", args.user, host.name, *_command(args)])


def _exec(args: Arguments) -> int:
    driver = _driver(args)
    (host,) = find(driver, Lab(args.name), [args.host])
    return driver.shell(host, _command(args) or ["/bin/bash", "-l"])


def _ip(args: Arguments) -> int:
    (host,) = find(_driver(args), Lab(args.name), [args.host])
    print(json.dumps({"ip": host.ip, "ip6": host.ip6}) if args.json else host.ip)
    return 0


def _dns(args: Arguments) -> int:
    driver, lab = _driver(args), Lab(args.name)
    host, acme = find(driver, lab, [args.host, SERVICES_HOST])
    services.name_hosts(driver, acme, dict.fromkeys(args.domains, host))
    return 0


def _inventory(args: Arguments) -> int:
    lab = Lab(args.name)
    tree = inventory.build(lab, _driver(args).hosts(lab), inventory.parse_groups(args.group), user=args.user)
    print(json.dumps(tree if args.json else inventory.as_yaml_tree(tree), indent=2))
    return 0


def _images(args: Arguments) -> int:
    say = ui.Narrator(quiet=args.quiet)
    for name in args.images:
        say(f"{name}: {images.ensure(name, say, rebuild=args.rebuild)}")
    if not args.images:
        found = images.built()
        if args.json:
            print(json.dumps(found, indent=2))
        elif found:
            rows = [(f["name"], f["tag"], f["size"], f["current"]) for f in found]
            print(ui.table([("IMAGE", "TAG", "SIZE", "CURRENT"), *rows]))
        else:
            print("no images yet: bin/lab images bare builds one")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 fine, 1 an error said in one message, 130 interrupted."""
    try:
        args = _parser().parse_args(argv)
        code: int = args.action(args)
        return code
    except SlipwayError as error:
        print(f"bin/lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bin/lab: interrupted", file=sys.stderr)
        return 130
