"""Build the site of the documentation into build/docs/site, and check it.

`make docs` runs it in an environment with requirements-docs.txt. Links, anchors and texts of pictures are checked in
the HTML. If Chromium is on PATH, it also opens every page, and errors in its console count.
"""

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "docs"
PAGES = BUILD / "pages"
SITE = BUILD / "site"

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

#: Seconds for all pages in the browser, which take some ten; and how often it may try, because headless Chromium with
#: virtual time stands still now and then (seen in 3 of 10 runs).
BROWSER_LIMIT = 120
BROWSER_ATTEMPTS = 3

_LINK = re.compile(r"\[[^]]*\]\(([^)\s#]+)[^)]*\)")

#: The page that opens all others in a frame, one after the other, and then writes which of their pictures are missing.
_VISITOR = """<!doctype html><title>visitor</title><pre id="result">unfinished</pre><script>
const pages = PAGES;
const frame = document.createElement("iframe");
frame.style = "width: 1200px; height: 900px";
document.body.append(frame);
const missing = [];
let empty = 0;
function visit(number) {
  if (number === pages.length) {
    document.getElementById("result").textContent = JSON.stringify({visited: number, empty, missing});
    return;
  }
  frame.onload = () => {
    console.log("visited " + pages[number]);
    const page = frame.contentDocument;
    if (!page.querySelector("h1")) empty += 1;
    for (const picture of page.images) if (!picture.naturalWidth) missing.push(pages[number] + ": " + picture.src);
    visit(number + 1);
  };
  frame.src = "/" + pages[number];
}
visit(0);
</script>"""


class Page(HTMLParser):
    """Collects what a page links to, its anchors, and its pictures without a text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.wordless: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's addresses, name and text."""
        values = dict(attrs)
        if values.get("rel") != "canonical":
            self.links += [link for name in ("href", "src") if (link := values.get(name))]
        self.anchors |= {name for key in ("id", "name") if (name := values.get(key))}
        if tag == "img" and not values.get("alt"):
            self.wordless.append(values.get("src") or "")


def copy_pages(root: Path, target: Path) -> None:
    """Copy all pages, their style, and the files that they link to, to the same paths below `target`."""
    shutil.rmtree(target, ignore_errors=True)
    for style in root.glob("docs/*.css"):
        (target / "docs").mkdir(parents=True, exist_ok=True)
        shutil.copy(style, target / "docs")
    for page in [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("tests/*.md")]:
        text = page.read_text()
        copy = target / page.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(indent_lists(text))
        for link in _LINK.findall(text):
            linked = (page.parent / link).resolve()
            if linked.is_file() and linked.suffix != ".md" and linked.is_relative_to(root):
                (target / linked.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(linked, target / linked.relative_to(root))


def indent_lists(text: str) -> str:
    """Return a page with the content of numbered items indented by four spaces, as Python-Markdown wants it.

    >>> indent_lists("1. a\\n\\n   b\\n")
    '1. a\\n\\n    b\\n'
    """
    lines, in_item = [], False
    for line in text.splitlines():
        in_item = bool(re.match(r"\d+\. ", line)) or (in_item and (not line or line.startswith("   ")))
        lines.append(f" {line}" if in_item and line.startswith("   ") else line)
    return "\n".join(lines) + "\n"


def find_faults(site: Path) -> Iterator[str]:
    """Yield links of a site that lead nowhere, and pictures without a text."""
    pages = {path.relative_to(site).as_posix(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for name, page in pages.items():
        yield from (f"{name}: {source} has no text" for source in page.wordless)
        # The page for missing ones has addresses of a site at the server's root.
        if name != "404.html":
            yield from (
                f"{name}: {link} leads nowhere" for link in page.links if not _resolves(site, name, link, pages)
            )


def _resolves(site: Path, name: str, link: str, pages: Mapping[str, Page]) -> bool:
    if urlparse(link).scheme:
        return True
    path, anchor = urldefrag(urljoin(f"/{name}", link))
    target = unquote(path).lstrip("/")
    target = f"{target}index.html" if target.endswith("/") or not target else target
    if target not in pages:
        return (site / target).is_file()
    return not anchor or unquote(anchor) in pages[target].anchors


def visit(browser: str, site: Path) -> list[str]:
    """Open every page in a browser; return errors of its console, missing pictures, and what else went wrong."""
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("index.html"))
    visitor = site / "visitor.html"
    visitor.write_text(_VISITOR.replace("PAGES", json.dumps(pages)))
    handler = functools.partial(_QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"),
            f"--virtual-time-budget={1000 * BROWSER_LIMIT}",
            f"http://127.0.0.1:{server.server_address[1]}/{visitor.name}",
        ]
        try:
            done = _run(command)
        finally:
            server.shutdown()
            visitor.unlink()
    if done is None:
        return [f"{browser} has not visited all pages within {BROWSER_LIMIT} s, {BROWSER_ATTEMPTS} times"]
    console = re.findall(r':CONSOLE[^]]*\] "(.*?)", source: (\S+)', done.stderr)
    faults = [f"{source}: {message}" for message, source in console if not message.startswith("visited ")]
    result = re.search(r'<pre id="result">(\{.*?\})</pre>', done.stdout)
    if result is None:
        return [*faults, f"{browser} ended with {done.returncode} and without a result: {done.stderr[-500:]}"]
    counts = json.loads(result[1])
    print(f"{browser} has opened {counts['visited']} pages")
    faults += [f"{counts['empty']} pages have no heading"] if counts["empty"] else []
    return faults + [f"{picture} is missing" for picture in counts["missing"]]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a command until it ends in time; return None if no attempt does."""
    for _ in range(BROWSER_ATTEMPTS):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=BROWSER_LIMIT, check=False)
        except subprocess.TimeoutExpired:
            continue
    return None


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def main() -> int:
    """Build and check the site; return 1 if anything is wrong with it."""
    copy_pages(ROOT, PAGES)
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"], cwd=ROOT, check=True)
    faults = list(find_faults(SITE))
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser:
        faults += visit(browser, SITE)
    else:
        print(f"not opened in a browser: none of {', '.join(BROWSERS)} is on PATH")
    print("\n".join(faults) if faults else f"{SITE.relative_to(ROOT)}: no broken link, no picture without a text")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
