"""Print the hops of a path as a table, and name the first one that is broken."""

from collections.abc import Sequence

from drawbridge.commands import output
from drawbridge.doctor.path_checks import HopResult, find_first_broken

_STATES = {"ok": "ok", "broken": "BROKEN", "unknown": "?", "skipped": "-"}


def print_path(results: Sequence[HopResult]) -> None:
    """Print a line for each hop, the first broken hop with its remedy, and the hops that could not be judged."""
    output.table(
        ("hop", "", "finding"),
        [(str(result.hop), _STATES[result.state], _describe_finding(result)) for result in results],
    )
    output.print_line()
    unknown = [result for result in results if result.state == "unknown"]
    if broken := find_first_broken(results):
        code = f" ({broken.code})" if broken.code else ""
        output.print_line(f"first broken hop: {broken.hop}: {broken.breakage}{code}")
        output.print_line(f"  {broken.finding}")
        output.print_line(f"  -> {broken.remedy}")
    else:
        output.print_line("no hop is broken" + (", as far as they could be judged" if unknown else ""))
    if permissions := sorted({result.permission for result in unknown if result.permission}):
        hops = ", ".join(result.hop for result in unknown if result.permission)
        output.print_line(f"not judged for want of {', '.join(permissions)}: {hops}")


def _describe_finding(result: HopResult) -> str:
    return f"{result.breakage}: {result.finding}" if result.breakage else result.finding
