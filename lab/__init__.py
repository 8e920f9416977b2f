# SPDX-License-Identifier: Apache-2.0
"""Disposable VPSs on one machine: what bin/lab, bin/demo and the molecule scenarios stand on.

Standard library only: the lab runs before the virtual environment is made.
"""
