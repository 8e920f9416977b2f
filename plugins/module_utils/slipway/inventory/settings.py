# SPDX-License-Identifier: Apache-2.0
"""Every setting a user may type under ``inventories/<name>/``: the single source of truth.

``inventory_check`` reads it to find misspelled and wrong settings; a test holds ``inventories/example/`` and
``fab init`` to it. The checks that need more than one value at a time are in ``rules``.
"""

from __future__ import annotations

from ..caddy.site import RATE_LIMIT
from ..deploy.spec import JOBS_MOST
from ..sizing.model import JOB_MEMORY_MB
from ..sizing.redis import PURPOSES
from .backup_settings import BACKUP_SETTINGS
from .network_rules import NETWORK_SETTINGS
from .schema import Field

ENVIRONMENTS = ("lab", "staging", "production")
TIERS = ("startup", "growth", "enterprise")
# Groups that playbooks know, and what a host in each does.
GROUPS = {
    "edge": "takes the public's traffic on 80 and 443 (Caddy)",
    "app": "runs the applications",
    "worker": "runs background jobs (the hosts of app, until a later rung)",
    "db": "runs PostgreSQL",
    "redis": "runs Redis for the apps (rung 2: the hosts of app)",
    "monitor": "runs Prometheus (a later rung)",
    "drill": "restores backups to prove them (the hosts of db, where it is empty)",
}
# A template that nobody filled in: refused wherever it stands.
PLACEHOLDER = "CHANGEME"

_TEXT_LIST = Field("list", "a list of words", items=Field("string", "a word"))

IMAGE = Field(
    "mapping",
    "where the application's image comes from",
    required=True,
    fields={
        "source": Field(
            "string",
            "registry (pulled by the host), build (a folder sent and built on the host) or ship (built or kept on "
            "this computer and sent over SSH)",
            required=True,
            choices=("registry", "build", "ship"),
        ),
        "name": Field("string", "the image's name without its tag", form="image_name"),
        "tag": Field(
            "string", "the image's tag; 'latest' is refused, since nobody can tell what it was", form="image_tag"
        ),
        "path": Field("string", "the folder with the Dockerfile, absolute or relative to the inventory"),
        "dockerfile": Field("string", "the Dockerfile's name within that folder", default="Dockerfile"),
        "build_args": Field(
            "mapping",
            "build arguments (they stay in the image's history: no secrets)",
            values=Field("scalar", "the argument's value"),
            keys="env_name",
        ),
        "target": Field("string", "the stage of the Dockerfile to build"),
    },
)

HEALTH = Field(
    "mapping",
    "the check that a new release must pass before it gets traffic",
    fields={
        "path": Field(
            "string", "answers 2xx when the app can serve, its database included", default="/healthz", form="url_path"
        ),
        "timeout": Field(
            "integer", "seconds a new release has until it must be healthy", default=60, minimum=1, maximum=3600
        ),
        "interval": Field("number", "seconds between two tries", default=0.3, minimum=0.1, maximum=60),
        "request_timeout": Field("number", "seconds that one answer may take", default=5, minimum=0.1, maximum=300),
        "successes": Field("integer", "good answers in a row that count as healthy", default=2, minimum=1, maximum=20),
    },
)

WATCH = Field(
    "mapping",
    "what counts as turning bad in the watched window; both must also be worse than before the switch",
    fields={
        "error_rate": Field("number", "share of 5xx answers that is too much", default=0.05, minimum=0, maximum=1),
        "p95_ms": Field(
            "number", "95th percentile of the response time in ms that is too much", default=1000, minimum=1
        ),
        "factor": Field("number", "how many times worse than before the switch counts as worse", default=2, minimum=1),
        "min_requests": Field("integer", "requests below which nothing is judged", default=20, minimum=1),
        "restarts": Field("integer", "restarts of its container that are too many", default=2, minimum=1),
    },
)

JOB = Field(
    "mapping",
    "one kind of background worker",
    fields={
        "name": Field("string", "its name: of its containers and of its log", required=True, form="app_name"),
        "command": Field(
            "list",
            "what runs in the application's own image: a list of words, no shell; it must keep running and wait for work",
            required=True,
            items=Field("scalar", "a word of the command"),
        ),
        "count": Field("integer", "in how many containers it runs", default=1, minimum=1, maximum=JOBS_MOST),
        "memory_mb": Field("integer", "memory limit of each container in MB", default=JOB_MEMORY_MB, minimum=32),
        "drain_seconds": Field(
            "integer",
            "seconds it has after SIGTERM to finish what it has in hand, before SIGKILL",
            default=30,
            minimum=0,
            maximum=3600,
        ),
    },
)

APP = Field(
    "mapping",
    "one application",
    fields={
        "name": Field(
            "string",
            "its name on the host: of containers, folders, the database and the database role",
            required=True,
            form="app_name",
        ),
        "domains": Field(
            "list",
            "the names it answers on; the first is the main one",
            required=True,
            items=Field("string", "a domain", form="domain"),
        ),
        "image": IMAGE,
        "port": Field("integer", "the port it listens on inside its container", default=8000, minimum=1, maximum=65535),
        "port_base": Field(
            "integer",
            "its stable port on the host, which the proxy dials; by default 18000 plus ten for each app before it",
            minimum=1024,
            maximum=65535,
        ),
        "database": Field("boolean", "give it a database and a role of its own, both named like the app", default=True),
        "extensions": Field(
            "list", "PostgreSQL extensions in its database", default=[], items=Field("string", "an extension")
        ),
        "redis": Field(
            "list",
            "what it wants of Redis: cache (the least used is evicted, nothing is kept over a restart) or queue "
            "(nothing is evicted, kept on disk), or both; each is a server of its own, REDIS_URL is the first",
            default=[],
            items=Field("string", "a purpose", choices=PURPOSES),
        ),
        "health": HEALTH,
        "release_command": Field(
            "list",
            "run once before each switch, in the new image: schema migrations; a list of words, no shell",
            items=Field("scalar", "a word of the command"),
        ),
        "release_timeout": Field(
            "integer", "seconds the release command may take", default=600, minimum=1, maximum=86400
        ),
        "workers": Field(
            "integer",
            "worker processes, handed to the app as WORKERS",
            default="auto",
            literals=("auto",),
            minimum=1,
            maximum=512,
        ),
        "concurrency": Field(
            "integer",
            "requests at once per worker, handed to the app as CONCURRENCY",
            default="auto",
            literals=("auto",),
            minimum=1,
            maximum=10000,
        ),
        "memory_mb": Field(
            "integer", "memory limit of its container in MB", default="auto", literals=("auto",), minimum=32
        ),
        "jobs": Field("list", "its background workers", default=[], items=JOB),
        "env": Field(
            "mapping",
            "environment variables that anyone may read",
            values=Field("scalar", "the variable's value"),
            keys="env_name",
        ),
        "secrets": Field(
            "mapping",
            "environment variables that nobody else may read: from vault.yml, by reference",
            values=Field("scalar", "the secret's value"),
            keys="env_name",
            secret=True,
        ),
        "drain_seconds": Field(
            "integer", "how long requests in flight may take after a switch", default=30, minimum=0, maximum=3600
        ),
        "watch_seconds": Field(
            "integer",
            "how long a new release is watched and rolled back when it turns bad",
            default=900,
            minimum=0,
            maximum=86400,
        ),
        "watch": WATCH,
        "command": Field(
            "list",
            "runs in place of the image's own command",
            default=[],
            items=Field("scalar", "a word of the command"),
        ),
        "stop_grace_seconds": Field(
            "integer", "seconds between SIGTERM and SIGKILL", default=20, minimum=0, maximum=3600
        ),
        "user": Field("string", "user within the container, where it shall not be the image's", default=""),
        "read_only": Field(
            "boolean", "read-only root file system (with a /tmp in memory): safer, not every image can", default=False
        ),
        "tmpfs": Field(
            "list", "folders in memory, such as /app/cache:size=64m", default=[], items=Field("string", "a folder")
        ),
        "volumes": Field(
            "list",
            "folders of the host or volumes, such as uploads:/data",
            default=[],
            items=Field("string", "a volume"),
        ),
        "cap_add": Field(
            "list",
            "kernel capabilities it needs; it has none otherwise",
            default=[],
            items=Field("string", "a capability"),
        ),
        "init": Field("boolean", "a small init as process 1, for images that leave zombies", default=False),
        "cpu_shares": Field(
            "integer",
            "share of processor time when it is short; everything else on the host has 1024",
            default=512,
            minimum=2,
            maximum=262144,
        ),
        "pids_limit": Field("integer", "processes and threads at most", default=1024, minimum=16),
        "rate_limit": RATE_LIMIT,
        "csp": Field("string", "its Content-Security-Policy header"),
        "headers": Field("mapping", "more response headers", values=Field("scalar", "the header's value")),
        "cors_origins": Field(
            "list",
            "other sites that may call it from a browser",
            default=[],
            items=Field("string", "an origin", form="origin"),
        ),
        "body_limit": Field("string", "largest request body", default="10MB", form="size"),
        "redirects": Field(
            "list",
            "more domains that redirect to the main one",
            default=[],
            items=Field("string", "a domain", form="domain"),
        ),
        "state": Field(
            "string", "absent takes the app away at the next run", default="present", choices=("present", "absent")
        ),
        "caddy_snippet": Field("string", "lines for its site block in the Caddyfile, checked before they land"),
    },
)

SETTINGS: dict[str, Field] = {
    "slipway_environment": Field("string", "what this inventory is: decides how careful playbooks are", required=True, choices=ENVIRONMENTS),
    "slipway_admin_user": Field("string", "the user you log in as; made on first contact, root's login is closed then", default="ops", form="user_name"),
    "slipway_admin_keys": Field(
        "list",
        "public SSH keys that may log in as that user",
        required=True,
        items=Field("string", "a public key", form="public_key"),
    ),
    "slipway_admin_email": Field("string", "where the certificate authority may write to", required=True, form="email"),
    "slipway_recovery_tier": Field(
        "string", "how soon you must be back and how much data may be lost: startup (4 h, 24 h), growth (1 h, 1 h), enterprise (15 min, none)",
        default="startup", choices=TIERS,
    ),
    "slipway_timezone": Field("string", "the hosts' time zone; logs are easier to compare in UTC", default="UTC", form="time_zone"),
    "slipway_acme_ca": Field("string", "another certificate authority's ACME directory; empty is Let's Encrypt", default="", literals=("",), form="https_url"),
    "slipway_acme_ca_root": Field("string", "file with the root certificate of that authority, where it is a private one", default=""),
    **BACKUP_SETTINGS,
    **NETWORK_SETTINGS,
    "slipway_apps": Field("list", "the applications", default=[], items=APP),
    "slipway_prices": Field(
        "mapping", "what a rung costs you a month, in your own words, in place of the figures that a climb shows (rung: text)",
        default={}, values=Field("scalar", "the price"),
    ),
    "slipway_redis_memory_mb": Field(
        "integer", "what all servers of Redis on a host may keep together, in MB; auto is 256, at most a quarter of what is left",
        default="auto", literals=("auto",), minimum=32, maximum=262144,
    ),
    "slipway_extra_variables": Field(
        "list", "names of your own variables, so that they are not taken for misspelled ones (a * at the end stands for the rest)",
        default=[], items=Field("string", "a variable name", form="variable_name"),
    ),
    "slipway_extra_groups": Field("list", "names of your own groups, likewise", default=[], items=Field("string", "a group")),
}  # fmt: skip

# What Ansible itself reads for a connection and that makes sense here. Passwords are not among them: keys only.
CONNECTION_VARIABLES = frozenset(
    f"ansible_{name}"
    for name in [
        "become",
        "become_exe",
        "become_flags",
        "become_method",
        "become_user",
        "connection",
        "host",
        "host_key_checking",
        "pipelining",
        "port",
        "python_interpreter",
        "remote_tmp",
        "ssh_args",
        "ssh_common_args",
        "ssh_control_path",
        "ssh_control_path_dir",
        "ssh_executable",
        "ssh_extra_args",
        "ssh_host_key_checking",
        "ssh_pipelining",
        "ssh_port",
        "private_key_file",
        "ssh_private_key_file",
        "ssh_retries",
        "ssh_timeout",
        "ssh_transfer_method",
        "ssh_user",
        "timeout",
        "user",
    ]
)
# Given on the command line (-e) to one playbook or another.
PLAYBOOK_VARIABLES = frozenset(
    {"app", "release", "tag", "bootstrap_close_door"}
    | {"backup", "database", "into", "tables", "over", "undo", "identity_file", "keep"}
    | {"to_time", "timeline", "climb_take_over"}
    | {"abort_uploads_days", "remove_hidden_days", "backup_keys_revoked"}
)
# Names an app cannot have: its database and role are named like it.
RESERVED_APP_NAMES = frozenset(
    {"postgres", "pgbouncer", "template0", "template1", "public", "none", "slipway", "root", "all", "replication"}
)
