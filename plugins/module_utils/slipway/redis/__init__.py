# SPDX-License-Identifier: Apache-2.0
"""Redis beside the apps: what its servers are told, and the proof that they run so."""
