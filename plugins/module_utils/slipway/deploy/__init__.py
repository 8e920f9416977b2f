# SPDX-License-Identifier: Apache-2.0
"""Releases of applications: what is wished, what runs, and the way from one to the other without a lost request."""
