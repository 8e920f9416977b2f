# SPDX-License-Identifier: Apache-2.0
"""``slipway.vps.program`` by the library that is on the host already."""

from __future__ import annotations

from ansible_collections.slipway.vps.plugins.plugin_utils.swift import SwiftModule as ActionModule

__all__ = ["ActionModule"]
