"""Replace a report in a page."""


def replace_report(page: str, name: str, report: str) -> str:
    """Return a page with another report between the two comments that name it."""
    begin, end = f"<!-- report of {name} -->\n", f"<!-- end of the report of {name} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{report}\n{end}{rest.split(end)[1]}"
