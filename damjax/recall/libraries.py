"""The documentation of installed libraries as a corpus: read from their source, importing none of them."""

import ast
import functools
import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

from damjax._checks import brief, check_count
from damjax.recall.embeddings import digest
from damjax.recall.texts import Corpus, Document, first_sentence, from_texts, own_half

__all__ = ["LIBRARIES", "PYTHON", "installed_libraries"]

PYTHON = "python"  # the standard library, whose documents are the topics of ``help()``
# What damjax needs brings them: with any installation there are ten agents, as many as the paper's network has.
LIBRARIES = (PYTHON, "numpy", "scipy", "matplotlib", "networkx", "jax", "optax", "chex", "PIL", "fontTools")

# Shorter ones say little: a name, or "See the base class."
SHORTEST_TITLE, SHORTEST_BODY = 15, 200
LONGEST_BODY = 2000  # characters that are kept; the longest topic has 60,000

# A definition at the top of a module, up to the next line that is not indented. Whole files take ten times as long to
# parse.
BLOCK = re.compile(r"^(?:def|class) ([A-Za-z]\w*).*(?:\n(?:[ \t)\]}#].*)?)*", re.MULTILINE)
IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+(\w+)[\w.]*[ \t]+import\b|import[ \t]+(\w+))", re.MULTILINE)
NOT_OWN = re.compile(r"^(tests?|testing|conftest|test_.*|.*_tests?|_vendor|externals|thirdparty)$")


def installed_libraries(libraries: tuple[str, ...] = LIBRARIES, *, max_documents: int = 64) -> Corpus:
    """The documentation of installed libraries: an agent holds one library.

    A document is a docstring, its first sentence the title, the rest, up to 2000 characters, the body; of the standard
    library it is a topic of Python's ``help()``. Functions and classes at the top of a module count, where they are
    called by a public name and have something to say. Where there are too many, those are taken whose names hash
    lowest: a fixed draw, that a new release of a library hardly changes. Titles and bodies are unique.

    Interest is who imports whom: half of an agent's is for its own library, the rest goes to the others in proportion
    to the number of its source files that import them; all is for its own where it imports none of them.

    Source files are read, and nothing is imported or downloaded, in some two seconds for the default; the answer
    depends on the installed versions alone, and is kept for the next call.

    Args:
        libraries: names by which they are imported, and "python" for the standard library; those that damjax itself
            needs by default.
        max_documents: of one library.

    Returns:
        A Corpus whose agents are the libraries.

    Raises:
        ValueError: a library that is not installed, or without documents; one that is named twice.

    Example:
        >>> corpus = installed_libraries(("python", "networkx", "optax"), max_documents=4)
        >>> corpus.names, np.bincount(corpus.holders).tolist(), (corpus.interests > 0).tolist()[0]
        (('python', 'networkx', 'optax'), [4, 4, 4], [True, False, False])
    """
    check_count("max_documents", max_documents)
    if not isinstance(libraries, tuple) or not libraries or len(set(libraries)) < len(libraries):
        raise ValueError(f"libraries must be a tuple of different names, but it is {brief(libraries)}")
    return _collect(libraries, max_documents)


@functools.cache
def _collect(libraries: tuple[str, ...], max_documents: int) -> Corpus:
    # The standard library imports no other, and its own source need not be read.
    sources = {name: {} if name == PYTHON else _sources(name) for name in libraries}
    texts: dict[str, list[Document]] = {}
    used: set[str] = set()
    for name, source in sources.items():
        documents = texts[name] = []
        for title, body in _topics() if name == PYTHON else _docstrings(source):
            if len(documents) == max_documents:
                break
            if title not in used and body not in used:
                used |= {title, body}
                documents.append((title, body))
        if not documents:
            raise ValueError(
                f"libraries must have documents, docstrings of a sentence and {SHORTEST_BODY} characters more in files"
                f" of Python, but {name!r} has none; leave it out"
            )
    corpus = from_texts(texts, interests=own_half(_imports(sources)))
    for array in (corpus.holders, corpus.interests):
        array.setflags(write=False)  # the next call gets the same
    return corpus


def _sources(name: str) -> dict[str, str]:
    """The text of a library's own files, by their path in it; tests and what it copies from others left out."""
    spec = importlib.util.find_spec(name) if isinstance(name, str) and name.isidentifier() else None
    if spec is None:
        raise ValueError(
            f"libraries must be installed, named as they are imported, or {PYTHON!r}, but {name!r} is not; install it,"
            f" or leave it out"
        )
    if spec.submodule_search_locations is None:
        files = [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []
        return {file.name: file.read_text(encoding="utf-8", errors="replace") for file in files}
    sources = {}
    for folder in map(Path, spec.submodule_search_locations):
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            if not any(map(NOT_OWN.match, parts)):
                sources["/".join(parts)] = file.read_text(encoding="utf-8", errors="replace")
    return sources


def _docstrings(sources: Mapping[str, str]) -> Iterator[Document]:
    """The documents of a library in the order of their hash."""
    definitions = {f"{path}:{block[1]}": block[0] for path, text in sources.items() for block in BLOCK.finditer(text)}
    for name in sorted(definitions, key=digest):
        title, body = first_sentence(_docstring(definitions[name]))
        if len(title) >= SHORTEST_TITLE and len(body) >= SHORTEST_BODY:
            yield title, body[:LONGEST_BODY]


def _docstring(definition: str) -> str:
    """Of one function or class; none where the text is no whole definition, as in a template."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in other people's strings
        try:
            (node,) = ast.parse(definition).body
        except SyntaxError:
            return ""
    return ast.get_docstring(node) or "" if isinstance(node, ast.FunctionDef | ast.ClassDef) else ""


def _topics() -> Iterator[Document]:
    """The topics of Python's ``help()``, in the order of their hash."""
    topics = import_module("pydoc_data.topics").topics
    for name in sorted(topics, key=digest):
        title, _, body = topics[name].strip().partition("\n")
        yield title, " ".join(body.lstrip("*=-\n").split())[:LONGEST_BODY]


def _imports(sources: Mapping[str, Mapping[str, str]]) -> np.ndarray:
    """How many source files of each library import each, (N, N)."""
    counts = np.zeros((len(sources), len(sources)))
    columns = {name: column for column, name in enumerate(sources)}
    for row, files in zip(counts, sources.values(), strict=True):
        for text in files.values():
            modules = {module for names in IMPORT.findall(text) for module in names if module}
            imported = {PYTHON if module in sys.stdlib_module_names else module for module in modules}
            row[[columns[name] for name in imported if name in columns]] += 1
    return counts
