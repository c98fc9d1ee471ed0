"""Render goals and figures, and replace a report in a page."""

import json
from collections.abc import Iterable


def render_goal(seconds: float, goal: float) -> str:
    """Return the words of a goal in seconds, marked if it is not reached."""
    return f"goal: under {goal:g} s" + (", short" if seconds >= goal else "")


def render_figures(figures: Iterable[object]) -> str:
    """Return the text of a JSON file, a list with one line for each run, so that changes of few runs are few lines."""
    return "[\n" + ",\n".join(json.dumps(figure) for figure in figures) + "\n]\n"


def replace_report(page: str, name: str, report: str) -> str:
    """Return a page with another report between the two comments that name it."""
    begin, end = f"<!-- report of {name} -->\n", f"<!-- end of the report of {name} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{report}\n{end}{rest.split(end)[1]}"
