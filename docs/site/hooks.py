"""What the site has that no page of docs/ is: notebooks, gallery, changelog; and formulas as MathML.

A new figure of ``paper_figs`` is on the site without a change here, and a new notebook needs a line in the navigation.
"""

import html
import inspect
import json
import re
from pathlib import Path

import latex2mathml.converter
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

from paper_figs.__main__ import FIGURES
from paper_figs.comparison import PUBLISHED
from paper_figs.figure import Figure

ROOT = Path(__file__).parents[2]
# What arithmatex makes of $..$ and $$..$$.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


@event_priority(50)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the rest of the repository."""
    pages: dict[str, str | bytes] = {
        "gallery.md": gallery(),
        "changelog.md": page_of("CHANGELOG.md"),
        "contributing.md": page_of(".github/CONTRIBUTING.md"),
    }
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        pages |= notebook(path)
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_content(content: str, /, **_: object) -> str:
    """Formulas in the browser's own language: no script, nothing to load, and screen readers read them aloud."""
    return FORMULA.sub(lambda match: mathml(match[3], display="block" if match[2] == "[" else "inline"), content)


def mathml(latex: str, display: str) -> str:
    """A formula of LaTeX, "inline" or "block"."""
    return latex2mathml.converter.convert(html.unescape(latex).strip(), display=display)


def page_of(path: str) -> str:
    """A file of the repository whose links lead to docs/."""
    return re.sub(r"\]\((\.\./)?docs/", "](", (ROOT / path).read_text(encoding="utf-8"))


def notebook(path: Path) -> dict[str, str | bytes]:
    """A notebook as it was executed: a page, and its pictures as files beside it."""
    text, resources = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4))
    pictures = {f"notebooks/{path.stem}/{name}": content for name, content in resources["outputs"].items()}
    for name in resources["outputs"]:
        text = text.replace(f"]({name})", f"]({path.stem}/{name})")
    title, _, rest = text.lstrip().partition("\n")
    note = f"*What `notebooks/{path.name}` of the repository gave when it was executed, cell by cell.*"
    return {f"notebooks/{path.stem}.md": f"{title}\n\n{note}\n{rest}"} | pictures


def gallery() -> str:
    """Every published figure."""
    head = (ROOT / "docs" / "site" / "gallery_head.md").read_text(encoding="utf-8")
    return "\n\n".join([head, *map(exhibit, FIGURES.values())])


def exhibit(figure: Figure) -> str:
    """A figure with its claim, the command that makes it, and the module that does."""
    module = Path(inspect.getfile(figure.compute))
    versions = json.loads((PUBLISHED / figure.name / f"{figure.name}.json").read_text())["versions"]
    source = "\n".join(f"    {line}".rstrip() for line in module.read_text(encoding="utf-8").splitlines())
    return f"""## {figure.name}

**{figure.claim}.** {(figure.about or "").splitlines()[0]}

[![{figure.claim}](gallery/{figure.name}.png){{ loading=lazy }}](gallery/{figure.name}.png)

```sh
{figure.sized().command}
```

??? example "The code: {module.relative_to(ROOT)}; published with jax {versions["jax"]} and Python {versions["python"]}"

    ```python
{source}
    ```
"""
