"""The page in a real browser: what a person sees, at both widths, and when the agent is gone."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.model import Commit, Condition, Deployment, Outcome, Phase, Problem, Progress
from reconciler.status.board import StatusBoard
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.report import Disk, NodeReport
from reconciler.status.server import StatusServer
from tests.browser import LOW_CONTRAST, Browser, running_browser

EVIL = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
LONG = "averylongname" * 16
LARGE = 9_007_199_254_740_993  # one more than a JavaScript number can hold
FIRST = Commit("aaaaaaa1111", "Ada Lovelace", "Add ranker", 1000.0)
SECOND = Commit("bbbbbbb2222", "Grace Hopper", f"Roll out {EVIL}", 2000.0)


class Node:
    """A node whose status endpoint runs in a thread, so that the browser can be waited for."""

    def __init__(self, state_dir: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._clock_seconds = 0.0
        self.board = StatusBoard(
            Journal(state_dir / "history.jsonl"),
            Metrics("0.1.0"),
            lambda: None,
            heartbeat_limit_seconds=30,
            clock=lambda: self._clock_seconds,
        )
        self._server = StatusServer(self.board, "127.0.0.1:0")
        self.url = f"http://127.0.0.1:{self._server.port}/"
        self._served: Future[None] = Future()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def publish(self, report: NodeReport) -> None:
        asyncio.run_coroutine_threadsafe(self.board.publish(report), self._loop).result(10)

    def hang(self) -> None:
        """Let the heart stop while the port goes on answering."""
        self._clock_seconds += 45

    def recover(self) -> None:
        """Let the heart beat again."""
        self.board.beat()

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._loop.run_until_complete(self._server.serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    running = Node(tmp_path)
    try:
        yield running
    finally:
        running.stop()


def deployment(model: str, version: int | None = None, description: str = "") -> Deployment:
    return Deployment(
        model, "search", "deployments/search/x.yaml", "gs://b/x", version, description=description
    )


def report(*outcomes: Outcome, **more: object) -> NodeReport:
    values: dict[str, object] = {
        "node": "search-1",
        "group": "search",
        "program_version": "0.1.0",
        "started_at_seconds": 900.0,
        "generated_at_seconds": 2010.0,
        "ready": True,
        "summary": "did something",
        "observed": FIRST,
        "applied": FIRST,
        "outcomes": outcomes,
        **more,
    }
    return NodeReport(**values)  # type: ignore[arg-type]


def deployed(model: str, version: int) -> Outcome:
    return Outcome(deployment(model), Phase.DEPLOYED, "Serving", "It serves.", version, (version,))


def busy_report() -> NodeReport:
    downloading = Outcome(
        deployment("ranker", 42, EVIL),
        Phase.DEPLOYING,
        "Downloading",
        "Version 42 is being downloaded.",
        42,
        (41,),
        progress=Progress(1_500_000, 6_000_000),
    )
    failed = Outcome(
        deployment(LONG, 13),
        Phase.FAILED,
        "LoadFailed",
        f"Version 13 does not load: {LONG * 4}",
        13,
        (12,),
        last_error=EVIL,
        retry_in_seconds=1e10,
    )
    leaving = Outcome(deployment("legacy"), Phase.STOPPING, "Draining", "It leaves.", None, (3,))
    return report(
        deployed("embed", LARGE),
        downloading,
        failed,
        observed=SECOND,
        removals=(leaving,),
        conditions=(
            Condition("GitReachable", True, "Fetched", "The repo was read."),
            Condition("BucketReachable", False, "Forbidden", f"It cannot be listed. {EVIL}"),
        ),
        problems=(Problem(f"deployments/{LONG}.yaml", 3, 1, f"unknown field {EVIL}"),),
        disk=Disk(25_000_000_000, 100_000_000_000, 5_000_000_000),
    )


def open_page(browser: Browser, node: Node, *, width: int = 1280, dark: bool = False) -> None:
    browser.console.clear()
    browser.look(width=width, dark=dark)
    browser.open(node.url)
    browser.wait_for("document.querySelector('h1')")


def test_everything_is_said_with_what_needs_attention_first(browser: Browser, node: Node) -> None:
    node.publish(busy_report())
    open_page(browser, node)
    text = browser.text()

    order = [
        "search-1",
        "1 of 4 deployments failed",
        "did something",
        "BucketReachable",
        "unknown field",
        "Grace Hopper",
        "Not fully applied yet. The last one that was: aaaaaaa Add ranker",
        "25.0 GB free of 100 GB",
        "Failed",
        "12 → 13",
        "Version 13 does not load",
        "LoadFailed · next try in",
        "Deploying",
        "41 → 42",
        "1.50 MB of 6.00 MB",
        "Stopping",
        "no longer in git",
        "Deployed",
        str(LARGE),
        "History",
    ]
    places = [text.find(words) for words in order]
    assert -1 not in places, text
    assert places == sorted(places)
    assert browser.evaluate("document.querySelector('progress').value") == 1_500_000
    assert browser.evaluate("document.title").startswith("✕ search-1")
    assert browser.console == []


def test_text_is_text_and_never_markup(browser: Browser, node: Node) -> None:
    node.publish(busy_report())
    open_page(browser, node)

    assert browser.text().count(EVIL) >= 5
    assert browser.evaluate("document.querySelectorAll('img, b, script:not([src])').length") == 0
    assert "owned" not in browser.evaluate("document.title")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_width_and_no_name_breaks_the_layout(
    browser: Browser, node: Node, width: int, dark: bool
) -> None:
    node.publish(busy_report())
    open_page(browser, node, width=width, dark=dark)

    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    overflowing = browser.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.matches('.aside') &&"
        " e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))"
    )
    assert overflowing == []
    assert browser.evaluate(LOW_CONTRAST) == []


def test_it_follows_the_agent_without_touching_what_stays(browser: Browser, node: Node) -> None:
    node.publish(report(deployed("embed", 7), deployed("spell", 1)))
    open_page(browser, node)
    browser.wait_for("document.body.innerText.includes('All is as git says')")
    browser.evaluate("window.kept = document.querySelector('tbody tr'); kept.mark = 1; true")

    node.publish(report(deployed("embed", 7), deployed("spell", 2), observed=SECOND))
    browser.wait_for("document.body.innerText.includes('1 → 2')")

    assert browser.evaluate("kept.isConnected && document.querySelector('tbody tr').mark === 1")
    assert "Grace Hopper" in browser.text()


def test_an_opened_list_stays_open_and_is_opened_by_keyboard(browser: Browser, node: Node) -> None:
    holds = Condition("GitReachable", True, "Fetched", "The repo was read.")
    node.publish(report(deployed("embed", 7), conditions=(holds,)))
    open_page(browser, node)
    assert "The repo was read." not in browser.text()

    browser.press("Tab")
    assert browser.evaluate("document.activeElement.tagName") == "SUMMARY"
    browser.press("Enter")
    node.publish(report(deployed("embed", 7), conditions=(holds,), summary="something new"))
    browser.wait_for("document.body.innerText.includes('something new')")

    assert "The repo was read." in browser.text()
    assert browser.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_versions_are_called_by_their_names(browser: Browser, node: Node) -> None:
    names = {41: "1.9.0", 42: "1.10.0"}
    under_way = Outcome(
        deployment("ranker", 42), Phase.DEPLOYING, "Downloading", "It comes.", 42, (41,),
        labels={"stable": 41}, names=names,
    )  # fmt: skip
    node.publish(report(replace(deployed("ranker", 41), names=names)))
    node.publish(report(under_way, generated_at_seconds=2020.0))
    open_page(browser, node)
    text = browser.text()
    assert "1.9.0 → 1.10.0" in text
    assert "stable 1.9.0" in text
    assert "none → 1.9.0" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "The config repo places no model on this node (group search)."),
        ({"group": None}, "No group of the config repo names search-1"),
        ({"observed": None, "applied": None}, "None is known before the first commit"),
    ],
)
def test_an_empty_node_says_why(
    browser: Browser, node: Node, changes: dict[str, object], words: str
) -> None:
    node.publish(report(**changes))
    open_page(browser, node)

    assert words in browser.text()
    assert "Nothing has changed on this node yet." in browser.text()


def test_it_says_when_the_loop_hangs_and_when_it_moves_again(browser: Browser, node: Node) -> None:
    node.publish(report(deployed("embed", 7)))
    open_page(browser, node)

    node.hang()

    browser.wait_for("document.querySelector('#banner p')")
    text = browser.text()
    assert "has not moved for 45 s" in text
    assert "What is shown below is what it said last." in text
    assert "embed" in text
    assert browser.evaluate("document.querySelector('main').className") == "stale"

    node.recover()
    browser.wait_for("!document.querySelector('#banner p')")
    assert browser.evaluate("document.querySelector('main').className") == ""


def test_it_says_when_the_agent_is_gone_and_keeps_what_was_known(
    browser: Browser, tmp_path: Path
) -> None:
    node = Node(tmp_path)
    try:
        node.publish(report(deployed("embed", 7)))
        open_page(browser, node)
    finally:
        node.stop()

    browser.wait_for("document.querySelector('#banner p')")
    assert "The agent has not answered since" in browser.text()
    assert "embed" in browser.text()
    assert browser.evaluate("document.querySelector('main').className") == "stale"
    assert browser.evaluate("document.title").startswith("?")


def test_before_the_first_report_it_says_what_it_waits_for(browser: Browser, node: Node) -> None:
    browser.look(width=1280)
    browser.open(node.url)
    browser.wait_for("document.querySelector('#banner p')")
    assert "There is no report yet" in browser.text()

    node.publish(report(deployed("embed", 7)))
    browser.wait_for("document.querySelector('h1') && !document.querySelector('#banner p')")
    assert browser.evaluate("document.querySelector('main').className") == ""


def test_without_scripts_it_says_where_else_to_look(browser: Browser, node: Node) -> None:
    browser.look(width=1280, scripts=False)
    browser.open(node.url)
    try:
        browser.wait_for("document.readyState === 'complete' && document.querySelector('noscript')")
        assert "This page needs JavaScript. /status" in browser.text()
    finally:
        browser.look(width=1280)
