# SPDX-License-Identifier: Apache-2.0
"""Hypothesis without a deadline: examples of a year of backups take what a busy machine gives them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
