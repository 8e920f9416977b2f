# SPDX-License-Identifier: Apache-2.0
"""A backup being taken: the source, the dumps, the run and its record."""
