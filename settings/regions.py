"""Judge the names of AWS regions without asking AWS."""

import difflib
import re

#: How many regions each direction of an area has (AWS Account Management Reference, "Regions"; November 2026).
_NUMBERS = {
    "af": {"south": 1},
    "ap": {"east": 2, "northeast": 3, "south": 2, "southeast": 7},
    "ca": {"central": 1, "west": 1},
    "cn": {"north": 1, "northwest": 1},
    "eu": {"central": 2, "north": 1, "south": 2, "west": 3},
    "il": {"central": 1},
    "me": {"central": 1, "south": 1},
    "mx": {"central": 1},
    "sa": {"east": 1},
    "us": {"east": 2, "west": 2},
    "us-gov": {"east": 1, "west": 1},
}

REGIONS = frozenset(
    f"{area}-{direction}-{number}"
    for area, directions in _NUMBERS.items()
    for direction, count in directions.items()
    for number in range(1, count + 1)
)

#: The form of names: an area, a direction and a number.
_NAME = re.compile(r"[a-z]{2}([a-z]{2})?(-[a-z]{2,4})?-(north|south|central|(north|south)?(east|west))-\d")


def is_region_name(name: str) -> bool:
    """Return whether a region may exist: AWS adds some, which `REGIONS` lacks then.

    >>> is_region_name("eu-west-1"), is_region_name("eu-south-9"), is_region_name("eu-centrl-1")
    (True, True, False)
    """
    return _NAME.fullmatch(name) is not None


def suggest_region(name: str) -> str:
    """Return the known region whose name is most like another name, the first of several.

    >>> suggest_region("eu-centrl-1"), suggest_region("eu-west"), suggest_region("")
    ('eu-central-1', 'eu-west-1', 'eu-west-1')
    """

    def similarity(region: str) -> float:
        return difflib.SequenceMatcher(None, region, name).ratio()

    nearest = max(sorted(REGIONS), key=similarity)
    return nearest if similarity(nearest) > 0.6 else "eu-west-1"
