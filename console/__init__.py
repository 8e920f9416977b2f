# SPDX-License-Identifier: Apache-2.0
"""The operator's console: what stands behind ``fab``. It looks at servers and never changes them.

``init`` writes a new inventory on this computer; everything else reads.
"""
