# SPDX-License-Identifier: Apache-2.0
"""How much of everything: from a host's RAM and cores to each setting of PostgreSQL, PgBouncer and the applications."""
