"""Which metrics a page in Prometheus' text format has, and by which labels. Values are of no interest here."""

import re

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^\n]*)\})?[ \t]+\S")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"(?:,|$)')
_MOST_LINES = 200_000


def labels_of(body: bytes) -> dict[str, set[str]]:
    """Name -> the names of the labels that its samples have.

    >>> labels_of(b'# TYPE up gauge\\nup{pod="a",le="{"} 1\\nx 2\\n')
    {'up': {...}, 'x': set()}
    """
    found: dict[str, set[str]] = {}
    for line in body.decode("utf-8", "replace").splitlines()[:_MOST_LINES]:
        sample = _SAMPLE.match(line)
        if sample is not None:
            found.setdefault(sample[1], set()).update(_LABEL.findall(sample[2] or ""))
    return found
