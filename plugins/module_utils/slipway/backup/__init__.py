# SPDX-License-Identifier: Apache-2.0
"""Backups that cannot lie: what to keep, what a backup holds, how it is streamed, stored, judged and evidenced.

``retention``, ``manifest``, ``compare``, ``argv``, ``streams``, ``verdict`` and ``evidence`` are pure; ``catalog`` reads
a live database, ``pipeline`` runs programs, ``store`` and ``s3`` move bytes.
"""
