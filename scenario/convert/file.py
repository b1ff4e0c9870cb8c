"""The text of an old file to the text of a new one, checked by the loader before anybody sees it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scenario import load, text
from scenario.convert.keys import is_scenarios
from scenario.convert.report import Note, Report, said, same
from scenario.convert.scenarios import free_name
from scenario.convert.whole import convert
from scenario.convert.writing import to_yaml
from scenario.errors import Problem, ScenarioError

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Converted:
    """A new file that loads."""

    yaml: str
    notes: list[Note]

    def report(self) -> str:
        """Every change and decision, one line each."""
        count = len(self.notes)
        what = "1 change or decision" if count == 1 else f"{count} changes and decisions"
        head = what if count else "nothing had to be changed"
        return "\n".join([head, *(f"  {note}" for note in self.notes)])


def convert_text(raw: bytes, origin: str, shipped: Tree) -> Converted:
    """Raises ScenarioError with all that is refused, then there is no result."""
    report = Report()
    twice: list[text.Twice] = []
    tree, problems = text.parse(raw, origin, twice)
    for one in twice:
        _settle(one, tree, report)
    conversion = convert(tree, shipped, report)
    refusals = [*problems, *conversion.refusals]
    if refusals:
        raise ScenarioError(origin, dict.fromkeys(refusals))
    written = to_yaml(conversion.tree, origin)
    try:
        load.load_text(written)
    except ScenarioError as error:
        raise ScenarioError(origin, [_of_result(problem) for problem in error.problems]) from None
    return Converted(written, conversion.notes)


def _of_result(problem: Problem) -> Problem:
    return Problem(problem.place, f"as converted, it {problem.text}", problem.way_out)


def _settle(twice: text.Twice, tree: Any, report: Report) -> None:
    """A key that is there twice: the same twice is kept once, two scenarios are both kept."""
    if same(twice.mapping[twice.key], twice.value):
        report.dropped(twice.place, twice.value, "the key is there twice, with the same value")
    elif any(section is twice.mapping for section in _scenario_sections(tree)):
        free = free_name(twice.key, set(twice.mapping))
        report.note(
            twice.place, f"{twice.key} again, with other content", free, "the key is there twice; both are kept"
        )
        twice.mapping[free] = twice.value
    else:
        text_ = f"the key is there twice, as {said(twice.mapping[twice.key])} and as {said(twice.value)}"
        report.refuse(twice.place, text_, "Keep one of them")


def _scenario_sections(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if is_scenarios(key):
                yield value
            yield from _scenario_sections(value)
