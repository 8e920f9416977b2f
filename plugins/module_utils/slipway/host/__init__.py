# SPDX-License-Identifier: Apache-2.0
"""The host below: its facts, its files and units, who reaches it, and the dead-man timer of risky changes."""
