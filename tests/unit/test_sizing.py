# SPDX-License-Identifier: Apache-2.0
"""Sizing: the golden table, PostgreSQL's versions, overrides, and what is refused."""

from __future__ import annotations

import json
import pickle
from typing import NamedTuple

import pytest
from slipway.errors import InputError
from slipway.sizing.budget import DoesNotFitError, plan_ram_mb
from slipway.sizing.plan import DEDICATED, SHARED, AppShape, HostShape, Sizing, plan, size, size_from_facts

DISK = 80_000


class Golden(NamedTuple):
    """One cell of the table, in MB."""

    pool: int
    maintenance: int
    autovacuum: tuple[int, int]
    work_mem: int
    work_mem_without_pooler: int


# (cores, RAM): (shared_buffers, effective_cache_size, max_connections, shared, dedicated)
GOLDEN = {
    (1, 2048): (512, 1536, 50, Golden(8, 64, (2, 32), 8, 4), Golden(10, 128, (2, 64), 8, 4)),
    (2, 4096): (1024, 3072, 100, Golden(12, 128, (2, 64), 14, 4), Golden(16, 256, (2, 128), 32, 4)),
    (4, 8192): (2048, 6144, 200, Golden(20, 256, (3, 85), 19, 4), Golden(28, 512, (3, 170), 45, 4)),
    (8, 16384): (4096, 12288, 200, Golden(36, 512, (3, 170), 22, 4), Golden(52, 1024, (3, 341), 49, 11)),
    (16, 65536): (16384, 49152, 200, Golden(68, 2048, (3, 682), 54, 17), Golden(100, 2048, (3, 682), 64, 61)),
}
CELLS = [
    (shape, role, row[:3], row[3] if role == SHARED else row[4])
    for shape, row in GOLDEN.items()
    for role in (SHARED, DEDICATED)
]


@pytest.mark.parametrize(("shape", "role", "memory", "cell"), CELLS)
def test_every_cell_of_the_table_is_met_exactly(
    shape: tuple[int, int], role: str, memory: tuple[int, int, int], cell: Golden
) -> None:
    cores, ram = shape
    postgres = size(HostShape(ram, cores, DISK, role=role)).postgres
    assert (postgres.shared_buffers_mb, postgres.effective_cache_size_mb, postgres.max_connections) == memory
    assert postgres.active == cell.pool
    assert postgres.maintenance_work_mem_mb == cell.maintenance
    assert (postgres.autovacuum_workers, postgres.autovacuum_work_mem_mb) == cell.autovacuum
    assert postgres.work_mem_mb == cell.work_mem
    assert postgres.settings["work_mem"] == f"{cell.work_mem}MB"
    assert postgres.settings["shared_buffers"] == f"{memory[0]}MB"
    # plan(): without a pooler the smallest box does not fit beside an app, and size() rightly refuses it.
    assert (
        plan(HostShape(ram, cores, DISK, role=role, pooler=False)).postgres.work_mem_mb == cell.work_mem_without_pooler
    )


@pytest.mark.parametrize(
    ("cores", "measured", "ram"), [(1, 1967, 2048), (2, 3915, 4096), (4, 7751, 8192), (8, 15610, 16384)]
)
def test_a_real_vps_gets_the_settings_of_its_plan_and_is_told_so(cores: int, measured: int, ram: int) -> None:
    for role in (SHARED, DEDICATED):
        real = size(HostShape(measured, cores, DISK, role=role))
        assert real.settings == size(HostShape(ram, cores, DISK, role=role)).settings
        assert f"{measured} MB of RAM measured: taken as a plan of {ram} MB." in real.notes
        kept = [line.mb for line in real.budget.lines if line.name == "kept by firmware and kernel"]
        assert kept == [ram - measured]


def test_a_size_between_plans_is_taken_as_it_is() -> None:
    assert plan_ram_mb(5200) == 5200
    assert size(HostShape(5200, 2, DISK)).notes == ()


def test_the_other_settings_follow_the_table() -> None:
    settings = size(HostShape(8192, 4, 40_000)).settings
    expected = {
        "max_wal_size": "3200MB",
        "min_wal_size": "800MB",
        "max_slot_wal_keep_size": "4000MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "wal_compression": "lz4",
        "random_page_cost": "1.1",
        "effective_io_concurrency": "200",
        "max_worker_processes": "8",
        "max_parallel_workers_per_gather": "2",
        "autovacuum_vacuum_scale_factor": "0.05",
        "autovacuum_analyze_scale_factor": "0.02",
        "autovacuum_naptime": "30s",
        "huge_pages": "try",
        "jit": "off",
        "idle_in_transaction_session_timeout": "10min",
    }
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("cores", "role", "gather", "processes"),
    [(2, SHARED, 0, 8), (4, SHARED, 2, 8), (16, SHARED, 2, 16), (16, DEDICATED, 4, 16), (6, DEDICATED, 3, 8)],
)
def test_parallel_workers_follow_cores_and_neighbours(cores: int, role: str, gather: int, processes: int) -> None:
    settings = size(HostShape(16384, cores, DISK, role=role)).settings
    assert settings["max_parallel_workers_per_gather"] == str(gather)
    assert settings["max_worker_processes"] == str(processes)


def test_wal_stays_within_4_gb_however_large_the_disk() -> None:
    postgres = size(HostShape(8192, 4, 500_000)).postgres
    assert (postgres.max_wal_size_mb, postgres.min_wal_size_mb) == (4096, 1024)


@pytest.mark.parametrize(
    ("major", "present", "absent"),
    [
        (13, {"wal_compression": "on", "effective_io_concurrency": "200"}, {"io_method"}),
        (15, {"wal_compression": "lz4", "effective_io_concurrency": "200"}, {"io_method"}),
        (17, {"wal_compression": "lz4", "effective_io_concurrency": "200"}, {"io_method"}),
        (18, {"wal_compression": "lz4", "io_method": "worker"}, {"effective_io_concurrency"}),
    ],
)
def test_each_major_gets_only_what_it_knows(major: int, present: dict[str, str], absent: set[str]) -> None:
    settings = size(HostShape(4096, 2, DISK, postgres_major=major)).settings
    assert present.items() <= settings.items()
    assert not absent & settings.keys()


@pytest.mark.parametrize("major", [12, 19])
def test_an_unknown_major_is_refused(major: int) -> None:
    with pytest.raises(InputError, match=f"PostgreSQL {major}"):
        HostShape(4096, 2, DISK, postgres_major=major)


# -- apps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "ram", "workers", "concurrency", "pool"),
    [(1, 2048, 1, 100, (10, 20)), (2, 4096, 2, 100, (15, 30)), (4, 8192, 4, 200, (15, 30))],
)
def test_one_app_gets_the_users_own_figures(
    cores: int, ram: int, workers: int, concurrency: int, pool: tuple[int, int]
) -> None:
    app = size(HostShape(ram, cores, DISK)).apps[0]
    assert (app.workers, app.concurrency) == (workers, concurrency)
    assert (app.client_pool, app.client_overflow) == pool
    assert app.max_requests == workers * concurrency


def test_several_apps_share_cores_memory_and_pool() -> None:
    shapes = (AppShape("notes"), AppShape("shop", workers=3, memory_mb=700), AppShape("site", database=False))
    sizing = size(HostShape(8192, 4, DISK, apps=shapes))
    notes, shop, site = sizing.apps
    assert (notes.workers, shop.workers, site.workers) == (2, 3, 2)
    assert shop.memory_mb == 700
    assert notes.memory_mb == site.memory_mb > 700
    assert sizing.pgbouncer is not None
    assert notes.server_pool + shop.server_pool == sizing.pgbouncer.pool_size == 20
    assert (site.server_pool, site.session_pool, site.client_pool, site.client_overflow) == (0, 0, 0, 0)


def test_the_second_colour_of_the_largest_app_is_in_the_budget() -> None:
    shapes = (AppShape("small", memory_mb=200), AppShape("large", memory_mb=900))
    budget = size(HostShape(8192, 4, DISK, apps=shapes)).budget
    assert budget.group_mb("apps") == 200 + 900 + 900


def test_an_app_with_many_workers_does_not_starve_its_neighbour() -> None:
    shapes = (AppShape("busy", workers=4), AppShape("calm", workers=1))
    sizing = size(HostShape(2600, 2, DISK, apps=shapes))
    busy, calm = sizing.apps
    assert busy.memory_mb >= 128 + 3 * 96
    assert calm.memory_mb >= 128
    assert sizing.budget.fits


def test_a_small_box_with_many_cores_gets_fewer_workers_and_pool_and_is_told_why() -> None:
    sizing = size(HostShape(2048, 16, DISK))
    assert sizing.apps[0].workers < 16
    assert sizing.pgbouncer is not None
    assert sizing.pgbouncer.pool_size < 68
    assert any("instead of 16 workers" in note for note in sizing.notes)
    assert any("instead of 68 by cores" in note for note in sizing.notes)


def test_client_pools_shrink_when_the_pooler_admits_few() -> None:
    app = size(HostShape(8192, 4, DISK), {"max_client_conn": 100}).apps[0]
    admitted = 100 - 20 - 10
    assert app.workers * (app.client_pool + app.client_overflow) * 2 <= admitted
    assert app.client_pool >= 1


def test_more_workers_than_admitted_clients_are_refused() -> None:
    shape = HostShape(8192, 4, DISK, apps=(AppShape("app", workers=40, memory_mb=1000),))
    with pytest.raises(InputError, match=r"40 app workers share 70 client connections.*raise max_client_conn"):
        size(shape, {"max_client_conn": 100})


def test_two_apps_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="Two apps are called 'notes'"):
        HostShape(4096, 2, DISK, apps=(AppShape("notes"), AppShape("notes")))


def test_a_dedicated_host_has_nothing_but_the_database_in_its_budget() -> None:
    sizing = size(HostShape(8192, 4, DISK, role=DEDICATED))
    assert sizing.apps == ()
    assert {line.group for line in sizing.budget.lines} == {"system", "postgres"}


def test_redis_takes_256_mb_and_at_most_a_quarter_of_what_is_left() -> None:
    assert size(HostShape(8192, 4, DISK, redis=True)).redis_maxmemory_mb == 256
    without, beside = size(HostShape(2048, 1, DISK)), size(HostShape(2048, 1, DISK, redis=True))
    left = without.budget.group_mb("apps") + without.budget.free_mb
    assert beside.redis_maxmemory_mb == left // 4
    assert size(HostShape(8192, 4, DISK, redis=True), {"redis_maxmemory": "1GB"}).redis_maxmemory_mb == 1024
    assert size(HostShape(8192, 4, DISK)).redis_maxmemory_mb is None


# -- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ram", "cores"), [(474, 1), (981, 1), (1024, 2)])
def test_half_a_gigabyte_and_one_are_refused_with_the_plan_that_would_do(ram: int, cores: int) -> None:
    with pytest.raises(DoesNotFitError, match="take a plan of 2048 MB") as caught:
        size(HostShape(ram, cores, DISK))
    assert caught.value.budget.total_mb > caught.value.budget.ram_mb
    assert "\n" not in str(caught.value)


def test_one_gigabyte_fits_a_lone_database_that_is_told_to_be_small() -> None:
    small = {"shared_buffers": "128MB", "pool_size": 5, "maintenance_work_mem": "32MB"}
    assert size(HostShape(981, 1, DISK, role=DEDICATED), small).budget.fits


def test_each_way_out_that_is_offered_works() -> None:
    host = HostShape(2048, 1, DISK, pooler=False)
    with pytest.raises(DoesNotFitError, match="take a plan of 4096 MB, or use the pooler"):
        size(host)
    assert size(HostShape(4096, 1, DISK, pooler=False)).budget.fits
    assert size(HostShape(2048, 1, DISK)).budget.fits


@pytest.mark.parametrize(
    ("host", "overrides", "remedy"),
    [
        (
            HostShape(8192, 4, DISK),
            {"work_mem": "64MB", "shared_buffers": "4GB"},
            "your own figures (shared_buffers, work_mem)",
        ),
        (
            HostShape(2048, 1, DISK, apps=(AppShape("notes", memory_mb=900),)),
            None,
            "lower workers or memory_mb of notes",
        ),
        (
            HostShape(2048, 1, DISK, apps=tuple(AppShape(f"a{i}") for i in range(9))),
            None,
            "put fewer apps on this host",
        ),
        (HostShape(2048, 1, DISK, redis=True, apps=(AppShape("notes", memory_mb=300),)), None, "leave Redis out"),
    ],
)
def test_the_refusal_names_what_to_change(host: HostShape, overrides: dict[str, object] | None, remedy: str) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        size(host, overrides)
    assert remedy in caught.value.remedy


def test_a_user_who_insists_gets_the_sizing_with_a_warning() -> None:
    sizing = size(HostShape(981, 1, DISK), allow_overcommit=True)
    assert not sizing.budget.fits
    assert any("the kernel will kill processes" in text for text in sizing.warnings)


@pytest.mark.parametrize("shape", [(0, 1, DISK), (2048, 0, DISK)])
def test_a_host_without_ram_or_cores_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="The host reports"):
        HostShape(*shape)


def test_a_disk_too_small_is_refused() -> None:
    with pytest.raises(InputError, match=r"The disk has 4000 MB.*at least 6144 MB.*larger disk"):
        HostShape(2048, 1, 4000)


# -- from facts, to data ---------------------------------------------------------------------------------------------

FACTS = {"ram_mb": 3915, "cores": 2, "disk_total_mb": 40_000, "postgres_major": None}


def test_facts_and_an_inventorys_apps_make_a_host() -> None:
    apps = [
        {"name": "notes", "workers": "auto", "memory_mb": "300", "domains": ["notes.example.com"]},
        {"name": "gone", "state": "absent"},
    ]
    sizing = size_from_facts(FACTS, apps=apps)
    assert sizing.host == HostShape(3915, 2, 40_000, apps=(AppShape("notes", memory_mb=300),))


@pytest.mark.parametrize("app", [{"name": "notes", "workers": "some"}, {"name": "notes", "memory_mb": 0}, {"port": 80}])
def test_an_app_that_cannot_be_is_refused(app: dict[str, object]) -> None:
    with pytest.raises(InputError):
        size_from_facts(FACTS, apps=[app])


def test_missing_facts_are_named() -> None:
    with pytest.raises(InputError, match=r"lack cores, disk_total_mb.*host_info"):
        size_from_facts({"ram_mb": 2048})


def _sizing() -> Sizing:
    return size(HostShape(3915, 2, DISK, redis=True, apps=(AppShape("notes"), AppShape("shop"))), {"work_mem": "16MB"})


def test_a_sizing_becomes_plain_data() -> None:
    sizing = _sizing()
    data = json.loads(json.dumps(sizing.to_dict()))
    assert data["postgres"]["settings"] == dict(sizing.settings)
    assert data["apps"]["shop"]["server_pool"] == 6
    assert data["budget"]["total_mb"] == sum(line["mb"] for line in data["budget"]["lines"])
    assert data["warnings"] == list(sizing.warnings)


def test_a_refusal_survives_being_sent_between_processes() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        size(HostShape(981, 1, DISK))
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (str(again), again.budget) == (str(caught.value), caught.value.budget)
