"""Drives a real headless Chromium over the DevTools protocol, without a library in between.

The protocol runs over two pipes (--remote-debugging-pipe: JSON messages that end with a NUL byte,
read by the browser on descriptor 3, written on 4), so there is no port to find and no WebSocket.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)

_KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "/": 191}
_KEY_TEXTS = {"Enter": "\r", "/": "/"}

# Text and the ground it stands on, by the formula of WCAG 2; 4.5 is its level AA.
LOW_CONTRAST = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((e) => e.getClientRects().length && !e.closest(".aside, noscript"))
    .map((e) => {
      const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 60)];
    })
    .filter(([ratio]) => ratio < 4.5);
})()
"""
"""What a page shows with too little contrast, as an expression for `Browser.evaluate`."""


class Browser:
    """One tab of a running browser; every call has a deadline."""

    def __init__(self, send: int, receive: int) -> None:
        self._send = send
        self._receive = receive
        self._buffer = b""
        self._count = 0
        self.console: list[str] = []
        """What the page logged, its exceptions and what its content security policy refused."""
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    _session: str | None = None

    def open(self, url: str) -> None:
        """Go to `url`."""
        answer = self._call("Page.navigate", {"url": url})
        assert "errorText" not in answer, answer

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression comes to; promises are awaited."""
        answer = self._call(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, deadline_seconds: float = 60.0) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + deadline_seconds
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > end:
                text = self.evaluate("document.body.innerText")
                pytest.fail(f"{expression} did not come true; the page says:\n{text}")
            time.sleep(0.05)

    def text(self) -> str:
        """Return the text of the page as it is shown."""
        return str(self.evaluate("document.body.innerText"))

    def press(self, key: str) -> None:
        """Press and release one key, by its DOM name."""
        code = _KEY_CODES[key]
        text = {"text": _KEY_TEXTS[key]} if key in _KEY_TEXTS else {}
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, **text},
            )

    def write(self, text: str) -> None:
        """Enter `text` where the focus is."""
        self._call("Input.insertText", {"text": text})

    def accessible(self) -> list[tuple[str, str]]:
        """Return role and name of all that a screen reader is told of, in its order."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]

    def look(self, *, width: int, dark: bool = False, scripts: bool = True) -> None:
        """Set the width of the window in CSS pixels, the colour scheme, and whether scripts run."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._call("Emulation.setScriptExecutionDisabled", {"value": not scripts})

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write the page as PNG: the whole of it, or only what fits the window."""
        answer = self._call(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole}
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """Ask the browser to end."""
        self._session = None
        self._call("Browser.close")

    def _call(
        self, method: str, params: dict[str, Any] | None = None, deadline_seconds: float = 30.0
    ) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params or {}}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + deadline_seconds
        while True:
            answer = self._next_message(end)
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self._note(answer)

    def _next_message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser did not answer in time"
            data = os.read(self._receive, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.console.append(json.dumps(event["params"]["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded":
            self.console.append(event["params"]["entry"]["text"])
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(event["params"]["args"]))


def find_chromium() -> str:
    """Return the path of Chromium; the test is skipped, with what to do, where there is none."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(
        "NOT TESTED: the page in a browser; no Chromium on PATH. Install it with"
        " `apt-get install chromium` (Debian) or put any Chrome under one of the names "
        + ", ".join(_NAMES)
    )


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start a browser with an empty profile and end it, whatever it started included."""
    command = find_chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        to_browser, send = os.pipe()
        receive, from_browser = os.pipe()
        # Moved out of the way of 3 and 4, which the two ends become in the browser.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_browser, from_browser)]
        pid = os.posix_spawn(
            command,
            [command, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            {**os.environ, "HOME": profile},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[1], 4),
            ],
            setpgroup=0,
        )
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        try:
            browser = Browser(send, receive)
            yield browser
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(send)
            os.close(receive)
