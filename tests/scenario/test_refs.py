import re

import pytest

from scenario.errors import ScenarioError
from scenario.refs import resolve

BUILTINS = {"join": "os.path:join", "cosine": "math:cos"}


def test_short_names_and_references_name_objects():
    import math
    import os.path

    assert resolve("join", BUILTINS) is os.path.join
    assert resolve("math:sin", BUILTINS) is math.sin
    assert resolve("os:path.join", BUILTINS) is os.path.join


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        (
            "cosin",
            "'cosin': is not a known name. Did you mean 'cosine'? Known are: cosine, join; or write module:attribute.",
        ),
        ("zzz", "'zzz': is not a known name. Known are: cosine, join; or write module:attribute."),
        ("a b:c", "'a b:c': is not a known name. Known are: cosine, join; or write module:attribute."),
        (
            "no_such_module_here:x",
            (
                "'no_such_module_here:x': there is no module no_such_module_here. Check the spelling, and that it is "
                "installed or in the folder you start from."
            ),
        ),
        (
            "os.no_such:x",
            (
                "'os.no_such:x': there is no module os.no_such. Check the spelling, and that it is installed or in the "
                "folder you start from."
            ),
        ),
        ("math:sine", "'math:sine': math has no sine. Did you mean 'sin'?"),
        ("math:qqqqqq", "'math:qqqqqq': math has no qqqqqq. Define qqqqqq there."),
    ],
)
def test_what_names_nothing_says_what_there_is(reference, line):
    with pytest.raises(ScenarioError, match=f"^{re.escape(f'reference: 1 problem{chr(10)}  {line}')}$"):
        resolve(reference, BUILTINS)


def test_a_module_that_fails_by_itself_is_not_said_to_be_missing(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        resolve("needs_more:x", {})


def test_where_only_parts_of_ones_own_can_be_named_no_known_name_is_spoken_of() -> None:
    with pytest.raises(ScenarioError, match=r"names nothing\. Write module:attribute, as in my_module:Something"):
        resolve("zzz", {})
