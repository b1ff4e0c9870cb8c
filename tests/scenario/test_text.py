import json

import pytest

from scenario import text
from scenario.errors import ScenarioError
from tests.scenario.files import problems_of_text


def yaml_value(source: str):
    value, problems = text.parse(f"v: {source}".encode(), "x.yaml")
    assert problems == []
    return value["v"]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("0", 0),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5e-3", -0.0015),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("text", "text"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_yaml_values_are_what_they_look_like(source, value):
    assert yaml_value(source) == value
    assert type(yaml_value(source)) is type(value)


@pytest.mark.parametrize(
    "source",
    ["yes", "no", "on", "off", "1:30", "010", "0x10", "0o17", "1_000", "2024-01-01", "True", "=", "1e", "1" * 41],
)
def test_what_other_yaml_readers_turn_into_something_else_stays_text(source):
    assert yaml_value(source) == source


@pytest.mark.parametrize(("source", "shown"), [(".inf", "inf"), ("-.Inf", "-inf"), (".NaN", "nan")])
def test_yaml_non_finite_numbers_are_read_and_refused_where_they_stand(source, shown):
    line = f"base_config.total_users: is the number {shown}, not a whole number. Write a whole number such as 5."
    assert line in problems_of_text(f"rl_training_scenarios: {{base_config: {{total_users: {source}}}}}")


def test_json_and_yaml_of_the_same_values_are_the_same():
    values = {"a": [1, 2.5, "x", None, True], "b": {"c": -1e-3}}
    as_json = json.dumps(values).encode()
    assert text.parse(as_json, "x.json") == text.parse(as_json, "x.yaml") == (values, [])


def test_a_byte_order_mark_does_not_matter():
    assert text.parse(b"\xef\xbb\xbfa: 1", "x.yaml") == text.parse(b'\xef\xbb\xbf{"a": 1}', "x.JSON") == ({"a": 1}, [])


@pytest.mark.parametrize("origin", ["x.yaml", "x.json"])
@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"", "the whole file: is empty. Start from a file in configs/."),
        (b"\xff\xfe", "the whole file: is not UTF-8 (byte 0). Save it as UTF-8."),
        (
            b"#" * (text.LARGEST_BYTES + 1),
            "the whole file: is larger than 1048576 bytes. Split it into several files, one scenario each.",
        ),
    ],
)
def test_a_file_that_cannot_be_read_at_all_says_why(raw, line, origin):
    with pytest.raises(ScenarioError) as caught:
        text.parse(raw, origin)
    assert str(caught.value) == f"{origin}: 1 problem\n  {line}"


DEEP = "is nested more than 32 levels deep. A scenario file has 6; remove the nesting."
SYNTAX = "Correct the syntax there or just before it."
NOT_READ = "anchors and aliases are not read here"


@pytest.mark.parametrize(
    ("source", "origin", "line"),
    [
        (
            "a:\n\tb: 1",
            "x.yaml",
            (
                "line 2, column 1: is not YAML: while scanning for the next token, found character "
                "'\\t' that cannot start any token. Indent with spaces, not tabs."
            ),
        ),
        (
            "a: [1",
            "x.yaml",
            (
                f"line 1, column 6: is not YAML: while parsing a flow sequence, expected ',' or ']', but got "
                f"'<stream end>'. {SYNTAX}"
            ),
        ),
        (
            '{"a": 1,}',
            "x.json",
            f"line 1, column 9: is not JSON: Expecting property name enclosed in double quotes. {SYNTAX}",
        ),
        ("a: \0", "x.yaml", "character 3: holds the character 0 (special characters are not allowed). Remove it."),
        (
            'a: "\\U00110000"',
            "x.yaml",
            ("the whole file: holds an escape such as \\U00110000 that names no character. Remove it."),
        ),
        ("[" * 200_000, "x.yaml", f"line 1, column 34: {DEEP}"),
        ("- " * 400_000, "x.yaml", f"line 1, column 67: {DEEP}"),
        ("[" * 200_000, "x.json", f"the whole file: {DEEP}"),
        ('{"a":' * 40 + "1" + "}" * 40, "x.json", f"{'.'.join('a' * 33)}: {DEEP}"),
        ("a: &x 1", "x.yaml", f"line 1, column 4: an anchor (&x). Remove it; {NOT_READ}."),
        ("a: *x", "x.yaml", f"line 1, column 4: an alias (*x). Write the values out; {NOT_READ}."),
        (
            "a: !!python/object/apply:os.system [ls]",
            "x.yaml",
            (
                "line 1, column 4: a tag "
                "(tag:yaml.org,2002:python/object/apply:os.system). Remove it; values are typed by how "
                "they are written."
            ),
        ),
        ("a: 1\n---\nb: 1", "x.yaml", "line 2, column 1: a second document starts here. Keep one document per file."),
        ("1: a", "x.yaml", "the whole file: the key 1 (line 1) is not text. Put it in quotes if it is a name."),
        ("true: a", "x.yaml", "the whole file: the key true (line 1) is not text. Put it in quotes if it is a name."),
        (
            "[a]: b",
            "x.yaml",
            (
                "the whole file: the key that is a list or a mapping (line 1) is not text. Put it in quotes "
                "if it is a name."
            ),
        ),
        (
            "rl_training_scenarios:\n  a: {b: 1, b: 2}",
            "x.yaml",
            ("a.b: the key is there twice (again in line 2). Keep one of them."),
        ),
        (
            '{"rl_training_scenarios": {"a": {"b": 1, "b": 2}}}',
            "x.json",
            "a.b: the key is there twice. Keep one of them.",
        ),
        ('{"a": "\\ud800"}', "x.json", "a: '\\ud800' holds half a character. Remove the escape, or write both halves."),
        (
            '"\\ud800": 1',
            "x.yaml",
            ("the whole file: '\\ud800' holds half a character. Remove the escape, or write both halves."),
        ),
        ("[" + "1," * 50_000 + "1]", "x.json", "the whole file: holds more than 50000 values. Split the file."),
        (
            "[" + "1," * 50_000 + "1]",
            "x.yaml",
            "line 1, column 100000: holds more than 50000 values. Split the file.",
        ),
    ],
)
def test_hostile_and_broken_texts_are_refused_with_the_place(source, origin, line):
    assert line in problems_of_text(source, origin)


def test_a_bomb_of_aliases_is_not_expanded():
    bomb = "a0: &a0 [x, x]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]" for n in range(40))
    value, problems = text.parse(bomb.encode(), "x.yaml")
    assert value["a40"] == [None, None]
    assert len(problems) == 41 + 80


def test_a_tag_runs_nothing(tmp_path):
    made = tmp_path / "made"
    text.parse(f"a: !!python/object/apply:os.mkdir ['{made}']".encode(), "x.yaml")
    assert not made.exists()


def test_all_problems_of_a_text_come_together_with_those_of_its_values():
    lines = problems_of_text("rl_training_scenarios:\n  base_config: {total_users: 0, total_users: 1}\nb: *x")
    assert "base_config.total_users: the key is there twice (again in line 2). Keep one of them." in lines
    assert "base_config.total_users: is 0, which is not above 0. Give a number above 0." in lines
    assert f"line 3, column 4: an alias (*x). Write the values out; {NOT_READ}." in lines
    assert "the whole file: unknown key 'b'. Known are: $schema, rl_training_scenarios." in lines


def test_a_huge_number_costs_nothing():
    value, problems = text.parse(b"[" + b"1" * 1_000_000 + b"]", "x.json")
    assert (len(value[0]), problems) == (1_000_000, [])
