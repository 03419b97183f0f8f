"""`reconciler comment` against a server that plays the comment APIs of both forges."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.comment import MAX_CHARACTERS, comment
from reconciler.cli.forge_options import TOKEN_VARIABLE
from reconciler.demo.services import free_port
from reconciler.forge import comments, requests
from reconciler.preview.markdown import MARKER
from tests.forgeserver import ADA, CHANGES, LISTS, VERBS, Forge, serve_comments

TOKEN = "a-forge-token-nobody-should-see"
PLAN = f"{MARKER}\n### ranker 41 → 42\n"
OLD_PLAN = f"{MARKER}\n### ranker 40 → 41\n"


def run(
    forge: Forge, file: str, *options: str, stdin: bytes | None = None, token: str = TOKEN
) -> Result:
    return CliRunner().invoke(
        comment,
        ["--to", forge.kind, "--project", "acme/fleet", "--request", "3", "--api", forge.url,
         *options, file],
        input=stdin,
        env={TOKEN_VARIABLE: token, "no_proxy": "127.0.0.1"},
    )  # fmt: skip


@pytest.fixture(params=["github", "gitlab"])
def forge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    monkeypatch.setattr(requests, "_RETRY_AFTER_SECONDS", (0.0, 0.0))
    with serve_comments(request.param) as playing:
        yield playing


@pytest.fixture
def plan(tmp_path: Path) -> str:
    (tmp_path / "plan.md").write_text(PLAN)
    return str(tmp_path / "plan.md")


def test_the_first_plan_makes_a_comment(forge: Forge, plan: str) -> None:
    forge.add("Looks good to me")
    result = run(forge, plan)

    assert result.exit_code == 0
    assert forge.bodies == ["Looks good to me", PLAN]
    assert forge.writes == [f"POST {LISTS[forge.kind]}"]
    if forge.kind == "github":
        link = "https://github.example.org/acme/fleet/pull/3#issuecomment-101"
        assert result.output == f"made the comment {link}\n"
        assert forge.headers[-1]["authorization"] == f"Bearer {TOKEN}"
        assert forge.headers[-1]["x-github-api-version"] == "2022-11-28"
    else:
        assert result.output == "made comment 101\n"
        assert forge.headers[-1]["private-token"] == TOKEN


def test_the_next_plan_is_written_over_it(forge: Forge, plan: str) -> None:
    forge.add("Looks good to me")
    number = forge.add(OLD_PLAN)
    forge.add(f"I quote:\n{OLD_PLAN}")
    result = run(forge, plan)

    assert result.exit_code == 0
    assert result.output.startswith("updated ")
    assert forge.bodies == ["Looks good to me", PLAN, f"I quote:\n{OLD_PLAN}"]
    assert forge.writes == [f"{VERBS[forge.kind]} {CHANGES[forge.kind]}/{number}"]


@pytest.mark.parametrize("before", [PLAN, PLAN.replace("\n", "\r\n"), PLAN.rstrip()])
def test_the_same_plan_is_not_written_again(forge: Forge, plan: str, before: str) -> None:
    forge.add(before)
    result = run(forge, plan)
    assert (result.exit_code, forge.writes) == (0, [])
    assert result.output.endswith(" says so already\n")


def test_the_comment_is_found_on_a_later_page(forge: Forge, plan: str) -> None:
    for number in range(6):
        forge.add(f"Comment {number}")
    forge.add(OLD_PLAN)
    forge.add("The last word")
    forge.page_length = 2
    assert run(forge, plan).exit_code == 0
    assert forge.bodies[6:] == [PLAN, "The last word"]
    assert [asked[-6:] for asked in forge.asked if "per_page" in asked] == [
        f"page={number}" for number in range(1, 5)
    ]


def test_the_look_ends_where_the_comment_is(forge: Forge, plan: str) -> None:
    forge.add(OLD_PLAN)
    forge.add("More")
    forge.page_length = 1
    assert run(forge, plan).exit_code == 0
    assert not any(asked.endswith("&page=2") for asked in forge.asked)


def test_the_look_has_a_bound(forge: Forge, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comments, "MAX_PAGES", 3)
    forge.page_length = 1
    for number in range(4):
        forge.add(f"Comment {number}")
    result = run(forge, plan)
    assert result.exit_code == 1
    assert "more than 3 pages of comments" in str(result.exception)
    assert forge.writes == []

    forge.comments.pop()
    assert run(forge, plan).exit_code == 0
    assert forge.bodies[-1] == PLAN


def test_what_somebody_else_wrote_is_left_to_them(forge: Forge, plan: str) -> None:
    forge.add(OLD_PLAN, ADA)
    number = forge.add(OLD_PLAN)
    assert run(forge, plan).exit_code == 0
    assert forge.bodies == [OLD_PLAN, PLAN]
    assert forge.writes == [f"{VERBS[forge.kind]} {CHANGES[forge.kind]}/{number}"]

    forge.comments.pop()
    assert run(forge, plan).exit_code == 0
    assert forge.bodies == [OLD_PLAN, PLAN]


def test_an_app_takes_the_comment_of_a_bot_and_of_nobody_else(
    plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_comments("github") as forge:
        forge.me = None
        forge.add(OLD_PLAN, ADA)
        forge.comments.append({"id": 1, "body": OLD_PLAN, "user": None})
        assert run(forge, plan).output.startswith("made ")
        run(forge, plan)
        assert run(forge, plan).output.endswith("says so already\n")
        assert forge.bodies == [OLD_PLAN, OLD_PLAN, PLAN]


def test_a_comment_that_may_not_be_changed_gets_a_new_one_beside_it(
    forge: Forge, plan: str
) -> None:
    number = forge.add(OLD_PLAN)
    forge.locked.add(number)
    result = run(forge, plan)
    assert result.exit_code == 0
    assert result.output.startswith("made ")
    assert forge.bodies == [OLD_PLAN, PLAN]


def test_a_comment_that_was_removed_meanwhile_is_made_again(forge: Forge, plan: str) -> None:
    forge.add(OLD_PLAN)
    forge.troubles.append((VERBS[forge.kind], 404, b"{}"))
    assert run(forge, plan).output.startswith("made ")


@pytest.mark.parametrize("code", [0, 502])
def test_a_comment_whose_answer_was_lost_is_not_made_twice(
    forge: Forge, plan: str, code: int
) -> None:
    forge.troubles.append(("POST", code, b""))
    result = run(forge, plan)
    assert result.exit_code == 0
    assert forge.bodies == [PLAN]
    assert result.output.endswith("says so already\n")


def test_an_overloaded_forge_is_asked_three_times(forge: Forge, plan: str) -> None:
    forge.troubles += [("GET", 503, b""), ("GET", 429, b"")]
    assert run(forge, plan).exit_code == 0
    assert forge.bodies == [PLAN]

    forge.asked.clear()
    forge.troubles += [("GET", 503, b"Sorry")] * 3
    result = run(forge, plan)
    assert result.exit_code == 1
    assert "answered 503 (Sorry)" in str(result.exception)
    assert len(forge.asked) == 3


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (401, "the token is not valid"),
        (403, "the token may not comment in acme/fleet; it needs `pull-requests: write`"),
        (404, "check --project, --request and the token"),
        (410, "check --project, --request and the token"),
        (422, "does not take the text"),
        (418, "answered 418"),
        (302, "a redirect; name the right --api"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refusal_is_a_sentence_without_the_token(
    forge: Forge, plan: str, method: str, code: int, sentence: str
) -> None:
    words = json.dumps({"message": f"No.\x1b[2J {TOKEN}"}).encode()
    forge.troubles.append((method, code, words))
    result = run(forge, plan)
    said = str(result.exception)
    assert result.exit_code == 1
    assert sentence in said
    assert said.startswith({"github": "GitHub", "gitlab": "GitLab"}[forge.kind] + " took no comm")
    assert "***)" in said
    assert TOKEN not in said + result.output
    assert "\x1b" not in said


@pytest.mark.parametrize("content", [b"", b"{}", b"<html>", b"[" * 9000, b"\xff"])
def test_an_answer_in_another_form_is_a_sentence(forge: Forge, plan: str, content: bytes) -> None:
    forge.troubles.append(("GET", 200, content))
    result = run(forge, plan)
    assert "is no such API, check --api" in str(result.exception)
    assert forge.writes == []

    forge.add(OLD_PLAN)
    forge.troubles += [("GET", 200, json.dumps(forge.comments).encode()), ("GET", 200, content)]
    assert "whose the token is" in str(run(forge, plan).exception)
    assert forge.writes == []


def test_entries_that_are_no_comments_are_passed_over(forge: Forge, plan: str) -> None:
    odd = [None, 1, {}, {"body": PLAN}, {"id": "../../x", "body": PLAN}, {"id": 1, "body": None}]
    forge.troubles.append(("GET", 200, json.dumps(odd).encode()))
    assert run(forge, plan).exit_code == 0
    assert forge.writes == [f"POST {LISTS[forge.kind]}"]


def test_an_answer_without_end_is_not_read_to_its_end(
    forge: Forge, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_ANSWER_BYTES", 1024 * 1024)
    forge.troubles += [("GET", 200, b" " * (2 * 1024 * 1024))] * 3
    result = run(forge, plan)
    assert "its answer is longer than 1 MiB" in str(result.exception)
    assert forge.writes == []


def test_an_answer_that_trickles_in_is_not_waited_for(
    forge: Forge, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_DEADLINE_SECONDS", 0.1)
    forge.trickles = True
    result = run(forge, plan)
    assert "its answer was not complete within 0.1 s" in str(result.exception)
    assert forge.writes == []


def test_a_forge_that_is_not_there_is_a_sentence(forge: Forge, plan: str) -> None:
    result = run(forge, plan, "--api", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "did not answer; check --api and the network" in str(result.exception)


def test_a_dry_run_looks_and_writes_nothing(forge: Forge, plan: str) -> None:
    assert run(forge, plan, "--dry-run").output == "would make a comment\n"
    forge.add(OLD_PLAN)
    assert run(forge, plan, "--dry-run").output.startswith("would update ")
    forge.comments[0]["body"] = PLAN
    assert run(forge, plan, "--dry-run").output.endswith("says so already\n")
    assert forge.writes == []


def test_the_plan_may_come_from_standard_input(forge: Forge) -> None:
    assert run(forge, "-", stdin=PLAN.encode()).exit_code == 0
    assert forge.bodies == [PLAN]


def test_the_longest_plan_is_taken(forge: Forge) -> None:
    text = MARKER + "\n" + "😀" * (MAX_CHARACTERS - len(MARKER) - 1)
    assert run(forge, "-", stdin=text.encode()).exit_code == 0
    assert forge.bodies == [text]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"### ranker\n", f"does not begin with {MARKER}"),
        (f"\n{PLAN}".encode(), f"does not begin with {MARKER}"),
        (f"{MARKER} and more\n".encode(), f"does not begin with {MARKER}"),
        (MARKER.encode() + b"\n\xff", "is not text in UTF-8"),
        (f"{MARKER}\n{'x' * MAX_CHARACTERS}".encode(), "is longer than 65,000 characters"),
        (f"{MARKER}\n{'😀' * (MAX_CHARACTERS + 9)}".encode(), "is longer than 65,000 characters"),
    ],
)
def test_what_is_no_plan_is_wrong_usage(forge: Forge, content: bytes, sentence: str) -> None:
    result = run(forge, "-", stdin=content)
    assert result.exit_code == 2
    words = re.sub(r"\s+", " ", result.output)
    assert sentence in words
    assert "give what `reconciler plan --format markdown` printed" in words
    assert forge.asked == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--request", "0"], "--request"),
        (["--request", "3/../4"], "--request"),
        (["--project", "../../user"], "write it as owner/name"),
        (["--api", "http://git.example.org"], "--api must be https"),
        (["--to", "sourcehut"], "--to"),
    ],
)
def test_an_address_that_cannot_be_right_is_wrong_usage(
    forge: Forge, plan: str, options: list[str], sentence: str
) -> None:
    result = run(forge, plan, *options)
    assert result.exit_code == 2
    assert sentence in result.output
    assert forge.asked == []


def test_without_a_token_nobody_is_asked(forge: Forge, plan: str, tmp_path: Path) -> None:
    result = run(forge, plan, token="")
    assert result.exit_code == 2
    assert "there is no usable token" in result.output
    assert forge.asked == []

    (tmp_path / "token").write_text("another\n")
    assert run(forge, plan, "--token-file", str(tmp_path / "token")).exit_code == 0
    assert any("another" in value for value in forge.headers[0].values())


def test_a_file_that_is_not_there_is_wrong_usage(forge: Forge, tmp_path: Path) -> None:
    result = run(forge, str(tmp_path / "none.md"))
    assert result.exit_code == 2
    assert "none.md" in result.output
