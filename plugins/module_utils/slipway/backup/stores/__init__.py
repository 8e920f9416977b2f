# SPDX-License-Identifier: Apache-2.0
"""Where backups lie: a folder or a bucket, with the keys that may do no more than they must."""
