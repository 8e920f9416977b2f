# SPDX-License-Identifier: Apache-2.0
"""Point-in-time recovery by pgBackRest: base backups, WAL, drills to a second, restores."""
