"""Documentation of libraries: of a made-up one, whose every line is known, and of what is installed."""

import itertools
import re
import sys

import numpy as np
import pytest

from damjax.recall.libraries import LIBRARIES, installed_libraries

BODY = "It says what there is to say, in a few words more than one would think. " * 4


def definition(number, title="Explain the thing that has the number", kind="def"):
    head = f"def thing_{number}():" if kind == "def" else f"class Thing{number}(object):"
    return f'{head}\n    """{title} {number}.\n\n    {BODY}{number}\n    """\n'


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Write packages, which must not be imported: ``library(name, {path: text})``."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, files):
        for path, text in {"__init__.py": "", **files}.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"raise RuntimeError('imported')\n{text}")

    return write


def test_documents_are_docstrings_of_what_is_public_and_says_something(library):
    library(
        "lib_words",
        {
            "one.py": definition(0) + definition(1, kind="class") + definition(2).replace("thing", "_thing"),
            "sub/two.py": f"@decorated\n{definition(3)}\nif True:\n    def thing_4():\n        '''{BODY} {BODY}'''\n",
            "sub/three.py": definition(5, title="Short").replace("5.", "."),  # a title of six letters
            "sub/four.py": f'def thing_6():\n    """{BODY}"""\n'.replace(" It", " it") + "def thing_7(): pass\n",
            "sub/five.py": f"{definition(8)}this is {{no}} Python\n",
            "sub/six.py": 'def {name}(x):\n    """A template of something"""\n',
            "tests/test_it.py": definition(9),
            "conftest.py": definition(10),
        },
    )
    corpus = installed_libraries(("lib_words",))
    expected = {f"Explain the thing that has the number {number}." for number in (0, 1, 3, 8)}
    assert set(corpus.titles) == expected
    for title, body in zip(corpus.titles, corpus.bodies, strict=True):
        assert body == f"{BODY}{title.split()[-1][:-1]}"
    assert corpus.interests.tolist() == [[1.0]]
    assert "lib_words" not in sys.modules


def test_a_title_or_body_counts_once(library):
    library("lib_first", {"one.py": definition(0) + definition(1)})
    library("lib_second", {"one.py": definition(1) + definition(2)})
    corpus = installed_libraries(("lib_first", "lib_second"))
    assert sorted(corpus.titles[:2] + corpus.titles[2:]) == sorted(set(corpus.titles))
    assert corpus.holders.tolist() == [0, 0, 1]
    assert corpus.titles[2].endswith("2.")


def test_a_new_release_hardly_changes_the_draw(library):
    """Ten of eighty documents are drawn; each further one takes the place of one of them at most, and some do."""
    releases = []
    for size in range(80, 101):
        library(f"lib_{size}", {"one.py": "".join(map(definition, range(size)))})
        releases.append(installed_libraries((f"lib_{size}",), max_documents=10).titles)
    assert {len(titles) for titles in releases} == {10}
    changes = [len(set(new) - set(old)) for old, new in itertools.pairwise(releases)]
    assert max(changes) == 1
    assert sum(changes) < 10


def test_interest_is_who_imports_whom(library):
    library("lib_base", {"one.py": definition(0)})
    library("lib_user", {
        "one.py": "import lib_base\nimport os\nimport lib_user.two\n" + definition(1),
        "two.py": "from lib_base.one import thing\nfrom lib_base import one\n",
        "three.py": "def f():\n    import lib_base as base\n# import lib_other\n",
        "four.py": "import json, re\nfrom .lib_base import x\nimport lib_based\n",
        "test_five.py": "import lib_base\n",
    })  # fmt: skip
    library("lib_other", {"one.py": "import collections.abc\n" + definition(2)})
    corpus = installed_libraries(("python", "lib_base", "lib_user", "lib_other"), max_documents=3)
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0.5 * 2 / 5, 0.5 * 3 / 5, 0.5, 0], [0.5, 0, 0, 0.5]]
    np.testing.assert_allclose(corpus.interests, expected, rtol=1e-12)


def test_the_default_needs_nothing_but_what_damjax_needs():
    corpus = installed_libraries()
    assert corpus.names == LIBRARIES
    assert len(LIBRARIES) == 10
    counts = np.bincount(corpus.holders)
    assert counts.max() == 64
    assert counts.min() >= 32
    assert len(set(corpus.titles)) == len(set(corpus.bodies)) == len(corpus.titles)
    assert max(map(len, corpus.bodies)) == 2000
    np.testing.assert_allclose(corpus.interests.sum(axis=1), 1, rtol=1e-12)
    weight = dict(zip(LIBRARIES, corpus.interests.T, strict=True))
    scipy, optax = LIBRARIES.index("scipy"), LIBRARIES.index("optax")
    assert weight["numpy"][scipy] > 0.1
    assert weight["jax"][optax] > 0.1
    assert weight["optax"][scipy] == 0
    assert installed_libraries() is corpus
    with pytest.raises(ValueError, match="read-only"):
        corpus.holders[0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"libraries": ("no_such_library",)},
            "libraries must be installed, named as they are imported, or 'python', but",
        ),
        ({"libraries": ("scikit-learn",)}, "but 'scikit-learn' is not; install it, or leave it out"),
        ({"libraries": ("math",)}, "but 'math' has none; leave it out"),
        ({"libraries": ["numpy"]}, "libraries must be a tuple of different names, but it is ['numpy']"),
        ({"libraries": ("numpy", "numpy")}, "libraries must be a tuple of different names"),
        ({"libraries": ()}, "libraries must be a tuple of different names"),
        ({"max_documents": 0}, "max_documents must be a positive integer"),
    ],
)
def test_bad_libraries(untyped, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        installed_libraries(**arguments)
