# SPDX-License-Identifier: Apache-2.0
"""Speed benchmarks on lab hosts: ``python -m benchmarks.site`` and ``python -m benchmarks.deploy``.

Each compares with its floor in the same run, prints a Markdown table, leaves JSON under .cache/benchmarks, and ends
with exit code 1 when a bound of the project is missed.
"""

import sys
from pathlib import Path

# The lab stands on the library, which Ansible and pytest find by their own settings.
_LIBRARY = str(Path(__file__).resolve().parent.parent / "plugins" / "module_utils")
if _LIBRARY not in sys.path:
    sys.path.append(_LIBRARY)
