# SPDX-License-Identifier: Apache-2.0
"""A database brought back: beside the live one, in its place, or table by table."""
