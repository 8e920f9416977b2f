# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL and PgBouncer: the cluster, its settings, its roles and databases, the pooler in front."""
