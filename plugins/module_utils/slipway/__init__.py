# SPDX-License-Identifier: Apache-2.0
"""The Slipway library: one package for modules, filters, the agent on the server and the tests.

Relative imports only, no ``ansible`` import, the standard library alone at import time.
"""

from __future__ import annotations

__version__ = "0.1.0"
