"""Read a stack file's YAML as Pulumi's CLI reads it.

The CLI uses Go's yaml.v3: scalars are those of YAML 1.2, besides the octal numbers and timestamps of 1.1, and no key
may be there twice. Sources: https://yaml.org/spec/1.2.2/, 10.3.2; the documentation of gopkg.in/yaml.v3.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

#: Values that references may repeat in a document: a few lines of references to references stand for billions.
_REPEATED = 100_000
#: Characters of a whole number; Python refuses to read or print one of more than 4,300 digits.
_DIGITS = 400

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class YamlProblem:
    """An error in a document: its line (from 1), what is wrong there, and what to do."""

    line: int
    reason: str
    remedy: str


class StackYamlError(ValueError):
    """A document that is not valid YAML, or that Pulumi's CLI refuses."""

    def __init__(self, problem: YamlProblem) -> None:
        self.problem = problem
        super().__init__(f"line {problem.line} {problem.reason}; {problem.remedy}")


class DuplicateKeyError(ConstructorError):
    """A key that a mapping has already."""

    def __init__(self, key: yaml.ScalarNode, first: yaml.ScalarNode) -> None:
        super().__init__(None, None, key.value, key.start_mark)
        self.first_line = first.start_mark.line + 1


class _Loader(yaml.SafeLoader):
    """Constructs the values that Pulumi's CLI has."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._counts: dict[yaml.Node, int] = {}
        self._repeated = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse, as the CLI does, references that repeat too much, or what they are in, whose end is not read yet."""
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            if (node := self.anchors.get(alias.anchor)) is not None:
                if node.end_mark is None:
                    raise ComposerError(None, None, "anchor contains itself", alias.start_mark)
                self._repeated += self._count(node)
                if self._repeated > _REPEATED:
                    raise ComposerError(None, None, "excessive aliasing", alias.start_mark)
        return super().compose_node(parent, index)

    def _count(self, node: yaml.Node) -> int:
        """Return the number of values that a node stands for, each as often as references repeat it."""
        if node not in self._counts:
            children = node.value if isinstance(node, yaml.CollectionNode) else ()
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            self._counts[node] = 1 + sum(map(self._count, children))
        return self._counts[node]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[object, yaml.ScalarNode] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
                continue
            if first.setdefault(self.construct_object(key), key) is not key:
                raise DuplicateKeyError(key, first[self.construct_object(key)])
        return super().construct_mapping(node, deep)


def _parse_int(text: str) -> int:
    sign, digits = (-1 if text[0] == "-" else 1), text.lstrip("+-")
    if len(digits) > _DIGITS:
        raise ValueError(f"more than {_DIGITS} digits")
    is_octal = len(digits) > 1 and digits.isdecimal() and digits[0] == "0"
    return sign * int(digits, 8 if is_octal else 0)


def _parse_float(text: str) -> float:
    # Python spells infinity and NaN without the dot.
    return float(re.sub(r"\.(?=[a-z])", "", text))


def _construct_number(parse: Callable[[str], float]) -> Callable[[_Loader, yaml.ScalarNode], float]:
    """Return the constructor of what `parse` makes of a number in lower case."""

    def construct(loader: _Loader, node: yaml.ScalarNode) -> float:
        try:
            return parse(node.value.replace("_", "").lower())
        except ValueError:  # too long, or without digits, as `0x`
            raise ConstructorError(None, None, "not a number", node.start_mark) from None

    return construct


def _parse_timestamp(loader: _Loader, node: yaml.ScalarNode) -> object:
    try:
        return yaml.SafeLoader.construct_yaml_timestamp(loader, node)
    except ValueError:  # no day of the calendar: the CLI has the text
        return node.value


#: Values without quotes, by the tag that they get; the first that fits counts.
_SCALARS = {
    "null": r"(~|null|Null|NULL)?",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "timestamp": r"\d{4}-\d\d?-\d\d?(([Tt]|[ \t]+)\d\d?:\d\d?:\d\d?(\.\d*)?([ \t]*(Z|[-+]\d\d?(:\d\d)?))?)?",
    "int": r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]*|[1-9][0-9_]*)",
    "float": r"[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": r"<<",
}

_Loader.yaml_implicit_resolvers = {
    None: [(f"{_TAG}{tag}", re.compile(rf"(?:{pattern})\Z")) for tag, pattern in _SCALARS.items()]
}
_Loader.yaml_constructors = {
    **{f"{_TAG}{tag}": _Loader.yaml_constructors[f"{_TAG}{tag}"] for tag in ("null", "bool", "str", "seq", "map")},
    f"{_TAG}int": _construct_number(_parse_int),
    f"{_TAG}float": _construct_number(_parse_float),
    f"{_TAG}timestamp": _parse_timestamp,
    None: _Loader.yaml_constructors[None],
}


def load_yaml(text: str) -> object:
    """Return the values of a document, None for an empty one; raises `StackYamlError`."""
    try:
        return yaml.load(text, _Loader)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = YamlProblem(line, f"has a control character (U+{error.character:04X})", "remove it")
    except yaml.MarkedYAMLError as error:
        problem = _explain(error, text.splitlines())
    except RecursionError:
        problem = YamlProblem(1, "begins values that are nested too deeply", "close the brackets before the next ones")
    raise StackYamlError(problem)


#: Git's markers around the two sides of a conflict.
_CONFLICT = re.compile(r"(<{7}|={7}|>{7}|\|{7})( |$)")

#: Words of PyYAML's problem or context, the reason and the remedy, and whether it is about the line where the value
#: begins, not the one where reading ended. The first that fits counts.
_CAUSES = (
    ("while scanning an alias", "has a value that begins with *", "put the value in quotes", False),
    ("while scanning an anchor", "has a value that begins with &", "put the value in quotes", False),
    ("anchor contains itself", "has a reference (*) to a section that it is part of", "write the values there", False),
    (
        "excessive aliasing",
        f"has references (*) that repeat more than {_REPEATED} values",
        "write them without references",
        False,
    ),
    ("not a number", "has a number that is not valid", "put it in quotes", False),
    ("found undefined alias", "has a reference (*) to an anchor (&) that does not exist", "put it in quotes", False),
    ("while scanning a quoted scalar", "has a quote that is not closed", "close it", True),
    ("while scanning a double-quoted scalar", "has a \\ that begins no escape", "write \\\\, or use '…'", False),
    ("while parsing a flow sequence", "has a [ that is not closed", "close it, or add a comma between values", True),
    ("while parsing a flow mapping", "has a { that is not closed", "close it, or add a comma between keys", True),
    ("while parsing a flow node", "has a [ or { without a value after it", "close it", False),
    ("could not find expected ':'", "has no colon after its key", "write `key: value`", True),
    ("while parsing a block", "is indented differently from its section", "indent all its keys alike", False),
    ("could not determine a constructor", "has a tag (!) that Pulumi does not read", "put the value in quotes", False),
    ("expected a single document", "begins a second document", "remove the line `---`", False),
    ("found unhashable key", "has a list or a section as a key", "put the key in quotes", False),
    ("for merging", "merges (<<) a value that is not a section", "use a reference to one", False),
    ("tag", "has a value that begins with !", "put the value in quotes", False),
    ("block scalar", "has a value that begins with | or >", "put the value in quotes", False),
)


def _explain(error: yaml.MarkedYAMLError, lines: list[str]) -> YamlProblem:
    """Return an error of PyYAML's in the words of a stack file."""
    mark = error.problem_mark or error.context_mark
    start = error.context_mark or mark
    if mark is None or start is None:
        return YamlProblem(1, "begins a document that is not valid YAML", "correct the syntax")
    line = lines[mark.line] if mark.line < len(lines) else ""
    number = mark.line + 1
    if isinstance(error, DuplicateKeyError):
        reason = f"has the key {error.problem} again, which is on line {error.first_line} already"
        return YamlProblem(number, reason, "keep only one of them")
    marked = next((n for n, text in enumerate(lines, 1) if _CONFLICT.match(text)), None)
    if marked is not None:
        return YamlProblem(marked, "has a conflict marker of Git's", "resolve the conflict")
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in str(error.problem):
        return YamlProblem(number, "has a tab where spaces must be", "indent by spaces")
    if character := re.search(r"found character '(.)' that cannot start", str(error.problem)):
        return YamlProblem(number, f"has a value that begins with {character[1]}", "put the value in quotes")
    if "mapping values are not allowed" in str(error.problem):
        if re.search(r":\s", line[: mark.column]):
            return YamlProblem(number, "has two keys", "begin a line for each, or put the value in quotes")
        return YamlProblem(number, "is indented further than the key before it", "indent keys of one section alike")
    words = f"{error.context} {error.problem}"
    for text, reason, remedy, at_start in _CAUSES:
        if text in words:
            return YamlProblem(start.line + 1 if at_start else number, reason, remedy)
    return YamlProblem(number, "is not valid YAML", "correct the syntax there")
