# SPDX-License-Identifier: Apache-2.0
"""Notes: a small service with a database, for Slipway's demo and tests."""
