"""How the site reads docstrings: an ``Example:`` is a section of examples, which griffe expects in the plural."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Give examples, and sources, the headings that are rendered as such."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Every module, class, function and attribute passes here before its docstring is parsed."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
