# SPDX-License-Identifier: Apache-2.0
"""The catalog on a real PostgreSQL: what a dump and restore must leave the same, and every change that must show."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from slipway.backup import catalog
from slipway.backup import compare as c
from slipway.backup.manifest import Database, Table

Make = Callable[..., str]

# A bit of everything that has bitten content hashes, dumps or both.
RICH = r"""
CREATE SCHEMA app; CREATE SCHEMA "Odd.Schema";
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'it''s fine');
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE TABLE app.notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, mood app.mood, n app.positive,
  twice int GENERATED ALWAYS AS (n * 2) STORED, at timestamptz, took interval, f double precision, raw bytea, price money,
  tags text[], doc jsonb, doc_text json, fn regprocedure, x xml);
INSERT INTO app.notes (body, mood, n, at, took, f, raw, price, tags, doc, doc_text, fn)
  SELECT 'note ' || i, 'ok', i, '2026-01-01 12:00+02'::timestamptz + i * interval '1 hour', i * interval '1.5 day',
    i / 3.0, decode(md5(i::text), 'hex'), i::text::money, ARRAY['a', NULL, ''], jsonb_build_object('b', i, 'a', 1),
    '{"b": 1,  "a": 2}', 'pg_catalog.lower(text)'::regprocedure FROM generate_series(1, 50) i;
INSERT INTO app.notes (body) VALUES (NULL), (''), ('NULL'), ('dup'), ('dup'), (E'tab\tline\nquote"');
CREATE TABLE app.r (r text, "T" int); INSERT INTO app.r VALUES ('alias', 1);
CREATE TABLE app.empty (); CREATE TABLE app.hollow (); INSERT INTO app.hollow DEFAULT VALUES;
CREATE TABLE "Odd.Schema"."Ta""ble.x" ("Co.l""1" serial PRIMARY KEY, v int); INSERT INTO "Odd.Schema"."Ta""ble.x" (v) VALUES (1), (2);
CREATE TABLE app.dropped (a int, b int, c int); ALTER TABLE app.dropped DROP COLUMN a; INSERT INTO app.dropped VALUES (1, 2);
CREATE TABLE app.events (id bigint, day date, what text) PARTITION BY RANGE (day);
CREATE TABLE app.events_1 PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE app.events_2 (what text, day date, id bigint); ALTER TABLE app.events ATTACH PARTITION app.events_2 DEFAULT;
INSERT INTO app.events SELECT i, '2026-01-20'::date + i, 'e' FROM generate_series(1, 30) i;
CREATE TABLE app.parent (a int); CREATE TABLE app.child (b int) INHERITS (app.parent);
INSERT INTO app.parent VALUES (1); INSERT INTO app.child VALUES (2, 3);
ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY; ALTER TABLE app.notes FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON app.notes FOR SELECT USING (body <> 'dup');
CREATE UNLOGGED TABLE app.scratch (a int); INSERT INTO app.scratch VALUES (7);
CREATE INDEX notes_body ON app.notes (lower(body)) WHERE body IS NOT NULL;
CREATE STATISTICS app.st ON body, mood FROM app.notes;
CREATE VIEW app.v AS SELECT id, body FROM app.notes; CREATE MATERIALIZED VIEW app.mv AS SELECT count(*) FROM app.notes;
CREATE RULE nothing AS ON DELETE TO app.v DO INSTEAD NOTHING;
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON app.notes FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE AGGREGATE app.total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR app.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE SEQUENCE app.down INCREMENT -1; SELECT nextval('app.down'), nextval('app.down');
CREATE SEQUENCE app.unused START 42;
COMMENT ON COLUMN app.notes.body IS 'what the user wrote';
GRANT SELECT (body) ON app.notes TO PUBLIC; GRANT USAGE ON SCHEMA app TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC;
CREATE PUBLICATION p FOR TABLE app.events WITH (publish = 'insert');
SELECT lo_from_bytea(0, 'large object one'), lo_from_bytea(0, '');
"""


def connect(conninfo: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(conninfo, autocommit=True)


def run(conninfo: str, statements: str) -> None:
    with connect(conninfo) as conn:
        conn.execute(statements.encode())


def see(conninfo: str, **options: object) -> Database:
    with connect(conninfo) as conn, catalog.snapshot_of(conn, lock_timeout=2) as snapshot:
        return catalog.read_database(conn, snapshot, **options)  # type: ignore[arg-type]


def differences(was: Database, now: Database) -> list[c.Difference]:
    """Without what is different because the copy is another database: its name."""
    access = tuple(replace(a, name="db") if a.kind == "database" else a for a in now.access)
    before = replace(was, access=tuple(replace(a, name="db") if a.kind == "database" else a for a in was.access))
    return c.compare_database(before, replace(now, access=access))


@pytest.fixture(scope="module")
def template(postgres: str) -> Iterator[str]:
    """The rich database, made once and copied for each test; its name."""
    name = f"slipway_t_rich_{os.urandom(3).hex()}"
    run(f"{postgres} dbname=postgres", f"CREATE DATABASE {name}")
    run(f"{postgres} dbname={name}", RICH)
    yield name
    run(f"{postgres} dbname=postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def rich(new_database: Make, template: str) -> str:
    return new_database(f"TEMPLATE {template}")


def table(database: Database, name: str) -> Table:
    return next(each for each in database.tables if each.name == name)


def test_a_restored_dump_reads_exactly_as_its_source(rich: str, new_database: Make) -> None:
    if not shutil.which("pg_dump"):
        pytest.skip("no pg_dump here")
    copy = new_database()
    with connect(rich) as conn:
        _id, snapshot = catalog.hold(conn)
        sequences = catalog.read_sequences(conn)
        dump = subprocess.run(
            ["pg_dump", "-Fc", "-Z0", f"--snapshot={_id}", "-d", rich], capture_output=True, check=False
        )
        if b"server version mismatch" in dump.stderr:
            pytest.skip("this machine's pg_dump is older than the server")
        assert dump.returncode == 0, dump.stderr
        was = catalog.read_database(conn, snapshot, sequences=sequences)
        assert catalog.release(conn, snapshot, snapshot.at + timedelta(seconds=2)).held_ms == 2000
    subprocess.run(["pg_restore", "--exit-on-error", "-d", copy], input=dump.stdout, check=True)
    # The copy lies in another order on disk, and its sessions are set up by somebody with other habits.
    run(copy, "UPDATE app.dropped SET b = b; UPDATE app.notes SET body = body WHERE id < 9")
    run(copy, f"ALTER DATABASE {copy.rsplit('=', 1)[1]} SET timezone = 'Asia/Tokyo'")
    run(copy, f"ALTER DATABASE {copy.rsplit('=', 1)[1]} SET search_path = app, pg_catalog")
    now = see(copy)
    assert [d for d in differences(was, now) if d.kind != c.SETTING] == []
    assert {"app.down", "app.unused", "app.notes_id_seq", '"Odd.Schema"."Ta""ble.x_Co.l""1_seq"'} == {
        each.name for each in was.sequences
    }


def test_rows_are_counted_once_per_table_past_policies_and_inheritance(rich: str) -> None:
    seen = see(rich)
    rows = {each.name: each.rows for each in seen.tables}
    assert rows["app.notes"] == 56
    assert (rows["app.events_1"], rows["app.events_2"], rows["app.parent"], rows["app.child"]) == (11, 19, 1, 1)
    assert (rows["app.empty"], rows["app.hollow"], rows['"Odd.Schema"."Ta""ble.x"']) == (0, 1, 2)
    assert "app.events" not in rows
    assert seen.large_objects.count == 2
    assert seen.large_objects.bytes == len("large object one")
    assert any("materialised view app.mv" in line for line in seen.unchecked)
    assert {kind for kind, found in seen.schema.items() if not found} <= {
        "event trigger",
        "foreign server",
        "collation",
    }


def test_sequences_know_how_far_their_columns_are(rich: str) -> None:
    found = {each.name: each for each in see(rich).sequences}
    assert (found["app.notes_id_seq"].value, found["app.notes_id_seq"].column_furthest) == (56, 56)
    assert (found["app.down"].value, found["app.down"].increment) == (-2, -1)
    assert (found["app.unused"].value, found["app.unused"].called) == (42, False)
    assert found['"Odd.Schema"."Ta""ble.x_Co.l""1_seq"'].column_furthest == 2


@pytest.mark.parametrize(
    ("change", "kind", "subject"),
    [
        ("DELETE FROM app.notes WHERE id = 7", c.ROWS, "app.notes"),
        ("UPDATE app.notes SET body = '' WHERE body IS NULL", c.CONTENT, "app.notes"),
        ("UPDATE app.notes SET body = 'NULL' WHERE body IS NULL", c.CONTENT, "app.notes"),
        ("UPDATE app.notes SET f = f + 1e-12 WHERE id = 7", c.CONTENT, "app.notes"),
        ("UPDATE app.notes SET at = at + interval '1 us' WHERE id = 7", c.CONTENT, "app.notes"),
        ("UPDATE app.notes SET raw = raw || '\\x00' WHERE id = 7", c.CONTENT, "app.notes"),
        ("UPDATE app.notes SET body = 'note 2' WHERE id = 1; UPDATE app.notes SET body = 'note 1' WHERE id = 2",
         c.CONTENT, "app.notes"),
        ("DELETE FROM app.notes WHERE ctid = (SELECT max(ctid) FROM app.notes WHERE body = 'dup'); "
         "INSERT INTO app.notes (body) VALUES ('')", c.CONTENT, "app.notes"),
        ("UPDATE app.events SET day = day + 31 WHERE id = 1", c.ROWS, "app.events_1"),
        ("UPDATE app.child SET a = 9", c.CONTENT, "app.child"),
        ("ALTER INDEX app.notes_body RENAME TO other", c.SCHEMA, "index app.notes_body"),
        ("DROP TRIGGER touched ON app.notes", c.SCHEMA, "trigger app.notes.touched"),
        ("ALTER TABLE app.notes DISABLE TRIGGER touched", c.SCHEMA, "trigger app.notes.touched"),
        ("ALTER TYPE app.mood ADD VALUE 'new'", c.SCHEMA, "type app.mood"),
        ("CREATE OR REPLACE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
         c.SCHEMA, "function app.touch()"),
        ("DROP POLICY own ON app.notes", c.SCHEMA, "policy app.notes.own"),
        ("ALTER TABLE app.notes NO FORCE ROW LEVEL SECURITY", c.SCHEMA, "relation app.notes"),
        ("ALTER TABLE app.notes ALTER body SET DEFAULT 'x'", c.SCHEMA, "column app.notes.body"),
        ("DROP OPERATOR app.===(int, int)", c.SCHEMA, "other operator app.===(integer,integer)"),
        ("COMMENT ON COLUMN app.notes.body IS NULL", c.SCHEMA, "comment table column app.notes.body"),
        ("ALTER PUBLICATION p DROP TABLE app.events", c.SCHEMA, "publication p"),
        ("REVOKE SELECT (body) ON app.notes FROM PUBLIC", c.ACCESS, "column app.notes.body"),
        ("REVOKE EXECUTE ON FUNCTION app.touch() FROM PUBLIC", c.ACCESS, "function app.touch() grants"),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA app REVOKE SELECT ON TABLES FROM PUBLIC", c.ACCESS, "default privileges"),
        ("ALTER TABLE app.r OWNER TO pg_monitor", c.ACCESS, "relation app.r owner"),
        ("SELECT setval('app.notes_id_seq', 3)", c.SEQUENCE, "app.notes_id_seq"),
        ("SELECT setval('app.down', 1 - 2)", c.SEQUENCE, "app.down"),
        ("SELECT lo_put((SELECT min(oid) FROM pg_largeobject_metadata), 0, 'L')", c.LARGE_OBJECTS, "content"),
        ("CREATE TABLE app.more ()", c.TABLE, "app.more"),
    ],
)  # fmt: skip
def test_every_change_shows(rich: str, change: str, kind: str, subject: str) -> None:
    was = see(rich)
    run(rich, change)
    found = differences(was, see(rich))
    assert any(each.kind == kind and each.subject.startswith(subject) for each in found), [str(d) for d in found]


def test_the_order_of_rows_and_the_sessions_habits_do_not_matter(rich: str) -> None:
    was = see(rich)
    name = rich.rsplit("=", 1)[1]
    habits = {"datestyle": "German", "intervalstyle": "iso_8601", "extra_float_digits": "-15", "bytea_output": "escape",
              "timezone": "America/New_York", "search_path": "app, pg_catalog", "lc_monetary": "C.UTF-8"}  # fmt: skip
    run(rich, "; ".join(f"ALTER DATABASE {name} SET {key} = {value!r}" for key, value in habits.items()).replace(
        "'app, pg_catalog'", "app, pg_catalog"))  # fmt: skip
    run(rich, "CREATE INDEX i ON app.events_1 (id DESC); CLUSTER app.events_1 USING i; DROP INDEX app.i")
    run(rich, "UPDATE app.events_2 SET id = id")
    assert [d for d in differences(was, see(rich)) if d.kind != c.SETTING] == []


def test_what_is_written_after_the_snapshot_is_not_seen(rich: str) -> None:
    with connect(rich) as holder, connect(rich) as reader:
        identifier, snapshot = catalog.hold(holder)
        run(rich, "INSERT INTO app.r VALUES ('late', 2); CREATE TABLE app.late ()")
        catalog.join(reader, identifier)
        seen = catalog.read_database(reader, snapshot)
        reader.rollback()
    assert table(seen, "app.r").rows == 1
    assert see(rich) != seen
    assert table(see(rich), "app.r").rows == 2


def test_a_snapshot_whose_holder_is_gone_is_an_error_and_so_is_no_snapshot(rich: str) -> None:
    with connect(rich) as holder:
        identifier, _snapshot = catalog.hold(holder)
    with connect(rich) as reader:
        with pytest.raises(catalog.CatalogError, match="snapshot"):
            catalog.join(reader, identifier)
        reader.rollback()
        with pytest.raises(catalog.CatalogError, match="no snapshot id"):
            catalog.join(reader, "x'; DROP TABLE app.r; --")


def test_a_lock_held_by_somebody_is_named_and_not_waited_for_without_end(rich: str) -> None:
    with connect(rich) as blocker:
        blocker.execute("BEGIN")
        blocker.execute("LOCK TABLE app.notes IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(catalog.CatalogError, match="holds a lock"):
            see(rich)


def test_a_role_that_may_not_read_everything_gets_an_error_and_no_partial_picture(rich: str) -> None:
    with connect(rich) as conn:
        conn.execute("SET ROLE pg_monitor")
        with (
            pytest.raises(catalog.CatalogError, match="permission denied"),
            catalog.snapshot_of(conn) as snapshot,
        ):
            catalog.read_database(conn, snapshot)


def test_a_sampled_table_is_counted_whole_and_hashed_by_a_rule_that_survives_a_restore(rich: str) -> None:
    run(rich, "CREATE TABLE app.big (a int, b text, PRIMARY KEY (b, a)); "
        "INSERT INTO app.big SELECT i, 'k' || i FROM generate_series(1, 4000) i")  # fmt: skip
    was = table(see(rich, full_bytes=100_000), "app.big")
    assert was.sample is not None
    assert was.sample.key == ("b", "a")
    assert was.rows == 4000
    assert 0.7 < was.hashed * was.sample.modulus / 4000 < 1.3
    run(rich, "CLUSTER app.big USING big_pkey")
    rules = {"app.big": was.sample}
    assert table(see(rich, samples=rules), "app.big").content == was.content
    assert table(see(rich, samples=rules), "app.notes").sample is None


def test_the_sampling_rule_takes_the_smallest_power_of_two_that_fits_and_needs_a_key() -> None:
    assert catalog.sampling(100, ("id",), 100) is None
    assert catalog.sampling(10**6, (), 100) is None
    rule = catalog.sampling(1001, ("id",), 100)
    assert rule is not None
    assert (rule.modulus, str(rule)) == (16, "rows whose (id) hashes to 0 mod 16")


def test_the_sentinel_is_stamped_and_seen(rich: str) -> None:
    assert see(rich).sentinel is None
    with connect(rich) as conn:
        first = catalog.stamp(conn, "one")
        written = catalog.stamp(conn, "it's two")
    assert written.token == "it's two"
    assert written.at > first.at
    assert see(rich).sentinel == written


def test_an_extensions_own_table_counts_the_rows_a_dump_holds_and_its_members_are_left_out(rich: str) -> None:
    run(
        rich,
        """CREATE EXTENSION pg_trgm SCHEMA app;
        CREATE TABLE app.settings (name text, custom bool); INSERT INTO app.settings VALUES ('shipped', false), ('own', true);
        CREATE TABLE app.internals (a int); INSERT INTO app.internals VALUES (1);
        ALTER EXTENSION pg_trgm ADD TABLE app.settings; ALTER EXTENSION pg_trgm ADD TABLE app.internals;
        UPDATE pg_extension SET extconfig = ARRAY['app.settings'::regclass::oid], extcondition = ARRAY['WHERE custom']
        WHERE extname = 'pg_trgm'""",
    )
    seen = see(rich)
    assert ("pg_trgm", "app") in {(each.name, each.schema) for each in seen.extensions}
    assert not [name for name in seen.schema["function"] if "similarity" in name]
    assert table(seen, "app.settings").rows == 1
    assert "app.internals" not in {each.name for each in seen.tables}


def test_an_invalid_index_is_named_because_no_dump_holds_it(rich: str) -> None:
    run(rich, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.notes_body'::regclass")
    seen = see(rich)
    assert "app.notes_body" not in seen.schema["index"]
    assert "index app.notes_body: invalid, and therefore in no dump" in seen.unchecked


def test_the_cluster_shows_roles_without_secrets(rich: str) -> None:
    name = f"slipway_r_{rich.rsplit('_', 1)[1]}"
    run(rich, f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2' IN ROLE pg_monitor CONNECTION LIMIT 3;"
        f"ALTER ROLE {name} SET app.jwt_secret = 'hunter2'; ALTER ROLE {name} SET work_mem = '8MB'")  # fmt: skip
    try:
        with connect(rich) as conn:
            cluster = catalog.read_cluster(conn)
    finally:
        run(rich, f"DROP ROLE {name}")
    role = next(each for each in cluster.roles if each.name == name)
    assert role.attributes == ("INHERIT", "LOGIN", "CONNECTION LIMIT 3")
    assert role.member_of == ("pg_monitor",)
    assert "work_mem=8MB" in role.settings
    assert "hunter2" not in repr(cluster)
    assert cluster.bootstrap in {each.name for each in cluster.roles if "SUPERUSER" in each.attributes}
    assert cluster.version_num >= 140000
    assert cluster.system_identifier.isdigit()
