# SPDX-License-Identifier: Apache-2.0
"""The private network between the hosts of one inventory: addresses, peers, and who may reach what."""
