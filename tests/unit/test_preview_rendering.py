"""The preview as text, as JSON and as a comment that nobody can write markup into."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Commit, Problem
from reconciler.preview.as_json import render_json
from reconciler.preview.catalog import Bytes
from reconciler.preview.markdown import MARKER, MAX_CHARACTERS, escape, render_markdown
from reconciler.preview.report import (
    Action,
    LabelMove,
    Level,
    ModelAction,
    NodeUsage,
    Preview,
    Remark,
    ServerChange,
    Usage,
)
from reconciler.preview.text import render_text
from reconciler.preview.wording import summarize

GB = 10**9
EVIL = "</details> <img src=x> @org/team #1 [a](http://evil.example) `x` **b** | www.evil.example"

ACTION = Action(
    group="search",
    model="ranker",
    path="deployments/search/ranker.yaml",
    before=41,
    after=42,
    downloads=(Bytes(42, 4, 1_200_000_000),),
    loaded=(42,),
    unloaded=(41,),
    deleted=(Bytes(40, 4, GB),),
    labels=(LabelMove("stable", 41, 42),),
    description="Ranks search results",
)
IDLE = Action("search", "spam", "deployments/search/spam.yaml", 7, 7)
PREVIEW = Preview(
    base=Commit("b" * 40, "Ada", "Before", 1.0),
    head=Commit("a" * 40, "Ada", "Serve ranker 42", 2.0),
    actions=(ModelAction(ACTION, ("search-1", "search-2")), ModelAction(IDLE, ("search-1",))),
    usages=(
        NodeUsage("search", ("search-1", "search-2"), (Usage("disk", GB, 2 * GB, 3 * GB, 4 * GB),)),
    ),
    remarks=(Remark(Level.WARNING, "AllAtOnce", "all at once", "search"),),
)


def test_the_summary_counts_what_changes() -> None:
    assert summarize(PREVIEW) == "1 model changes on 2 nodes: 2.4 GB to download, fits"


def test_the_summary_does_not_promise_what_is_not_known() -> None:
    unsized = replace(ACTION, downloads=(Bytes(42),))
    usage = replace(PREVIEW.usages[0].usages[0], unsized=("ranker",))
    made = replace(
        PREVIEW,
        actions=(ModelAction(unsized, ("search-1",)),),
        usages=(NodeUsage("search", ("search-1",), (usage,)),),
    )
    assert summarize(made) == (
        "1 model changes on 1 node: a download of unknown size, fits as far as sizes are known"
    )


def test_the_summary_says_what_does_not_fit_and_what_is_wrong() -> None:
    over = Remark(Level.PROBLEM, "OverQuota", "too much", "search")
    made = replace(PREVIEW, remarks=(over,))
    assert "does not fit" in summarize(made)
    wrong = replace(made, problems=(Problem("fleet.yaml", 1, 1, "wrong"),))
    assert summarize(wrong).endswith("1 problem in the files")


def test_the_text_says_what_happens_where() -> None:
    assert render_text(PREVIEW) == (
        "bbbbbbbbbb -> aaaaaaaaaa Serve ranker 42\n"
        "1 model changes on 2 nodes: 2.4 GB to download, fits.\n"
        "\n"
        "warnings:\n"
        "  search: all at once\n"
        "\n"
        "group search\n"
        "  ranker 41 -> 42 on search-1, search-2\n"
        "    download 42 (4 files, 1.2 GB)\n"
        "    load     42\n"
        "    label    stable 41 -> 42\n"
        "    unload   41\n"
        "    delete   40 (4 files, 1.0 GB)\n"
        "  spam 7 on search-1\n"
        "    nothing  no node does anything for it\n"
        "  search-1, search-2: disk 1.0 GB -> 2.0 GB of 4.0 GB, 3.0 GB at most in between\n"
    )


NEW_SERVER = ServerChange(
    group="ads",
    path="groups/ads.yaml",
    nodes=("ads-1", "ads-2"),
    image_before="tensorflow/serving:2.19.0",
    image_after="tensorflow/serving:2.20.0",
    flags_before=("--enable_batching=true", "--x=1"),
    flags_after=("--enable_batching=true", "--x=2", "--y"),
)
COURSE = "replaced, one node after the other, on nodes with RECONCILER_SUPERVISE=follow"


def test_the_summary_names_the_group_whose_server_changes() -> None:
    assert summarize(replace(PREVIEW, servers=(NEW_SERVER,))) == (
        "1 model changes on 2 nodes: 2.4 GB to download, fits; git asks for another server in"
        " group ads"
    )
    alone = replace(PREVIEW, actions=(), usages=(), servers=(NEW_SERVER,))
    assert summarize(alone) == "git asks for another server in group ads"
    both = replace(alone, servers=(NEW_SERVER, replace(NEW_SERVER, group="b")))
    assert summarize(both) == "git asks for other servers in 2 groups"


def test_the_text_says_which_server_takes_the_place_of_which() -> None:
    made = render_text(replace(PREVIEW, servers=(NEW_SERVER,)))
    assert (
        "\n\ngroup ads\n"
        f"  the server of ads-1, ads-2: {COURSE}\n"
        "    image    tensorflow/serving:2.19.0 -> tensorflow/serving:2.20.0\n"
        "    add      --x=2 --y\n"
        "    remove   --x=1\n"
        "\ngroup search\n"
    ) in made


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_before": None}, "image    as it is -> tensorflow/serving:2.20.0"),
        ({"flags_before": None, "flags_after": ("--a",)}, "flags    as they are -> --a"),
        ({"flags_before": ("--a",), "flags_after": None}, "flags    --a -> as they are"),
        ({"flags_before": None, "flags_after": ()}, "flags    as they are -> none of its own"),
        ({"flags_after": ()}, "remove   --enable_batching=true --x=1\n"),
    ],
)
def test_what_git_leaves_open_is_said_to_be_left(changes: dict[str, Any], words: str) -> None:
    made = render_text(replace(PREVIEW, servers=(replace(NEW_SERVER, **changes),)))
    assert f"    {words}" in made
    assert COURSE in made


def test_what_git_names_no_more_replaces_nothing() -> None:
    gone = replace(NEW_SERVER, image_after=None, flags_after=None)
    made = render_text(replace(PREVIEW, servers=(gone,)))
    assert "ads-1, ads-2: not replaced: what git names no more stays as it runs\n" in made
    assert COURSE not in made


def test_the_json_says_it_too() -> None:
    (made,) = json.loads(render_json(replace(PREVIEW, servers=(NEW_SERVER,))))["servers"]
    assert made == {
        "group": "ads",
        "path": "groups/ads.yaml",
        "nodes": ["ads-1", "ads-2"],
        "image_before": "tensorflow/serving:2.19.0",
        "image_after": "tensorflow/serving:2.20.0",
        "flags_before": ["--enable_batching=true", "--x=1"],
        "flags_after": ["--enable_batching=true", "--x=2", "--y"],
        "flags_added": ["--x=2", "--y"],
        "flags_removed": ["--x=1"],
        "replaces": True,
        "sentence": COURSE,
    }


def test_the_comment_says_it_too_and_no_flag_becomes_markup() -> None:
    evil = replace(NEW_SERVER, flags_after=(f"--a={EVIL}",))
    made = render_markdown(replace(PREVIEW, servers=(evil,)))
    assert "**Servers**" in made
    assert f"- **ads** on ads\\-1, ads\\-2: {escape(COURSE)}\n" in made
    assert "  - image tensorflow/serving\\:2.19.0 → tensorflow/serving\\:2.20.0\n" in made
    for markup in ("<img", "@org", "#1", "](http", "http://"):
        assert markup not in made


def test_the_text_moves_no_cursor() -> None:
    made = replace(PREVIEW, head=replace(PREVIEW.head, subject="a\x1b[2Jb\rc"))
    assert "\x1b" not in render_text(made)
    assert "\r" not in render_text(made)


def test_the_json_has_its_keys() -> None:
    made = json.loads(render_json(PREVIEW))
    assert list(made) == [
        "schema_version",
        "base",
        "head",
        "summary",
        "possible",
        "models_changed",
        "nodes_changed",
        "download_bytes",
        "sizes_known",
        "actions",
        "servers",
        "usages",
        "remarks",
        "problems",
    ]
    assert made["download_bytes"] == 2_400_000_000
    assert made["actions"][0]["downloads"] == [{"version": 42, "files": 4, "bytes": 1_200_000_000}]
    assert made["usages"][0]["quotas"][0]["fits"] is True


def test_the_comment_can_be_found_again() -> None:
    made = render_markdown(PREVIEW)
    assert made.startswith(f"{MARKER}\n")
    assert "| search | ranker | 41 → 42 | 42 \\(4 files, 1.2 GB\\) |" in made
    assert made.index("all at once") < made.index("| Group |") < made.index("<details>")


def test_nothing_from_git_becomes_markup() -> None:
    made = render_markdown(
        replace(
            PREVIEW,
            head=replace(PREVIEW.head, subject=EVIL),
            actions=(ModelAction(replace(ACTION, description=EVIL, trouble=EVIL), ("search-1",)),),
            remarks=(Remark(Level.WARNING, "Frozen", EVIL, "search"),),
            problems=(Problem(EVIL, 1, 1, f"{EVIL}\n# heading\n- item"),),
        )
    )
    assert made.count("</details>") == made.count("<details>") == 2
    assert "<img" not in made
    assert "@org" not in made
    assert "#1" not in made
    assert "](http" not in made
    assert "http://" not in made
    assert "www.evil" not in made
    assert "\n# heading" not in made
    assert "\n- item" not in made


@given(st.text(max_size=300))
def test_escaped_text_is_one_line_without_bare_markup(text: str) -> None:
    made = escape(text)
    assert "\n" not in made
    assert "<" not in made
    assert ">" not in made
    bare = made
    while "\\" in bare:
        start = bare.index("\\")
        bare = bare[:start] + bare[start + 2 :]
    assert not set(bare) & set("`*_[]|#~$!{}")


def test_a_comment_stays_within_what_github_takes() -> None:
    many = tuple(
        ModelAction(
            replace(ACTION, model=f"m{number}", description="*" * 1000, trouble="@" * 900),
            tuple(f"node-{number}-{other}" for other in range(30)),
        )
        for number in range(500)
    )
    remarks = tuple(
        Remark(Level.WARNING, "Frozen", "!" * 900, "search", f"m{number}") for number in range(500)
    )
    problems = tuple(Problem(f"f{number}.yaml", 1, 1, "#" * 900) for number in range(200))
    made = render_markdown(
        replace(
            PREVIEW, actions=many, remarks=remarks, problems=problems, usages=PREVIEW.usages * 500
        )
    )
    assert len(made) <= MAX_CHARACTERS
    assert "more rows are not shown" in made
    assert made.count("<details>") == made.count("</details>")
