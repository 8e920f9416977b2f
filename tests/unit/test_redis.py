# SPDX-License-Identifier: Apache-2.0
"""Redis: shares of memory, files of a server, rules of the inventory, what the apps are told, and the proof's verdicts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.commands import Outcome
from slipway.deploy.apps import Network, redis_port, resolve
from slipway.errors import InputError
from slipway.inventory.redis_rules import check_redis, check_redis_hosts, check_redis_wished
from slipway.inventory.rules import check_values
from slipway.redis import ctl, probe, retire, server
from slipway.redis.client import Door, RedisError, keys, parse_info
from slipway.redis.server import Server
from slipway.sizing.plan import AppShape, HostShape, plan, size_from_facts
from slipway.sizing.redis import RedisSizing, least_redis_mb, size_redis, wished

CACHE = Server("notes", "cache", 6500, 64, 90, "a-long-password")
QUEUE = Server("notes", "queue", 6501, 64, 106, "a-long-password")
OTHER = Server("shop", "cache", 6502, 64, 90, "another-password")
LISTEN = ["127.0.0.1", "10.213.87.1"]
VAULT = {"notes": {"database_password": "p" * 20, "redis_password": "r@/d" * 6}}
names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)
purposes = st.sampled_from([("cache",), ("queue",), ("cache", "queue")])


# -- sizing ----------------------------------------------------------------------------------------------------------


@given(
    names.flatmap(lambda many: st.tuples(*(st.tuples(st.just(name), purposes) for name in many))), st.integers(0, 4000)
)
def test_each_server_gets_an_equal_share_of_at_most_a_quarter(apps: Any, left: int) -> None:
    servers = wished(apps)
    sized = size_redis(servers, left)
    total = sum(one.maxmemory_mb for one in sized)
    assert total == max(32 * len(servers), min(256, left // 4))
    assert max(one.maxmemory_mb for one in sized) - min(one.maxmemory_mb for one in sized) <= 1
    assert all(one.limit_mb >= one.maxmemory_mb + 10 for one in sized)
    assert sum(one.limit_mb for one in sized) >= least_redis_mb(servers)


def test_a_queue_has_room_to_rewrite_its_log() -> None:
    assert RedisSizing("notes", "cache", 100).limit_mb == 135
    assert RedisSizing("notes", "queue", 100).limit_mb == 160


@given(st.integers(32, 4096))
def test_the_users_own_memory_is_shared_out_to_the_last_mb(own: int) -> None:
    assert (
        sum(one.maxmemory_mb for one in size_redis([("a", "cache"), ("a", "queue"), ("b", "queue")], 500, own)) == own
    )


def test_apps_that_name_a_purpose_get_redis_and_others_shrink_for_it() -> None:
    facts = {"ram_mb": 2048, "cores": 1, "disk_total_mb": 40_000}
    without = size_from_facts(facts, apps=[{"name": "notes"}])
    beside = size_from_facts(facts, apps=[{"name": "notes", "redis": ["cache"]}])
    assert (without.redis, [one.app for one in beside.redis]) == ((), ["notes"])
    assert beside.budget.fits
    assert beside.apps[0].memory_mb < without.apps[0].memory_mb
    assert beside.postgres.settings == without.postgres.settings


def test_a_purpose_nobody_knows_is_refused_before_anything_is_reckoned() -> None:
    with pytest.raises(InputError, match="wants Redis as 'cahce'"):
        plan(HostShape(4096, 2, 40_000, apps=(AppShape("notes", redis=("cahce",)),), redis=True))


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_cache_evicts_and_writes_nothing_a_queue_does_neither() -> None:
    cache, queue = server.settings_text(CACHE, LISTEN), server.settings_text(QUEUE, LISTEN)
    assert "maxmemory-policy allkeys-lru\n" in cache
    assert "appendonly no\n" in cache
    assert "maxmemory-policy noeviction\n" in queue
    assert "appendonly yes\nappendfsync everysec\n" in queue
    for text in (cache, queue):
        assert "bind 127.0.0.1 10.213.87.1\n" in text
        assert "protected-mode yes\n" in text
        assert 'save ""\n' in text


def test_nobody_gets_in_without_a_password_and_none_is_written_down_in_clear() -> None:
    lines = server.users_text(CACHE).splitlines()
    assert lines[0] == "user default off resetpass ~* &* +@all"
    assert lines[1].startswith(
        f"user notes on #{hashlib.sha256(b'a-long-password').hexdigest()} ~* &* +@all -@dangerous"
    )
    assert lines[2].endswith("-@all +ping +info")
    text = "".join(str(one.get("content")) for one in server.files([CACHE, QUEUE], LISTEN))
    assert "a-long-password" not in text
    assert "a-long-password" not in repr(CACHE)


def test_files_with_hashes_and_passwords_are_secret_and_for_redis_or_root_alone() -> None:
    for one in server.files([CACHE, QUEUE], LISTEN):
        if one.get("secret"):
            assert one["mode"] in ("0640", "0600")
    assert [one["path"] for one in server.files([CACHE], LISTEN) if one.get("secret")] == [
        CACHE.users_path,
        server.KNOWN,
    ]


def test_an_app_may_empty_its_cache_and_never_its_queue() -> None:
    assert "+flushdb" in server.users_text(CACHE)
    assert "+flushdb" not in server.users_text(QUEUE)


def test_a_server_writes_to_its_own_folder_alone_and_is_limited() -> None:
    text = server.drop_in_text(QUEUE)
    assert "ReadWritePaths=\nReadWritePaths=-/var/lib/redis/notes-queue\n" in text
    assert "MemoryMax=362M\n" in text
    assert "MemoryMax=90M\n" in server.drop_in_text(CACHE)


# -- what the apps are told ------------------------------------------------------------------------------------------


def app(*redis: str, **more: Any) -> dict[str, Any]:
    return {"name": "notes", "domains": [], "image": {}, "redis": list(redis), **more}


def sized(*redis: str) -> dict[str, Any]:
    servers = [{"app": "notes", "purpose": one, "maxmemory_mb": 64, "limit_mb": 90} for one in redis]
    return {"apps": {}, "redis": {"servers": servers}}


def test_the_first_purpose_is_redis_url_and_each_has_its_own_name() -> None:
    found = resolve([app("queue", "cache")], sized("queue", "cache"), VAULT, Network("10.0.0.1"))
    told = found["apps"][0]["secrets"]
    assert told["REDIS_URL"] == told["REDIS_QUEUE_URL"] == "redis://notes:" + "r%40%2Fd" * 6 + "@10.0.0.1:6501/0"
    assert told["REDIS_CACHE_URL"].endswith("@10.0.0.1:6500/0")
    assert "redis" not in found["apps"][0]
    assert [(one["purpose"], one["port"]) for one in found["redis"]] == [("queue", 6501), ("cache", 6500)]


def test_an_app_that_wants_none_is_told_nothing_and_an_absent_one_has_no_server() -> None:
    assert resolve([app()], sized(), VAULT)["redis"] == []
    gone = resolve([app("cache", state="absent")], sized(), {})
    assert gone["redis"] == []
    assert "REDIS_URL" not in gone["apps"][0]["secrets"]


def test_the_users_own_address_wins() -> None:
    found = resolve([app("cache", secrets={"REDIS_URL": "redis://elsewhere"})], sized("cache"), VAULT)
    assert found["apps"][0]["secrets"]["REDIS_URL"] == "redis://elsewhere"


def test_a_missing_and_a_short_password_are_told_apart() -> None:
    with pytest.raises(InputError, match="wants Redis, but the vault holds no password"):
        resolve([app("cache", database=False)], sized("cache"), {})
    with pytest.raises(InputError, match="redis_password has 5 characters"):
        resolve([app("cache", database=False)], sized("cache"), {"notes": {"redis_password": "short"}})


def test_no_two_servers_share_a_port_and_none_is_the_poolers() -> None:
    ports = [redis_port(index, purpose) for index in range(100) for purpose in ("cache", "queue")]
    assert len(set(ports)) == 200
    assert 6432 not in ports


# -- rules of the inventory ------------------------------------------------------------------------------------------


def texts(problems: Any) -> str:
    return "\n".join(str(problem) for problem in problems)


@pytest.mark.parametrize(
    ("redis", "expected"),
    [
        (["cahce"], "slipway_apps[0].redis[0]: 'cahce' is none of cache, queue. Did you mean 'cache'?"),
        ("cache", "write it as a list: [cache]"),
        (True, "expected a list"),
        (["cache", "cache"], "slipway_apps[0].redis[1]: 'cache' is listed twice"),
    ],
)
def test_a_misspelled_wish_is_refused_with_what_was_meant(redis: Any, expected: str) -> None:
    assert (
        expected.lower()
        in texts(check_values({"slipway_apps": [app() | {"redis": redis}], "vault_apps": VAULT})).lower()
    )


def test_a_wish_without_a_password_names_the_line_that_is_missing() -> None:
    assert "vault_apps.notes.redis_password is not set" in texts(check_redis([app("cache")], {"notes": {}}))
    assert texts(check_redis([app("cache")], VAULT)) == texts(check_redis([app("cache", state="absent")], {})) == ""


def test_redis_lives_beside_the_apps_or_nowhere() -> None:
    assert "later rung" in texts(check_redis_hosts({"app": ["web1"], "redis": ["cache1"]}))
    assert (
        texts(check_redis_hosts({"app": ["web1"], "redis": ["web1"]}))
        == texts(check_redis_hosts({"app": ["web1"]}))
        == ""
    )


def test_a_wish_without_a_place_names_the_group_and_the_playbook() -> None:
    text = texts(check_redis_wished({"app": ["web1"]}, [app("cache")]))
    assert "no host is in the group redis" in text
    assert "grow/add_redis.yml" in text
    assert texts(check_redis_wished({"app": ["web1"], "redis": ["web1"]}, [app("cache")])) == ""


def test_too_little_memory_for_its_servers_is_refused_with_the_least() -> None:
    assert "Give them 64 MB or more" in texts(check_redis([app("cache", "queue")], VAULT, 40))
    assert texts(check_redis([app("cache", "queue")], VAULT, 64)) == ""


def test_redis_own_user_is_no_name_for_an_app() -> None:
    assert "nobody may log in as" in texts(check_redis([app("cache", name="default")], {"default": VAULT["notes"]}))


# -- the proof, against a server of words ----------------------------------------------------------------------------


@dataclass
class Fake:
    """Answers as the servers would that ``servers`` describe; ``lax`` is a command that is let through."""

    servers: tuple[Server, ...]
    lax: tuple[str, ...] = ()
    open_to_all: bool = False
    policy: str = ""
    values: dict[str, str] = field(default_factory=dict)
    seen: list[list[str]] = field(default_factory=list)

    def __call__(self, argv: list[str], *, env: dict[str, str] | None = None, **_: Any) -> Outcome:
        self.seen.append(argv)
        port = int(argv[argv.index("-p") + 1])
        one = next(server for server in self.servers if server.port == port)
        user = argv[argv.index("--user") + 1] if "--user" in argv else ""
        words = argv[argv.index("--no-auth-warning") + 1 + (2 if user else 0) :]
        password = (env or {}).get("REDISCLI_AUTH", "")
        if password and (user, password) not in ((one.app, one.password), (server.WATCHER, one.watch_password)):
            return Outcome(tuple(argv), 1, "NOAUTH Authentication required.", "AUTH failed: WRONGPASS invalid username")
        if not password:
            return Outcome(tuple(argv), 0, "x" if self.open_to_all else "NOAUTH Authentication required.", "")
        return Outcome(tuple(argv), 0, self.answer(one, user, words), "")

    def answer(self, one: Server, user: str, words: list[str]) -> str:
        told = {"PING": "PONG", "ACL WHOAMI": user, "SET": "OK", "DEL": "1"}
        if words[0] == "SET":
            self.values[words[1]] = words[2]
        if words[0] == "GET":
            return self.values.get(words[1], "")
        if words[0] == "INFO":
            return (
                f"# Memory\nused_memory:1048576\nused_memory_rss:2\nmaxmemory:{one.maxmemory_mb * 2**20}\n"
                f"maxmemory_policy:{self.policy or one.policy}\naof_enabled:{int(one.kept)}\ndb0:keys=3,expires=0\ndb4:keys=2,expires=0"
            )
        if tuple(words) == self.lax:
            return "OK"
        return told.get(" ".join(words), told.get(words[0], "NOPERM User has no permissions"))


def prove(fake: Fake) -> list[str]:
    return probe.prove(fake.servers, LISTEN, runner=fake)


def test_servers_that_are_as_wished_are_proved_one_by_one() -> None:
    told = prove(Fake((CACHE, QUEUE, OTHER)))
    assert told[0] == "notes-cache: 64 MB, allkeys-lru, in memory alone; 11 dangerous commands and 4 strangers refused"
    assert "noeviction, kept on disk" in told[1]


def test_no_password_is_on_a_command_line() -> None:
    fake = Fake((CACHE, OTHER))
    prove(fake)
    assert not [argv for argv in fake.seen if "password" in " ".join(argv).replace("no-such-password", "")]


@pytest.mark.parametrize("words", probe.REFUSED)
def test_each_dangerous_command_that_is_let_through_is_found(words: tuple[str, ...]) -> None:
    with pytest.raises(RedisError, match=f"may use {words[0]} {words[1]}"):
        prove(Fake((CACHE,), lax=words))


def test_a_server_open_to_all_and_another_policy_are_found() -> None:
    with pytest.raises(RedisError, match="lets in without a password"):
        prove(Fake((CACHE,), open_to_all=True))
    with pytest.raises(RedisError, match="maxmemory_policy is allkeys-lru, expected noeviction"):
        prove(Fake((QUEUE,), policy="allkeys-lru"))


def test_another_app_with_the_same_user_rights_is_found() -> None:
    twin = Server("shop", "cache", 6502, 64, 90, CACHE.password)
    fake = Fake((Server("notes", "cache", 6500, 64, 90, CACHE.password), twin))
    told = prove(fake)  # the same password twice is no way in: the names differ
    assert "3 strangers" in told[0]


def test_a_full_queue_is_no_fault_of_its_setup_and_a_cache_that_refuses_is() -> None:
    full = "OOM command not allowed when used memory > 'maxmemory'."
    for one, good in ((QUEUE, True), (CACHE, False)):
        fake = Fake((one,))
        plain = fake.answer
        fake.answer = lambda s, u, w, plain=plain: full if w[0] == "SET" else plain(s, u, w)  # type: ignore[method-assign,misc]
        if good:
            assert len(prove(fake)) == 1
        else:
            with pytest.raises(RedisError, match="got: OOM"):
                prove(fake)


def test_from_within_a_container_its_own_network_is_used() -> None:
    fake = Fake((CACHE,))
    probe.prove([CACHE], LISTEN, inside={"notes": 4711}, runner=fake)
    within = [argv for argv in fake.seen if argv[0] == "nsenter"]
    assert within
    assert all(argv[1:4] == ["--target=4711", "--net", "--"] and "10.213.87.1" in argv for argv in within)


def test_a_server_that_does_not_answer_is_an_error_with_the_way_to_its_log() -> None:
    def silent(argv: list[str], **_: Any) -> Outcome:
        return Outcome(tuple(argv), 1, "", "Could not connect to Redis at 127.0.0.1:6500: Connection refused")

    with pytest.raises(RedisError, match=r"Connection refused.*journalctl"):
        Door("127.0.0.1", 6500, 0, silent).ask("PING")


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_keys_of_all_databases_are_counted() -> None:
    assert keys(parse_info("# Keyspace\ndb0:keys=12,expires=1,avg_ttl=0\ndb3:keys=5,expires=0\ndb_size:9")) == 17


def test_metrics_tell_what_is_down_and_hold_no_password(tmp_path: Path) -> None:
    path = tmp_path / "redis.json"
    path.write_text(server.known_text([CACHE, OTHER], LISTEN))
    known = ctl.known(path)
    seen = ctl.look(known, Fake((CACHE, OTHER)))
    seen[1].update(up=False, numbers={}, reason="gone")
    text = ctl.metrics.render(ctl.gauges(seen))
    assert 'slipway_redis_up{app="notes",purpose="cache"} 1' in text
    assert 'slipway_redis_up{app="shop",purpose="cache"} 0' in text
    assert 'slipway_redis_keys{app="notes",purpose="cache"} 5' in text
    assert 'slipway_redis_maxmemory_bytes{app="notes",purpose="cache"} 67108864' in text
    assert CACHE.watch_password not in text
    assert "DOWN" in ctl.line(seen[1])
    assert "1 % of 64 MB" in ctl.line(seen[0])
    assert ctl.known(tmp_path / "none.json") == {}
    assert "a-long-password" not in json.dumps(known)


# -- what goes -------------------------------------------------------------------------------------------------------


def test_what_is_left_over_is_ours_alone(tmp_path: Path) -> None:
    settings, data = tmp_path / "etc", tmp_path / "lib"
    settings.mkdir()
    (settings / "redis-notes-cache.conf").write_text(server.MANAGED)
    (settings / "redis-notes-queue.conf").write_text(server.MANAGED)
    (settings / "redis-mine.conf").write_text("port 7000\n")
    for name in ("notes-queue", "old-queue", "mine"):
        (data / name).mkdir(parents=True)
    found = retire.leftovers(["notes-cache"], settings, data)
    assert [(one.name, one.set_up, one.folder is not None) for one in found] == [
        ("notes-queue", True, True),
        ("old-queue", False, True),
    ]


def test_nothing_is_touched_in_a_dry_run_and_data_goes_only_when_released(tmp_path: Path) -> None:
    folder = tmp_path / "old-queue"
    folder.mkdir()
    left = [retire.Leftover("old-queue", False, folder)]
    assert retire.retire(left, keep=1, release=False) == []
    assert retire.retire(left, keep=1, release=True, dry_run=True) == ["old-queue: its data deleted"]
    assert folder.exists()
    retire.retire(left, keep=1, release=True)
    assert not folder.exists()
