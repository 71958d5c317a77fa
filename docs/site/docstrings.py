"""How the site reads docstrings: what Markdown or griffe would take for something else is said in their words."""

import re
from typing import Any

import griffe

CODE = re.compile(r"(``.*?``)")


class Examples(griffe.Extension):
    """An ``Example:`` is a section of examples, which griffe expects in the plural; <x, y> is no tag of HTML."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Every module, class, function and attribute passes here before its docstring is parsed."""
        if obj.docstring:
            parts = re.split(r"(\n{2,})", obj.docstring.value)
            text = "".join(part if is_code(part) else escape(part) for part in parts)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def is_code(paragraph: str) -> bool:
    """Formulas, which are indented, and examples."""
    return paragraph.startswith("Example:") or all(line.startswith("    ") for line in paragraph.splitlines())


def escape(paragraph: str) -> str:
    """What would be a tag, or in a table the border of a cell, outside of code."""
    if paragraph.startswith("|"):
        paragraph = paragraph.replace("||", "&#124;&#124;")
    words = CODE.split(paragraph)
    return "".join(word if CODE.fullmatch(word) else re.sub(r"<(?=[a-zA-Z])", "&lt;", word) for word in words)
