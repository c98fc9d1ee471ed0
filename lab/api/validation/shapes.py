"""Refuse parameters that botocore's service models do not allow: required, length, pattern, enum and range.

The texts are those of AWS's own checks, which services of the query and JSON protocols share; EC2 has others.
"""

import functools
import itertools
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from lab.api.errors import ApiError
from lab.api.request import ApiRequest

#: Error code of a parameter that the model does not allow, by service.
_CODES = {
    "iam": "ValidationError",
    "sts": "ValidationError",
    "cloudwatch": "ValidationError",
    "ssm": "ValidationException",
    "kms": "ValidationException",
    "service-quotas": "ValidationException",
    "logs": "InvalidParameterException",
    "sns": "InvalidParameter",
    "route53": "InvalidInput",
}


def check_shapes(request: ApiRequest) -> ApiError | None:
    """Return the refusal of the parameters that the service's model does not allow, or None."""
    if request.operation is None or request.operation.input_shape is None:
        return None
    shape = request.operation.input_shape
    if request.service == "ec2":
        return next(_list_ec2_refusals(shape, request.parameters, ""), None)
    violations = list(_list_violations(shape, request.parameters, ""))
    if not violations:
        return None
    count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''} detected"
    return ApiError(_CODES[request.service], f"{count}: {'; '.join(violations)}")


def _list_violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """Yield a sentence for each constraint that a value and the values in it break."""
    for constraint in _list_broken_constraints(shape, value):
        shown = "" if shape.metadata.get("sensitive") else f" '{_show_value(value)}'"
        yield f"Value{shown} at '{path}' failed to satisfy constraint: Member must {constraint}"
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"Value null at '{_join_path(path, name)}' failed to satisfy constraint: Member must not be null"
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _list_violations(member, value[name], _join_path(path, name))
    elif isinstance(shape, ListShape) and isinstance(value, Sequence):
        for number, entry in enumerate(value, 1):
            yield from _list_violations(shape.member, entry, f"{path}.{number}.member")
    elif isinstance(shape, MapShape) and isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _list_violations(shape.value, entry, f"{path}.{key}.member")


def _list_broken_constraints(shape: Shape, value: Any) -> Iterator[str]:
    limits = shape.metadata
    low, high = limits.get("min"), limits.get("max")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if low is not None and value < low:
            yield f"have value greater than or equal to {low}"
        if high is not None and value > high:
            yield f"have value less than or equal to {high}"
        return
    if isinstance(value, (str, bytes, Mapping, Sequence)) and not isinstance(shape, StructureShape):
        if low is not None and len(value) < low:
            yield f"have length greater than or equal to {low}"
        if high is not None and len(value) > high:
            yield f"have length less than or equal to {high}"
    if not isinstance(value, str):
        return
    pattern = limits.get("pattern")
    if pattern and (compiled := _compile_pattern(pattern)) and not compiled.fullmatch(value):
        yield f"satisfy regular expression pattern: {pattern}"
    allowed = limits.get("enum")
    if allowed and value not in allowed:
        yield f"satisfy enum value set: [{', '.join(allowed)}]"


def _list_ec2_refusals(shape: Shape, value: Any, path: str) -> Iterator[ApiError]:
    for _ in _list_broken_constraints(shape, value):
        yield ApiError("InvalidParameterValue", f"Value ({_show_value(value)}) for parameter {path} is invalid.")
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        for name in shape.required_members:
            if value.get(name) is None:
                yield ApiError("MissingParameter", f"The request must contain the parameter {_join_path(path, name)}")
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _list_ec2_refusals(member, value[name], _join_path(path, name))
    elif isinstance(shape, ListShape) and isinstance(value, Sequence):
        for number, entry in enumerate(value, 1):
            yield from _list_ec2_refusals(shape.member, entry, f"{path}.{number}")


def _join_path(path: str, name: str) -> str:
    name = name[0].lower() + name[1:]
    return f"{path}.{name}" if path else name


def _show_value(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


@functools.cache
def _compile_pattern(pattern: str) -> re.Pattern[str] | None:
    r"""Translate a Java pattern: its ``\w`` is ASCII, it knows ``\p{L}``, and ``-`` after a class is itself.

    Returns:
        None for a pattern that Python cannot have; it is not checked.
    """
    python = re.sub(r"\\p\{(\w+)\}", lambda match: _list_ranges(match[1]), pattern)
    python = re.sub(r"(\\[wds])-(?!\])", r"\1\\-", python)
    try:
        return re.compile(python, re.ASCII)
    except re.error:
        return None


@functools.cache
def _list_ranges(category: str) -> str:
    """Return a Unicode category (``L``, ``Zs``) or ``ASCII`` as ranges that stand inside brackets."""
    if category == "ASCII":
        return r"\x00-\x7f"
    ranges = [entry for name, entries in _group_code_points().items() if name.startswith(category) for entry in entries]
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


@functools.cache
def _group_code_points() -> Mapping[str, Sequence[tuple[int, int]]]:
    """Return the ranges of each Unicode category: first and last code point."""
    groups = dict[str, list[tuple[int, int]]]()
    first = 0
    for category, points in itertools.groupby(map(unicodedata.category, map(chr, range(sys.maxunicode + 1)))):
        last = first + sum(1 for _ in points) - 1
        groups.setdefault(category, []).append((first, last))
        first = last + 1
    return groups
