# SPDX-License-Identifier: Apache-2.0
"""What a user types: the inventory's settings, the rules they keep, what a host must have for them."""
