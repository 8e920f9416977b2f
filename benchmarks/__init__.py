# SPDX-License-Identifier: Apache-2.0
"""Speed benchmarks on lab hosts: ``python -m benchmarks.site`` and ``python -m benchmarks.deploy``.

Each compares with its floor in the same run, prints a Markdown table, leaves JSON under .cache/benchmarks, and ends
with exit code 1 when a bound of the project is missed.
"""
