"""Render goals and figures, and replace a report in a page."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path


def render_goal(seconds: float, goal: float) -> str:
    """Return the words of a goal in seconds, marked if it is not reached."""
    return f"goal: under {goal:g} s" + (", short" if seconds >= goal else "")


def render_figures(figures: Iterable[object]) -> str:
    """Return the text of a JSON file, a list with one line for each run, so that changes of few runs are few lines."""
    return "[\n" + ",\n".join(json.dumps(figure) for figure in figures) + "\n]\n"


def add_options(parser: ArgumentParser) -> None:
    """Add the options by which a bench keeps its report and figures, or renders those of a former run."""
    parser.add_argument("--json", type=Path, help="file that keeps the figures of this run")
    parser.add_argument("--figures", type=Path, help="figures of a former run, in place of a new one")
    parser.add_argument("--page", type=Path, help="page whose report is replaced, between its two comments")


def keep_report(arguments: Namespace, name: str, lines: Iterable[str], figures: Iterable[object]) -> None:
    """Print a report, and write it and its figures where the options of `add_options` say."""
    report = "\n".join(lines) + "\n"
    print(report, end="")
    if arguments.page:
        arguments.page.write_text(replace_report(arguments.page.read_text(), name, report))
    if arguments.json:
        arguments.json.write_text(render_figures(figures))


def replace_report(page: str, name: str, report: str) -> str:
    """Return a page with another report between the two comments that name it."""
    begin, end = f"<!-- report of {name} -->\n", f"<!-- end of the report of {name} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{report}\n{end}{rest.split(end)[1]}"
