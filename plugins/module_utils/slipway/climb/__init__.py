# SPDX-License-Identifier: Apache-2.0
"""Climbs: from one shape of the system to the next, each in six phases that a crash does not break."""
