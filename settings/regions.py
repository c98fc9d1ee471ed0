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

#: Places that AWS names regions after (same source), and the region there.
_PLACES = {
    "bahrain": "me-south-1",
    "california": "us-west-1",
    "calgary": "ca-west-1",
    "canada": "ca-central-1",
    "cape town": "af-south-1",
    "frankfurt": "eu-central-1",
    "hong kong": "ap-east-1",
    "hyderabad": "ap-south-2",
    "ireland": "eu-west-1",
    "jakarta": "ap-southeast-3",
    "london": "eu-west-2",
    "malaysia": "ap-southeast-5",
    "melbourne": "ap-southeast-4",
    "mexico": "mx-central-1",
    "milan": "eu-south-1",
    "mumbai": "ap-south-1",
    "new zealand": "ap-southeast-6",
    "ohio": "us-east-2",
    "oregon": "us-west-2",
    "osaka": "ap-northeast-3",
    "paris": "eu-west-3",
    "sao paulo": "sa-east-1",
    "seoul": "ap-northeast-2",
    "singapore": "ap-southeast-1",
    "spain": "eu-south-2",
    "stockholm": "eu-north-1",
    "sydney": "ap-southeast-2",
    "taipei": "ap-east-2",
    "tel aviv": "il-central-1",
    "thailand": "ap-southeast-7",
    "tokyo": "ap-northeast-1",
    "virginia": "us-east-1",
    "zurich": "eu-central-2",
}

#: The form of names: an area, a direction and a number.
_NAME = re.compile(r"[a-z]{2}([a-z]{2})?(-[a-z]{2,4})?-(north|south|central|(north|south)?(east|west))-\d")


def is_region_name(name: str) -> bool:
    """Return whether a region may exist: AWS adds some, which `REGIONS` lacks then.

    >>> is_region_name("eu-west-1"), is_region_name("eu-south-9"), is_region_name("eu-centrl-1")
    (True, True, False)
    """
    return _NAME.fullmatch(name) is not None


def suggest_region(name: str) -> str:
    """Return the known region whose name or place is most like another name, the first of several.

    >>> suggest_region("eu-centrl-1"), suggest_region("eu-west"), suggest_region("Frankfurt"), suggest_region("")
    ('eu-central-1', 'eu-west-1', 'eu-central-1', 'eu-west-1')
    """
    words = name.lower()
    named = [place for place in _PLACES if place in words] or difflib.get_close_matches(words, _PLACES, cutoff=0.8)
    if named:
        return _PLACES[named[0]]

    def similarity(region: str) -> float:
        return difflib.SequenceMatcher(None, region, name).ratio()

    nearest = max(sorted(REGIONS), key=similarity)
    return nearest if similarity(nearest) > 0.6 else "eu-west-1"
