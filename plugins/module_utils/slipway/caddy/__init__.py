# SPDX-License-Identifier: Apache-2.0
"""Caddy: the sites it serves, how they are written, what proves that they answer."""
