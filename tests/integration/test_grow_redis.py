# SPDX-License-Identifier: Apache-2.0
"""The climb ``grow/add_redis.yml``: added under load, used and abused on the running servers, taken away through kills."""

from __future__ import annotations

import json
import re
import shlex
import socket
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.integration.grow import Grow, loaded, nothing_failed
from tests.integration.world import PLANTED
from tests.unit.waiting import until

pytest_plugins = ["tests.integration.grow_fixture"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

PASSWORD = "planted-redis-5h2k8d3s"
CACHE, QUEUE = 6500, 6501
RUNNING = "systemctl list-units --no-legend 'redis-server@*'"


def wish(grown: Grow, *purposes: str) -> None:
    """What a user types for it; nothing takes it away."""
    app = {**grown.world.settings["slipway_apps"][0], "redis": list(purposes)}
    vault = {"notes": {**PLANTED, "redis_password": PASSWORD}}
    grown.settings = {"slipway_apps": [app], "vault_apps": vault} if purposes else {"vault_apps": vault}
    grown.world.groups = ("redis",) if purposes else ()


@pytest.fixture(scope="module", autouse=True)
def without_again(grown: Grow) -> Iterator[None]:
    """The next file's climb begins without Redis, as this one did."""
    yield
    wish(grown)
    grown.climb("add_redis", "-e", "redis_release_data=true")
    grown.settings = {}
    grown.world.write_inventory()


def ask(grown: Grow, port: int, *words: str, user: str = "notes", password: str = PASSWORD) -> str:
    """One command on the host, as the app's user."""
    line = f"REDISCLI_AUTH={shlex.quote(password)} redis-cli -p {port} --user {user} --no-auth-warning {shlex.join(words)} 2>&1"
    return grown.world.root(line, check=False).strip()


def info(grown: Grow, port: int) -> dict[str, str]:
    return dict(line.partition(":")[::2] for line in ask(grown, port, "INFO").splitlines())


def serving(grown: Grow) -> str:
    colour = json.loads(grown.world.root("slipway app status --json"))["apps"][0]["colour"]
    names = grown.world.root("docker ps --format '{{.Names}}'").split()
    return next(name for name in names if colour in name)


def from_the_app(grown: Grow, variable: str, key: str) -> str:
    """SET and GET from within the serving container, with the address in its environment and nothing else."""
    program = (
        "import os, socket, urllib.parse as u\n"
        f"a = u.urlsplit(os.environ[{variable!r}])\n"
        "s = socket.create_connection((a.hostname, a.port), 5); f = s.makefile('rb')\n"
        "def say(*words):\n"
        "    s.sendall(b'*%d\\r\\n' % len(words) + b''.join(b'$%d\\r\\n%s\\r\\n' % (len(w), w) for w in words))\n"
        "    line = f.readline().strip()\n"
        "    return f.readline().strip() if line[:1] == b'$' else line\n"
        "say(b'AUTH', a.username.encode(), u.unquote(a.password).encode())\n"
        f"say(b'SET', {key.encode()!r}, b'from the app')\n"
        f"print(say(b'GET', {key.encode()!r}).decode())\n"
    )
    return grown.world.root(["docker", "exec", serving(grown), "python3", "-c", program]).strip()


def test_check_prints_the_plan_and_leaves_the_host_as_it_was(grown: Grow) -> None:
    wish(grown, "cache", "queue")
    said = grown.check_touches_nothing("add_redis")
    assert "> redis cache of notes" in said
    assert "app notes: memory limit" in said
    assert "about 0 USD a month" in said
    assert "nothing was changed." in said


def test_no_other_play_tells_the_app_of_a_server_that_is_not_there(grown: Grow) -> None:
    wish(grown, "cache", "queue")
    grown.world.write_inventory(**grown.settings)
    done = grown.world.playbook("deploy")
    assert done.returncode != 0
    assert "notes-cache, notes-queue" in done.stdout
    assert "To mend it: run playbooks/grow/add_redis.yml" in done.stdout


def test_added_under_load_no_request_fails_and_the_app_reaches_both(grown: Grow) -> None:
    wish(grown, "cache", "queue")
    with loaded(grown) as load:
        time.sleep(3)
        started = time.monotonic()
        done = grown.climb("add_redis", "--diff")
        took = time.monotonic() - started
        time.sleep(3)
        report = load.stop()
    nothing_failed(grown, report, f"Redis added in {took:.0f} s")
    assert PASSWORD not in done.stdout + done.stderr
    last = grown.records()[-1]
    assert (last["climb"], last["result"], [one["name"] for one in last["phases"]]) == (
        "add_redis", "done", ["prove", "prepare", "cut_over", "verify"],
    )  # fmt: skip
    assert "seen from within each container" in done.stdout
    for variable, port in (("REDIS_URL", CACHE), ("REDIS_QUEUE_URL", QUEUE)):
        assert from_the_app(grown, variable, f"seen:{port}") == "from the app"
        assert ask(grown, port, "GET", f"seen:{port}") == "from the app"
    row = grown.world.row("redis queue notes")
    assert row["level"] == "good", row
    assert re.match(r"\d+ of \d+ MB, ", row["text"]), row
    grown.site_changes_nothing()
    assert "Nothing to do" in grown.climb("add_redis").stdout


def test_each_runs_with_its_policy_within_its_limit_in_a_sandbox(grown: Grow) -> None:
    cache, queue = info(grown, CACHE), info(grown, QUEUE)
    assert (cache["maxmemory_policy"], cache["aof_enabled"]) == ("allkeys-lru", "0")
    assert (queue["maxmemory_policy"], queue["aof_enabled"]) == ("noeviction", "1")
    sized = {one["name"]: one for one in json.loads(grown.world.root("cat /etc/slipway/redis.json"))["servers"]}
    assert int(cache["maxmemory"]) == sized["notes-cache"]["maxmemory_mb"] * 2**20
    for name, one in sized.items():
        unit = grown.world.root(f"systemctl show redis-server@{name} -p MemoryMax,ReadWritePaths,User,NoNewPrivileges")
        ceiling = one["limit_mb"] + (256 if one["purpose"] == "queue" else 0)
        assert f"MemoryMax={ceiling * 2**20}\n" in unit
        assert f"ReadWritePaths=-/var/lib/redis/{name}\n" in unit
        assert "User=redis\n" in unit
    assert grown.world.root("systemctl is-enabled redis-server.service", check=False).strip() == "masked"


def test_nobody_gets_in_without_the_password_and_the_app_can_do_no_harm(grown: Grow) -> None:
    assert grown.world.root(f"redis-cli -p {CACHE} PING", check=False).strip() == "NOAUTH Authentication required."
    assert "WRONGPASS" in ask(grown, CACHE, "PING", user="default", password="anything")
    assert "WRONGPASS" in ask(grown, CACHE, "PING", user="shop")
    for words in ("CONFIG GET dir", "FLUSHALL", "KEYS *", "ACL LIST", "MODULE LIST", "SHUTDOWN NOSAVE", "MONITOR"):
        assert ask(grown, CACHE, *words.split()).startswith(("NOPERM", "(error) NOPERM")), words
    assert ask(grown, QUEUE, "FLUSHDB").startswith("NOPERM")
    assert ask(grown, QUEUE, "GET", f"seen:{QUEUE}") == "from the app"


def test_from_outside_the_ports_are_closed(grown: Grow) -> None:
    for port in (CACHE, QUEUE):
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((grown.world.ip, port)) != 0


FILL = "for i=1,tonumber(ARGV[1]) do redis.call('SET','fill:'..i,string.rep('x',100000)) end return 'full'"


def test_a_full_cache_evicts_and_a_full_queue_refuses_and_keeps(grown: Grow) -> None:
    most = int(info(grown, CACHE)["maxmemory"])
    many = most // 100_000
    for first in range(0, 2 * many, 100):
        script = FILL.replace("i=1,", f"i={first},{first}+")
        assert ask(grown, CACHE, "EVAL", script, "0", "100") == "full"
    after = info(grown, CACHE)
    assert int(after["evicted_keys"]) > 0
    assert int(after["used_memory"]) < 1.1 * most
    refused = ""
    for first in range(0, 2 * many, 100):
        refused = ask(grown, QUEUE, "EVAL", FILL.replace("i=1,", f"i={first},{first}+"), "0", "100")
        if "OOM" in refused:
            break
    assert "OOM" in refused
    assert info(grown, QUEUE)["evicted_keys"] == "0"
    assert ask(grown, QUEUE, "GET", f"seen:{QUEUE}") == "from the app"
    empty = "for i=0,tonumber(ARGV[1]) do redis.call('UNLINK','fill:'..i) end return 'empty'"
    assert ask(grown, QUEUE, "EVAL", empty, "0", str(3 * many)) == "empty"
    assert ask(grown, CACHE, "FLUSHDB") == "OK"


def test_killed_it_comes_back_a_queue_with_its_keys_and_a_cache_without(grown: Grow) -> None:
    for port in (CACHE, QUEUE):
        # By a script: what a log holds in transactions is replayed by other rules than a plain command.
        assert (
            ask(grown, port, "EVAL", "redis.call('SET','kept','yes') redis.call('SET','too','yes') return 'set'", "0")
            == "set"
        )
    time.sleep(1.5)  # the log is written once a second
    grown.world.root("systemctl kill --signal=KILL 'redis-server@*'")
    until(lambda: ask(grown, QUEUE, "GET", "kept") == "yes", "the queue is back")
    until(lambda: ask(grown, CACHE, "PING") == "PONG", "the cache is back")
    assert ask(grown, CACHE, "GET", "kept") == ""


def test_its_numbers_are_written_down_for_prometheus(grown: Grow) -> None:
    grown.world.root("systemctl start slipway-redis.service")
    text = grown.world.root("cat /var/lib/slipway/metrics/redis.prom")
    assert 'slipway_redis_up{app="notes",purpose="queue"} 1' in text
    assert "slipway_redis_maxmemory_bytes" in text
    assert "redis cache of notes" in grown.world.root("slipway redis status")
    grown.world.root("systemctl is-active slipway-redis.timer")


def test_the_password_is_in_no_log_no_command_line_and_no_file_that_others_can_read(grown: Grow) -> None:
    assert grown.world.root(f"journalctl --no-pager | grep -c {PASSWORD}", check=False).strip() == "0"
    readable = f"find /etc /var/lib/slipway /var/log -type f -perm -o=r -exec grep -l {PASSWORD} {{}} +"
    assert grown.world.root(readable, check=False).strip() == ""
    assert PASSWORD not in grown.world.root("ps -eo args")


def test_another_climb_sizes_it_with_the_rest_and_a_queue_keeps_its_jobs(grown: Grow) -> None:
    assert ask(grown, QUEUE, "SET", "job", "1") == "OK"
    wish(grown, "cache", "queue")
    grown.settings["slipway_redis_memory_mb"] = 80
    done = grown.climb("resize")
    assert "redis queue of notes is away for a second." in " ".join(done.stdout.split())
    assert info(grown, CACHE)["maxmemory"] == info(grown, QUEUE)["maxmemory"] == str(40 * 2**20)
    assert ask(grown, QUEUE, "GET", "job") == "1"


KILLS = (
    ("climb : Note the phase", 1, "prepare"),
    ("app : Start the deploy of notes", 1, "cut_over"),
    ("climb : Note the phase", 3, "verify"),
)
"""After which task ansible is killed, and the phase in which the climb then stands."""


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(KILLS[1:2], id="inside the cut-over"),
        pytest.param(KILLS, id="in every phase", marks=pytest.mark.slow),
    ],
)
def test_taken_away_under_load_through_kills_and_its_data_is_kept_until_released(
    grown: Grow, kills: Sequence[tuple[str, int, str]]
) -> None:
    if not grown.world.root(RUNNING).strip():
        wish(grown, "cache", "queue")
        grown.climb("add_redis")
    wish(grown)
    with loaded(grown) as load:
        grown.killed_each("add_redis", kills)
        done = grown.climb("add_redis")
        time.sleep(2)
        report = load.stop()
    nothing_failed(grown, report, f"Redis taken away, killed {len(kills)} times")
    assert f"stopped in the phase {kills[-1][2]}" in done.stdout
    assert grown.records()[-1]["result"] == "done"
    assert "REDIS" not in grown.world.root(f"docker inspect --format '{{{{.Config.Env}}}}' {serving(grown)}")
    assert grown.world.root(RUNNING).strip() == ""
    assert grown.world.root("ls /var/lib/redis/notes-queue/appendonlydir").strip()
    grown.site_changes_nothing()
    said = grown.climb("add_redis", "-e", "redis_release_data=true").stdout
    assert "the data of notes-cache is deleted for good" in said
    assert grown.world.root("ls /var/lib/redis").strip() == ""
    assert "Nothing to do" in grown.climb("add_redis").stdout
