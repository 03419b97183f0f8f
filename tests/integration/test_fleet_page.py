"""The fleet's page in a real browser: what people see, by keyboard, at both widths, at size."""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest

from reconciler.resources import data_folder
from tests.browser import LOW_CONTRAST, Browser, running_browser
from tests.fleetpage import DOCS, PICTURES, SHOWN, FleetPage, showing, take_pictures
from tests.fleetviews import make_view

View = dict[str, Any]

EXAMPLE = Path(__file__).parents[1] / "data" / "fleet-view.json"
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
LONG = "averylongname" * 16
LARGE = 9_007_199_254_740_993  # one more than a JavaScript number can hold
PLACES = (
    "#overview",
    "#deployments?open=search/ranker&open=search/speller",
    "#nodes?open=search-2&open=ads-1",
    "#changes",
)
FOCUSED = "document.activeElement"
ROWS = "[...document.querySelectorAll('.item > .row')].map(row => row.innerText)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture
def view() -> View:
    """The example of the schema, as if it had just been made."""
    found: View = json.loads(EXAMPLE.read_text())
    found["generated_at"] = moment(0)
    return found


@pytest.fixture
def page(view: View) -> Iterator[FleetPage]:
    with showing(view) as running:
        yield running


def moment(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()


def go(
    browser: Browser, page: FleetPage, place: str = "", *, width: int = 1280, dark: bool = False
) -> None:
    browser.look(width=width, dark=dark)
    browser.open("about:blank")
    browser.wait_for("location.href === 'about:blank'")
    browser.console.clear()
    browser.open(page.url + place)
    browser.wait_for(SHOWN)


def read(browser: Browser) -> str:
    """The text of the page, once the browser has found out which rows are on the screen."""
    browser.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    return browser.text()


def ask_now(browser: Browser) -> None:
    """Let the page ask as when its tab comes to the front, instead of waiting for the next time."""
    browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def rows(browser: Browser) -> list[str]:
    """The rows of the table that are on the screen, each as one line."""
    read(browser)
    return [" ".join(row.split()) for row in browser.evaluate(ROWS)]


def in_order(text: str, words: list[str]) -> None:
    place = 0
    for word in words:
        found = text.find(word, place)
        assert found >= 0, f"{word!r} does not follow in:\n{text[place:]}"
        place = found


# --- what is said ---------------------------------------------------------------------------


def test_the_overview_says_what_is_wrong_first(browser: Browser, page: FleetPage) -> None:
    go(browser, page)

    in_order(
        read(browser),
        [
            "Fleet",
            "5 things are wrong",
            "as of",
            "critical",
            "vision/detector: 0 of 1 replicas serve it",
            "serious",
            "search-2: it has not answered since 09:29:35 UTC",
            "search/ranker: 0 of 3 replicas serve version 42",
            "warning",
            "ads-1: GitReachable does not hold",
            "2 of 6 well",
            "1 dead",
            "2 trouble",
            "1 not asked",
            "2 of 6 deployed",
            "1 failed",
            "fullest: search-3 with 3.00 GB free",
            "Roll ranker out to 42",
            "1a2b3c4",
            "applied by 2 of 6 nodes; ads-1 is 1 commit behind",
            "Groups",
            "search",
            "Failed",
            "2 of 4 well",
            "1 of 4 deployed",
            "Last changes",
            "failed LoadFailed",
            "ranker",
            "Seen from search-1. What is expected is known from the config repo.",
        ],
    )
    assert browser.evaluate("document.title") == "✕ 5 things are wrong · Fleet"
    assert browser.console == []


def test_a_deployment_opens_into_where_it_stands_on_each_node(
    browser: Browser, page: FleetPage
) -> None:
    go(browser, page, "#deployments")
    shown = rows(browser)

    assert shown[0].startswith("ranker search ✕Failed 41 → 42 serving 41, wanted 42 0 of 3")
    assert [row.split()[0] for row in shown[:2]] == ["ranker", "speller"]
    assert "gs://acme-models/ranker" not in read(browser)

    browser.evaluate("document.querySelector('[data-open=\"search/ranker\"]').click()")

    in_order(
        read(browser),
        [
            "Ranks search results",
            "gs://acme-models/ranker",
            "deployments/search/ranker.yaml",
            "search-3",
            "41 → 42",
            "stable 41",
            "LoadFailed",
            "search-2",
            "Unknown",
            "NoAnswer",
            "search-1",
            "version 42 is being downloaded; version 41 goes on serving",
            "1.05 MB of 4.19 MB",
        ],
    )
    assert browser.evaluate("document.querySelector('progress').value") == 1_048_576


def test_dead_nodes_come_first_with_since_when(browser: Browser, view: View) -> None:
    dead = next(node for node in view["nodes"] if node["state"] == "dead")
    dead["answered_at"] = moment(125)
    never = next(node for node in view["nodes"] if node["name"] == "search-4")
    never |= {"state": "dead", "answered_at": None, "silent_seconds": None, "disk": None}
    never["sentence"] = "it has not answered yet: refused"
    with showing(view) as page:
        go(browser, page, "#nodes?open=search-2")
        shown = rows(browser)

        assert [row.split()[0] for row in shown] == [
            *("search-2", "search-4", "ads-1", "search-3", "vision-1", "search-1")
        ]
        assert "✕Dead" in shown[0]
        assert "No answer for 2 min: it has not answered since" in shown[0]
        assert "it has not answered yet: refused" in shown[1]
        assert "No answer for" not in shown[1]
        assert "3.00 GB" in shown[3]
        assert "nobody knows its address" in shown[4]
        in_order(read(browser), ["10.0.0.12:8080", "restarts seen", "ranker", "Unknown", "speller"])
        link = browser.evaluate("document.querySelector('dd a').href")
        assert link == "http://10.0.0.12:8080/"


def test_two_agents_of_one_name_are_both_shown(browser: Browser, view: View) -> None:
    twin = copy.deepcopy(next(node for node in view["nodes"] if node["name"] == "search-1"))
    view["nodes"] += [{**twin, "address": "10.0.0.99:8080", "state": "dead"}]
    with showing(view) as page:
        go(browser, page, "#nodes?text=search-1")
        named = [row for row in rows(browser) if row.startswith("search-1 ")]
        assert len(named) == 2
        assert "Dead" in named[0]
        assert "Well" in named[1]

        browser.evaluate("window.kept = [...document.querySelectorAll('.item')]; true")
        view["nodes"][-1]["state"] = "trouble"
        page.show(view)
        ask_now(browser)
        browser.wait_for("document.querySelector('.is-trouble')")
        assert browser.evaluate("kept.every(item => item.isConnected)")


def test_text_is_text_and_never_markup(browser: Browser, view: View) -> None:
    evil = json.loads(
        json.dumps(view)
        .replace("search-2", json.dumps(EVIL)[1:-1])
        .replace("ranker", json.dumps(EVIL + "r")[1:-1])
        .replace('"search"', json.dumps(EVIL + "g"))
        .replace("10.0.0.12:8080", json.dumps("javascript:alert(1)//" + EVIL)[1:-1])
    )
    evil["deployments"][0]["description"] = evil["newest"]["subject"] = EVIL
    with showing(evil) as page:
        name = quote(EVIL)
        for place in ("", f"#deployments?text={name}", f"#nodes?open={name}", "#changes"):
            go(browser, page, place)
            assert EVIL in read(browser)
            assert (
                browser.evaluate("document.querySelectorAll('img, script:not([src])').length") == 0
            )
            assert "owned" not in browser.evaluate("document.title")
            assert browser.evaluate("document.querySelectorAll('[href^=javascript]').length") == 0
            assert browser.console == []


def test_versions_are_called_by_their_names(browser: Browser, view: View) -> None:
    model = view["deployments"][0]
    model["wanted_versions"] = [LARGE]
    model["nodes"][0]["serving_versions"] = [LARGE - 1]
    model["version_names"] = {"41": "1.9.0", str(LARGE - 1): "1.10.0", str(LARGE): "1.11.0"}
    view["changes"][0]["to_name"] = "1.9.0-b"
    with showing(view) as page:
        go(browser, page, "#deployments")
        assert "1.9.0, 1.10.0 → 1.11.0" in read(browser)
        go(browser, page, "#changes")
        assert "1.9.0-b" in read(browser)


def test_versions_keep_all_their_digits(browser: Browser, view: View) -> None:
    model = view["deployments"][0]
    model["wanted_versions"] = [LARGE]
    model["nodes"][0]["serving_versions"] = [LARGE - 2, LARGE - 1]
    with showing(view) as page:
        go(browser, page, "#deployments")
        assert f"41, {LARGE - 2}, {LARGE - 1} → {LARGE}" in read(browser)


@pytest.mark.parametrize(
    ("changes", "title", "words"),
    [
        ({"state": "well", "wrong": [], "wrong_count": 0}, "✓ All is well · Fleet", "Groups"),
        ({"state": "blind"}, "✕ No node answers · Fleet", "What is wrong, worst first"),
        (
            {"groups": [], "nodes": [], "deployments": [], "changes": [], "newest": None},
            "✕ 5 things are wrong · Fleet",
            "There are none.",
        ),
        (
            {"wrong_count": 512},
            "✕ 512 things are wrong · Fleet",
            "507 more are wrong and not listed",
        ),
    ],
    ids=["well", "blind", "empty", "more"],
)
def test_every_state_has_its_words(
    browser: Browser, view: View, changes: View, title: str, words: str
) -> None:
    view |= changes
    if not view["wrong"]:
        view["counts"]["deployments"] |= {"Deploying": 0, "Stopping": 0}
    with showing(view) as page:
        go(browser, page)
        assert browser.evaluate("document.title") == title
        assert words in read(browser)
        assert browser.console == []


# --- finding --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "models"),
    [
        ("#deployments?text=RANK", ["ranker"]),
        ("#deployments?text=search-2", ["ranker", "speller"]),
        ("#deployments?text=serve+search-2", ["ranker", "speller"]),
        ("#deployments?group=vision", ["detector"]),
        ("#deployments?phase=Failed&phase=Stopped", ["ranker", "legacy"]),
        ("#deployments?phase=Unknown&group=search", ["speller"]),
        ("#deployments?phase=Invented&text=detector", ["detector"]),
        ("#deployments?text=nowhere", []),
    ],
)
def test_a_link_shows_what_its_filters_let_through(
    browser: Browser, page: FleetPage, view: View, place: str, models: list[str]
) -> None:
    go(browser, page, place)

    assert [row.split()[0] for row in rows(browser)] == models
    shown = browser.evaluate("document.querySelector('#shown').textContent")
    assert shown == f"{len(models)} of {len(view['deployments'])}"


def test_filters_stand_in_the_address_and_can_be_cleared(browser: Browser, page: FleetPage) -> None:
    go(browser, page, "#deployments")
    everything = rows(browser)

    browser.evaluate("document.querySelector('[data-facet=Unknown]').click()")
    browser.evaluate(
        "(select => { select.value = 'search';"
        " select.dispatchEvent(new Event('change', {bubbles: true})) })"
        "(document.querySelector('#group'))"
    )
    assert [row.split()[0] for row in rows(browser)] == ["speller"]
    browser.wait_for("location.hash === '#deployments?group=search&phase=Unknown'")
    pressed = "document.querySelector('[data-facet=Unknown]').ariaPressed"
    assert browser.evaluate(pressed) == "true"

    go(browser, page, "#deployments?group=search&phase=Unknown&text=nothing")
    assert "Nothing here matches the filters." in read(browser)
    browser.evaluate("document.querySelector('[data-clear]').click()")
    assert rows(browser) == everything
    browser.wait_for("location.hash === '#deployments'")


def test_the_overview_leads_to_what_is_wrong(browser: Browser, page: FleetPage) -> None:
    go(browser, page)
    browser.evaluate("document.querySelectorAll('#section-wrong li')[2].querySelector('a').click()")
    browser.wait_for("location.hash === '#deployments?open=search%2Franker'")

    browser.wait_for(f"{FOCUSED}.dataset.open === 'search/ranker'")
    assert browser.evaluate(f"{FOCUSED}.getAttribute('aria-expanded')") == "true"
    assert "Ranks search results" in read(browser)

    browser.evaluate("history.back()")
    browser.wait_for("document.querySelector('#section-wrong')")


def test_a_link_to_what_has_gone_says_so(browser: Browser, page: FleetPage) -> None:
    go(browser, page, "#deployments?open=search/gone")
    assert "search/gone is not, or no longer, in the fleet." in read(browser)


# --- the keyboard and the screen reader -----------------------------------------------------


def test_it_can_be_used_with_the_keyboard_alone(browser: Browser, page: FleetPage) -> None:
    go(browser, page, "#deployments")

    browser.press("Tab")
    assert browser.evaluate(f"{FOCUSED}.id") == "skip"
    assert browser.evaluate(f"{FOCUSED}.getBoundingClientRect().top") >= 0
    browser.press("Enter")
    assert browser.evaluate(f"{FOCUSED}.id") == "main"
    assert browser.evaluate("location.hash") == "#deployments"
    browser.press("Tab")
    assert browser.evaluate(f"{FOCUSED}.dataset.open") == "search/ranker"
    assert browser.evaluate(f"getComputedStyle({FOCUSED}).outlineStyle") == "solid"

    browser.press("/")
    assert browser.evaluate(f"{FOCUSED}.id") == "text"
    browser.write("spell")
    assert [row.split()[0] for row in rows(browser)] == ["speller"]
    browser.press("ArrowDown")
    assert browser.evaluate(f"{FOCUSED}.dataset.open") == "search/speller"
    browser.press("Enter")
    assert "version 7 serves until search-2 does" in read(browser)
    browser.press("/")
    browser.press("Escape")
    assert len(rows(browser)) > 1

    browser.evaluate("document.querySelector('[data-open]').focus()")
    browser.press("ArrowDown")
    assert browser.evaluate(f"{FOCUSED}.dataset.open") == "search/speller"
    browser.press("ArrowUp")
    assert browser.evaluate(f"{FOCUSED}.dataset.open") == "search/ranker"


@pytest.mark.parametrize("width", [1280, 390])
def test_a_screen_reader_is_told_of_tables(browser: Browser, page: FleetPage, width: int) -> None:
    go(browser, page, "#deployments?open=search/ranker", width=width)
    told = browser.accessible()
    roles = [role for role, _ in told]

    assert ("table", "Deployments") in told
    assert ("table", "search/ranker on its nodes") in told
    heads = [name for role, name in told if role == "columnheader"]
    assert heads == [
        *("Model", "Phase", "Version", "Replicas", "Where it stands"),
        *("Node", "Phase", "Version", "What is going on"),
    ]
    # Heads, six rows and what is in one of them: a head and three nodes.
    assert roles.count("row") == 1 + 6 + 1 + 1 + 3
    assert ("button", "ranker search") in told
    assert ("searchbox", "Filter by text") in told
    assert any("serving 41, wanted 42" in name for _, name in told)
    assert ("navigation", "Views") in told


# --- looks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_width_and_no_name_breaks_the_layout(
    browser: Browser, view: View, width: int, dark: bool
) -> None:
    for item in (view["deployments"][1], view["nodes"][3], view["changes"][1]):
        item["model" if "model" in item else "name"] = LONG
    view["groups"][1]["name"] = view["wrong"][1]["node"] = LONG
    view["newest"]["subject"] = view["wrong"][2]["sentence"] = LONG * 3
    view["deployments"][0]["source"] = f"gs://{LONG * 3}"
    with showing(view) as page:
        for place in PLACES:
            go(browser, page, place, width=width, dark=dark)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, place
            beyond = browser.evaluate(
                "[...document.querySelectorAll('section > *, .row, .row > *, .detail, nav a')]"
                ".filter(e => !e.closest('.aside, .head, option'))"
                ".filter(e => e.getBoundingClientRect().right > innerWidth)"
                ".map(e => e.outerHTML.slice(0, 80))"
            )
            assert beyond == [], place
            assert browser.evaluate(LOW_CONTRAST) == [], place


def test_the_pictures_of_the_docs_can_be_made_anew(
    browser: Browser, page: FleetPage, tmp_path: Path
) -> None:
    take_pictures(browser, page, tmp_path)

    for name in PICTURES:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG"), name
        assert 5_000 < (DOCS / name).stat().st_size < 100_000, name
    browser.open("about:blank")
    assert browser.console == []


# --- time -----------------------------------------------------------------------------------


def test_it_follows_the_fleet_without_touching_what_stays(
    browser: Browser, page: FleetPage, view: View
) -> None:
    go(browser, page, "#deployments?open=search/speller")
    browser.evaluate(
        "window.kept = [...document.querySelectorAll('.item')];"
        "document.querySelector('[data-open=\"search/suggest\"]').focus(); true"
    )
    ranker = view["deployments"].pop(0)
    ranker |= {"phase": "Deployed", "sentence": "3 of 3 replicas serve version 42"}
    view["deployments"].append(ranker)

    page.show(view)
    ask_now(browser)
    browser.wait_for("document.querySelector('.item:last-child').innerText.includes('3 of 3')")

    assert browser.evaluate("kept.every(item => item.isConnected)")
    assert browser.evaluate("document.querySelector('.item:last-child') === kept[0]")
    assert browser.evaluate(f"{FOCUSED}.dataset.open") == "search/suggest"
    assert "version 7 serves until search-2 does" in read(browser)


def test_what_is_the_same_is_not_sent_again_and_still_new(
    browser: Browser, page: FleetPage, view: View
) -> None:
    view["generated_at"] = moment(60)
    page.show(view)
    go(browser, page)
    assert browser.evaluate("document.querySelector('.pulse').className") == "pulse old"

    ask_now(browser)
    browser.wait_for("performance.getEntriesByType('resource').some(e => e.responseStatus === 304)")
    browser.wait_for("document.querySelector('.pulse').className === 'pulse'")
    assert "1 min ago" not in browser.evaluate("document.querySelector('#age').innerText")


def test_it_says_when_the_server_is_gone_and_keeps_what_was_known(
    browser: Browser, view: View
) -> None:
    with showing(view) as page:
        go(browser, page)

    browser.wait_for("document.querySelector('#banner p')")
    text = read(browser)
    assert "The server of this page has not answered since" in text
    assert "What is shown below is what it said last." in text
    assert "search-2: it has not answered" in text
    assert browser.evaluate("document.querySelector('main').className") == "stale"
    assert browser.evaluate("document.title").startswith("?")


def test_it_says_what_the_server_says_and_recovers(browser: Browser, view: View) -> None:
    with showing(None) as page:
        browser.look(width=1280)
        browser.open(page.url)
        browser.wait_for("document.querySelector('#banner p')")
        assert "No node was asked yet." in read(browser)

        page.show(view)
        ask_now(browser)
        browser.wait_for(f"{SHOWN} && !document.querySelector('#banner p')")
        assert browser.evaluate("document.querySelector('main').className") == ""


def test_without_scripts_it_says_where_else_to_look(browser: Browser, page: FleetPage) -> None:
    browser.look(width=1280, scripts=False)
    browser.open(page.url)
    try:
        browser.wait_for("document.readyState === 'complete' && document.querySelector('noscript')")
        assert "This page needs JavaScript. /fleet.json has the" in browser.text()
    finally:
        browser.look(width=1280)


# --- size -----------------------------------------------------------------------------------


def test_a_large_fleet_is_there_as_a_whole_and_laid_out_only_where_seen(browser: Browser) -> None:
    large = make_view()
    schema = json.loads((data_folder("schema") / "fleet-view.schema.json").read_text())
    jsonschema.validate(large, schema)
    with showing(large) as page:
        go(browser, page, "#nodes")
        assert len(rows(browser)) == 300
        go(browser, page, "#deployments")
        assert browser.evaluate("document.querySelectorAll('.item').length") == 1000
        assert browser.evaluate("document.querySelectorAll('.detail').length") == 0
        skipped = (
            "document.querySelector('.item:last-child .row')"
            ".checkVisibility({contentVisibilityAuto: true})"
        )
        assert browser.evaluate(skipped) is False
        last = large["deployments"][-1]["model"]
        assert last in browser.evaluate("document.querySelector('.item:last-child').textContent")
        assert browser.evaluate("document.documentElement.scrollWidth") <= 1280
        elsewhere = (
            "performance.getEntriesByType('resource')"
            ".filter(entry => new URL(entry.name).origin !== location.origin)"
        )
        assert browser.evaluate(elsewhere) == []
        assert browser.console == []
