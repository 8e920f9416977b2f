# SPDX-License-Identifier: Apache-2.0
"""A role's template as text, without a copy of every variable for each file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template

DOCUMENTATION = """
name: template
author: Slipway maintainers (@slipway)
version_added: "0.1.0"
short_description: Text of a template
description:
  - As M(ansible.builtin.template#lookup) with its defaults. That one makes a deep copy of all variables of the host for each file,
    which took a sixth of the time of a second run of C(site.yml), where some sixty files are looked at.
  - A template sees the variables themselves, and must change none of them.
options:
  _terms:
    description: Files of the role's folder C(templates).
    required: true
"""

EXAMPLES = """
- name: Configure the example service
  slipway.vps.managed_files:
    files:
      - path: /etc/example.conf
        content: "{{ lookup('slipway.vps.template', 'example.conf.j2') }}"
"""

RETURN = """
_raw:
  description: The texts.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """Opens no connection."""

    def run(self, terms: Sequence[str], variables: dict[str, Any] | None = None, **_kwargs: Any) -> list[str]:
        """The text of each template. Raises AnsibleLookupError on a file that is not there."""
        return [self._render(term, variables or {}) for term in terms]

    def _render(self, term: str, variables: dict[str, Any]) -> str:
        found = self.find_file_in_search_path(variables, "templates", term)
        if not found:
            raise AnsibleLookupError(f"There is no template {term} in the role's folder templates")
        templar = self._templar.copy_with_new_env(searchpath=[str(Path(found).parent)], available_variables=variables)
        source = trust_as_template(self._loader.get_text_file_contents(found))
        return str(templar.template(source, escape_backslashes=False))
