"""What pages, README and notebooks have in common: code that readers copy, and links that they follow."""

import ast
import re
from pathlib import Path

OF_EVERY_NAMEDTUPLE = ("_asdict", "_replace")  # public, whatever they are called


def private_names(code: str) -> list[str]:
    """Names with a leading underscore that the code imports or reaches into."""
    names = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.ImportFrom():
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            case ast.Import():
                names += [alias.name for alias in node.names]
            case ast.Attribute():
                names.append(node.attr)
    return [name for name in names if any(map(_is_private, name.split(".")))]


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OF_EVERY_NAMEDTUPLE


def broken_links(page: Path) -> list[str]:
    """Targets of a page's links, of files and of its own headings, that are not there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = (re.sub(r"[^\w -]", "", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    headings = {title.lower().replace(" ", "-") for title in titles}
    broken = []
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        file, _, heading = target.partition("#")
        if not (page.parent / file).exists() or (heading and not file and heading not in headings):
            broken.append(target)
    return broken
