# SPDX-License-Identifier: Apache-2.0
"""The exact commands, and how tables are shared out over streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.backup import argv
from slipway.errors import InputError

SERVER = argv.Server("/run/pg", 5433, "backup")
INFO = "host='/run/pg' port='5433' user='backup' dbname='notes'"


def test_dump() -> None:
    assert argv.dump(SERVER, "notes", snapshot="0003-1B-1") == [
        "pg_dump", "--format=custom", "--compress=0", "--no-password", "--lock-wait-timeout=60s", "--snapshot=0003-1B-1",
        f"--dbname={INFO}",
    ]  # fmt: skip


def test_dump_of_one_stream_and_of_the_rest() -> None:
    one = argv.dump(SERVER, "notes", snapshot="1-1", section="data", tables=['public."Or.d*r"'], lock_wait=5)
    assert one[4:] == ["--lock-wait-timeout=5s", "--snapshot=1-1", "--section=data", '--table="public"."Or.d*r"',
                       f"--dbname={INFO}"]  # fmt: skip
    rest = argv.dump(SERVER, "notes", snapshot="1-1", section="data", without_data_of=["public.big"])
    assert rest[6:] == ["--section=data", '--exclude-table-data="public"."big"', f"--dbname={INFO}"]


def test_the_other_programs() -> None:
    assert argv.compress(3, 2) == ["zstd", "-q", "-3", "-T2", "-c"]
    assert argv.decompress() == ["zstd", "-q", "-d", "-c"]
    assert argv.encrypt("/etc/r") == ["age", "--encrypt", "--recipients-file", "/etc/r"]
    assert argv.decrypt("/run/id") == ["age", "--decrypt", "--identity", "/run/id"]
    assert argv.dump_globals(SERVER) == ["pg_dumpall", "--globals-only", "--no-password",
                                         f"--dbname={INFO.replace('notes', 'postgres')}"]  # fmt: skip
    assert argv.restore_globals(SERVER) == [
        "psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null",
        f"--dbname={INFO.replace('notes', 'postgres')}", "--file=-",
    ]  # fmt: skip


def test_restore_from_a_file_and_from_a_pipe() -> None:
    base = ["pg_restore", "--exit-on-error", "--no-password", f"--dbname={INFO}"]
    assert argv.restore(SERVER, "notes") == base
    assert argv.restore(SERVER, "notes", "/x/dump", jobs=2) == [*base, "--jobs=2", "/x/dump"]
    assert argv.restore(SERVER, "notes", tables=["a"], section="data") == [*base, "--section=data", "--table=a"]
    assert argv.restore(SERVER, "notes", create=True) == [*base, "--create"]
    with pytest.raises(InputError, match="several jobs"):
        argv.restore(SERVER, "notes", jobs=2)


@pytest.mark.parametrize(
    ("name", "written"),
    [("a b", "'a b'"), ("host=evil", "'host=evil'"), ("it's", r"'it\'s'"), ("back\\slash", r"'back\\slash'")],
)
def test_a_database_name_never_becomes_a_setting(name: str, written: str) -> None:
    assert SERVER.conninfo(name).endswith(f"dbname={written}")


@pytest.mark.parametrize("bad", ["notes", "a.b.c", 'a."b', "", ".a", "a."])
def test_a_name_that_is_not_qualified_is_refused(bad: str) -> None:
    with pytest.raises(InputError, match="no qualified table name"):
        argv.pattern(bad)


@pytest.mark.parametrize(("cores", "expected"), [(1, (1, 1)), (2, (1, 1)), (4, (1, 2)), (8, (1, 4)), (64, (1, 4))])
def test_compression_by_cores(cores: int, expected: tuple[int, int]) -> None:
    assert argv.compression(cores) == expected


@pytest.mark.parametrize("call", [lambda: argv.compression(0), lambda: argv.compress(20, 1),
                                  lambda: argv.dump(SERVER, "x", snapshot="1", section="all")])  # fmt: skip
def test_values_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]


def test_a_command_whose_output_goes_out_in_large_pieces_is_replaced_by_itself() -> None:
    assert argv.in_large_pieces(["/x/pg_dump", "-Fc"]) == ["stdbuf", "--output=256K", "/x/pg_dump", "-Fc"]


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 10**6), max_size=30), st.integers(0, 6))
def test_every_big_table_is_in_exactly_one_stream_and_the_streams_are_balanced(
    sizes: dict[str, int], count: int
) -> None:
    shares = argv.streams(sizes, count, smallest=100)
    named = [name for share in shares for name in share]
    big = {name for name, size in sizes.items() if size >= 100}
    assert sorted(named) == sorted(big if count else set())
    assert len(shares) <= count
    if shares and len(shares) == count:
        loads = [sum(sizes[name] for name in share) for share in shares]
        assert max(loads) - min(loads) <= max(sizes[name] for name in named)
