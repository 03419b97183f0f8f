"""The page of the fleet behind its real routes, with views that a test makes, and its pictures.

python -m tests.fleetpage        makes docs/fleet-*.png anew
"""

import asyncio
import base64
import gzip
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from reconciler.fleet.app import make_fleet_app
from reconciler.fleet.desk import FleetDesk, ViewPage
from reconciler.fleet.expected import Expected
from reconciler.status.server import WebServer
from reconciler.status.web import make_etag
from tests.browser import Browser, running_browser
from tests.fleetviews import make_view

View = dict[str, Any]
DOCS = Path(__file__).parents[1] / "docs"
PICTURES = {
    "fleet-1280.png": (1280, False, ""),
    "fleet-390.png": (390, False, ""),
    "fleet-dark-1280.png": (1280, True, "#deployments?text=photos&open=photos/detector"),
}
"""Name, width, whether dark, and place of each picture in docs/."""
SHOWN = "performance.getEntriesByName('fleet-shown').length"


class _GivenDesk(FleetDesk):
    """Shows what it is given instead of asking nodes."""

    def __init__(self) -> None:
        super().__init__(lambda: Expected((), (), {}), "search-01")
        self.page: ViewPage | None = None

    async def read_page(self) -> ViewPage:
        if self.page is None:
            raise HTTPException(503, "No node was asked yet.")
        return self.page


class FleetPage:
    """A server of the page, in a thread so that the browser can be waited for."""

    def __init__(self, view: View | None) -> None:
        self._desk = _GivenDesk()
        self._server = WebServer(make_fleet_app(self._desk), "127.0.0.1:0", "the page")
        self.url = f"http://127.0.0.1:{self._server.port}/fleet"
        self.show(view)
        self._thread = threading.Thread(target=asyncio.run, args=(self._server.serve(),))
        self._thread.start()

    def show(self, view: View | None) -> None:
        """Answer with `view` from now on; None is a server that cannot say yet."""
        body = json.dumps(view).encode()
        page = ViewPage(body, gzip.compress(body, 1), make_etag(body))
        self._desk.page = None if view is None else page

    def stop(self) -> None:
        """End it; its port is closed then."""
        self._server.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def showing(view: View | None) -> Iterator[FleetPage]:
    """Serve the page with `view` on a free port of 127.0.0.1."""
    page = FleetPage(view)
    try:
        yield page
    finally:
        page.stop()


def take_pictures(browser: Browser, page: FleetPage, folder: Path) -> None:
    """Write all PICTURES into `folder`."""
    for name, (width, dark, place) in PICTURES.items():
        browser.look(width=width, dark=dark)
        browser.open("about:blank")
        browser.open(page.url + place)
        browser.wait_for(SHOWN)
        browser.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        browser.screenshot(folder / name, whole=False)
        shrink(browser, folder / name)


# Counts the colours, keeps the 256 that are used most, and gives each pixel the nearest of them.
_INDEXED = """
(async () => {
  const image = new Image();
  image.src = "data:image/png;base64,@@";
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = new Uint32Array(
    context.getImageData(0, 0, image.width, image.height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const palette = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, 256);
  const parts = (pixel) => [pixel & 255, pixel >> 8 & 255, pixel >> 16 & 255];
  const distance = (a, b) => parts(a).reduce((sum, part, i) => sum + (part - parts(b)[i]) ** 2, 0);
  const nearest = new Map([...counts.keys()].map((pixel) => [pixel, palette.reduce(
    (best, other, i) => distance(pixel, other) < distance(pixel, palette[best]) ? i : best, 0)]));
  const indices = Uint8Array.from(pixels, (pixel) => nearest.get(pixel));
  let text = "";
  for (let i = 0; i < indices.length; i += 8192) {
    text += String.fromCharCode(...indices.subarray(i, i + 8192));
  }
  return { width: image.width, height: image.height, palette: palette.flatMap(parts),
    indices: btoa(text) };
})()
"""


def shrink(browser: Browser, path: Path) -> None:
    """Write a PNG anew with at most 256 colours, which makes a picture of a page half as large."""
    browser.open("about:blank")
    found = browser.evaluate(_INDEXED.replace("@@", base64.b64encode(path.read_bytes()).decode()))
    width, height = found["width"], found["height"]
    pixels = base64.b64decode(found["indices"])
    rows = (b"\0" + pixels[row * width : (row + 1) * width] for row in range(height))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(found["palette"])),
        (b"IDAT", zlib.compress(b"".join(rows), 9)),
        (b"IEND", b""),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


if __name__ == "__main__":
    with running_browser() as running, showing(make_view()) as served:
        take_pictures(running, served, DOCS)
