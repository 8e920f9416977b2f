# SPDX-License-Identifier: Apache-2.0
"""Backups that cannot lie: what a backup holds, how it is streamed, stored, judged and evidenced.

Here is what all parts share: the manifest and its comparison, settings, commands' argument lists, verdicts, metrics and
alarms. ``taking`` makes backups, ``stores`` keep them, ``keeping`` decides which stay, ``drills`` prove them,
``restores`` bring a database back, ``pitr`` goes back to a second.
"""
