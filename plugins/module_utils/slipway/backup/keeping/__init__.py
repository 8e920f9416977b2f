# SPDX-License-Identifier: Apache-2.0
"""What a store holds, and what of it is kept."""
