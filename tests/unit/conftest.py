# SPDX-License-Identifier: Apache-2.0
"""Ansible's collection loader is put up before any test imports a plugin, as it is in real runs.

Otherwise the first test that needs it puts it up halfway, and plugins imported without it before break those after.
"""

from __future__ import annotations

from console.hosts import _load_plugins

_load_plugins()
