"""How long the fleet's page takes to show 300 nodes and 1,000 deployments with 5 holders each.

    python -m bench.fleet_page

A real headless Chromium opens each view five times with an empty cache; all times are the browser's
own (its performance API), in milliseconds from the start of the navigation:

    first paint    the browser's first-contentful-paint
    fleet shown    all that the server knows is in the document, filtered, sorted and laid out

`filter` is the time from a key in the filter box to the next frame.
"""

import json
import statistics

from tests.browser import Browser, running_browser
from tests.fleetpage import SHOWN, FleetPage, showing
from tests.fleetviews import make_view

RUNS = 5
VIEWS = ("overview", "deployments", "nodes", "changes")

# The frame after the mark contains what the mark stands for.
_TIMES = """
new Promise((done) => requestAnimationFrame(() => setTimeout(() => done({
  paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
  shown: performance.getEntriesByName("fleet-shown")[0].startTime,
}))))
"""
_FILTER = """
new Promise((done) => {
  const input = document.getElementById("text");
  const start = performance.now();
  input.value = "ranker";
  input.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})
"""


def measure(browser: Browser, page: FleetPage, view: str) -> tuple[float, float, float]:
    """Open one view anew; return first paint, fleet shown and filter, in milliseconds."""
    browser.open("about:blank")
    browser.wait_for("location.href === 'about:blank'")
    browser.open(f"{page.url}#{view}")
    browser.wait_for(SHOWN)
    times = browser.evaluate(_TIMES)
    return times["paint"], times["shown"], browser.evaluate(_FILTER)


def main() -> None:
    """Measure every view and print median and worst."""
    view = make_view()
    size_kilobytes = len(json.dumps(view)) / 1000
    print(f"300 nodes, 1,000 deployments, 5 holders each: {size_kilobytes:,.0f} kB of JSON")
    heads = ("first paint", "fleet shown", "filter")
    print(f"median (worst) of {RUNS}".ljust(20) + "".join(f"{head:>16}" for head in heads))
    with showing(view) as page, running_browser() as browser:
        browser.look(width=1280)
        measure(browser, page, "overview")  # the browser's own start is nobody's wait
        for name in VIEWS:
            runs = [measure(browser, page, name) for _ in range(RUNS)]
            cells = (
                f"{statistics.median(values):,.0f} ({max(values):,.0f}) ms"
                for values in zip(*runs, strict=True)
            )
            print(f"{name:<20}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
