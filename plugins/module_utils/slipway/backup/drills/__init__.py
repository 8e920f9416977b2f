# SPDX-License-Identifier: Apache-2.0
"""Restore drills: fetch, refill, check, judge, and evidence that stands."""
