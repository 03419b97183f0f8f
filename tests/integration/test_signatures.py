"""Signed commits from end to end: real keys, real git, and a node that is restarted in between."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.config_repo.desired import ConfigRepo
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from reconciler.errors import SettingsError
from reconciler.follow.trust import Trust
from reconciler.follow.watch import GitWatch
from reconciler.settings import Settings
from tests.gitserver import ConfigRemote, git
from tests.keys import (
    GpgHome,
    GpgKey,
    SshKey,
    alter,
    backdate,
    gpg_home,
    make_ssh_key,
    stop_signing,
)

RANKER = "deployments/g/ranker.yaml"


class Fleet(ConfigRemote):
    """A config repo with one model on one node."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.write({"groups/g.yaml": "nodes: [n1]\n"})
        self._model = "source: gs://demo-models/ranker\nversion: {}\n"

    def set_version(self, version: int, subject: str = "Change ranker") -> str:
        """Commit and push a version of the model; returns the commit's id."""
        return self.commit({RANKER: self._model.format(version)}, subject)

    def set_rules(self, mode: str, *keys: str, subject: str = "Change the rules") -> str:
        """Commit and push who may sign."""
        return self.commit({"fleet.yaml": rules(mode, *keys)}, subject)


class Node:
    """The part of an agent that follows git, over a state folder that outlives restarts."""

    def __init__(self, fleet: Fleet, state: Path, **settings: object) -> None:
        self.settings = Settings(
            repo=fleet.url,
            node="n1",
            state_dir=state,
            **settings,  # type: ignore[arg-type]
        )
        self.start()

    def start(self) -> None:
        """Begin as a new process does, with nothing but the state folder."""
        mirror = Mirror(MirrorSettings.of(self.settings))
        repo = ConfigRepo(mirror, "n1", self.settings.state_dir)
        self.git = GitWatch(mirror, repo, Trust(mirror, repo, self.settings))
        asyncio.run(self.git.restore())

    def poll(self) -> bool:
        """Look at git once."""
        return asyncio.run(self.git.poll())

    def version(self) -> int | None:
        """Return the version of the model that git asks for; None while it follows nothing."""
        desired = self.git.desired
        return desired.deployments[0].version if desired else None

    def expect_refusal(self, reason: str, *words: str) -> None:
        """Assert that the newest commit is refused for this reason, in a sentence with these."""
        condition = self.git.source_verified
        assert (condition.name, condition.holds) == ("SourceVerified", False)
        assert condition.reason == reason, condition.sentence
        for word in words:
            assert word in condition.sentence
        assert self.git.unverified is not None
        assert self.git.trouble is None

    def expect_verified(self, *words: str) -> None:
        """Assert that the newest commit is followed, in a sentence with these words."""
        condition = self.git.source_verified
        assert condition.holds, condition.sentence
        for word in words:
            assert word in condition.sentence
        assert self.git.unverified is None
        assert self.git.trouble is None


def rules(mode: str, *keys: str) -> str:
    """Return a fleet.yaml with these allowed signers and armoured GPG keys."""
    lines = ["signatures:", f'  mode: "{mode}"']
    for name, wanted in (("ssh", False), ("gpg", True)):
        found = [key for key in keys if key.startswith("-----") == wanted]
        if found:
            lines.append(f"  {name}:")
        for key in found:
            lines += ["    - |-", *(f"      {line}" for line in key.splitlines())]
    return "\n".join(lines) + "\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet(tmp_path / "remote")
    fleet.set_version(1, "Begin")
    return fleet


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def ada(tmp_path: Path) -> SshKey:
    return make_ssh_key(tmp_path, "ada")


@pytest.fixture
def eve(tmp_path: Path) -> SshKey:
    return make_ssh_key(tmp_path, "eve")


@pytest.fixture
def start(fleet: Fleet, state: Path) -> Callable[..., Node]:
    """Start a node that follows version 2 under the given rules, committed with signature."""

    def start(mode: str, key: SshKey | GpgKey, *keys: str, **settings: object) -> Node:
        key.sign_in(fleet.work)
        fleet.set_rules(mode, *(keys or (allow(key),)))
        fleet.set_version(2)
        node = Node(fleet, state, **settings)
        node.poll()
        assert node.version() == 2, node.git.source_verified
        return node

    return start


@pytest.fixture(scope="module")
def gpg() -> Iterator[GpgHome]:
    with gpg_home() as home:
        yield home


@pytest.fixture(scope="module")
def grace(gpg: GpgHome) -> GpgKey:
    return gpg.make("grace")


@pytest.fixture(scope="module")
def mallory(gpg: GpgHome) -> GpgKey:
    """A stranger, who sends the key along with each signature."""
    return gpg.make("mallory", sign_options="--include-key-block")


def allow(key: SshKey | GpgKey) -> str:
    return key.allow() if isinstance(key, SshKey) else key.armour


# --- who may sign -------------------------------------------------------------------------------


def test_without_rules_an_unsigned_commit_is_followed(fleet: Fleet, state: Path) -> None:
    node = Node(fleet, state)
    node.poll()
    assert node.version() == 1
    node.expect_verified("no commit needs to be signed")


def test_an_allowed_ssh_key_is_followed_and_an_unsigned_commit_is_not(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey
) -> None:
    node = start("head", ada)
    node.expect_verified("is signed by ada@example.org", ada.fingerprint)
    trusted = git("rev-parse", "HEAD", cwd=fleet.work)
    stop_signing(fleet.work)
    refused = fleet.set_version(3, "Push past the review")
    assert node.poll()
    assert node.version() == 2
    node.expect_refusal(
        "CommitUnsigned",
        f"commit {refused[:8]} by Ada (Push past the review) is not signed",
        f"commit {trusted[:8]} stays in force",
    )
    assert node.git.unverified is not None
    assert node.git.unverified.id == refused
    ada.sign_in(fleet.work)
    fleet.set_version(4)
    assert node.poll()
    assert node.version() == 4
    node.expect_verified("ada@example.org")


def test_an_allowed_gpg_key_is_followed_and_no_agent_is_left(
    fleet: Fleet, start: Callable[..., Node], state: Path, grace: GpgKey
) -> None:
    node = start("head", grace)
    node.expect_verified("grace@example.org", grace.fingerprint)
    home = state / "git" / "gnupg"
    assert (home / "pubring.kbx").is_file()
    assert not list(home.glob("S.*"))
    stop_signing(fleet.work)
    fleet.set_version(3)
    node.poll()
    node.expect_refusal("CommitUnsigned")


def test_a_pattern_allows_whoever_holds_the_key(
    start: Callable[..., Node], ada: SshKey, grace: GpgKey
) -> None:
    node = start("head", ada, ada.allow("*@example.org", 'namespaces="git"'), grace.armour)
    node.expect_verified("is signed by *@example.org")


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ('valid-before="20200101Z"', "KeyExpired", "ended 2020-01-01 00:00 UTC"),
        ('valid-after="29990101Z"', "KeyNotYetValid", "begins 2999-01-01 00:00 UTC"),
        ('namespaces="file"', "KeyNotAllowed", "is not allowed"),
    ],
)
def test_an_ssh_key_counts_for_its_time_and_purpose_only(
    fleet: Fleet,
    start: Callable[..., Node],
    ada: SshKey,
    eve: SshKey,
    options: str,
    reason: str,
    words: str,
) -> None:
    node = start("head", ada, ada.allow(), eve.allow("eve@example.org", options))
    eve.sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 2
    node.expect_refusal(reason, eve.fingerprint, words)


def test_a_date_written_back_does_not_bring_an_expired_key_back(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, eve: SshKey
) -> None:
    ended = eve.allow("eve@example.org", 'valid-before="20200101Z"')
    node = start("head", ada, ada.allow(), ended)
    eve.sign_in(fleet.work)
    fleet.set_version(3)
    backdate(fleet.work, "2019-06-01T00:00:00Z")
    fleet.push("--force")
    node.poll()
    assert node.version() == 2
    node.expect_refusal("KeyExpired", "ended 2020-01-01")


def test_a_commit_dated_outside_its_keys_time_is_refused(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, eve: SshKey
) -> None:
    begun = eve.allow("eve@example.org", 'valid-after="20200101Z"')
    node = start("head", ada, ada.allow(), begun)
    eve.sign_in(fleet.work)
    fleet.set_version(3)
    backdate(fleet.work, "2019-06-01T00:00:00Z")
    fleet.push("--force")
    node.poll()
    node.expect_refusal("KeyNotYetValid", "begins 2020-01-01", "made 2019-06-01 00:00 UTC")


def test_an_unknown_ssh_key_is_named(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, eve: SshKey
) -> None:
    node = start("head", ada)
    eve.sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 2
    node.expect_refusal("KeyNotAllowed", eve.fingerprint, "let an allowed signer add it")


def test_a_gpg_key_that_comes_with_its_signature_is_a_stranger_still(
    fleet: Fleet, start: Callable[..., Node], grace: GpgKey, mallory: GpgKey
) -> None:
    node = start("head", grace)
    mallory.sign_in(fleet.work)
    for version in (3, 4):
        fleet.set_version(version)
        node.poll()
        assert node.version() == 2
        node.expect_refusal("KeyNotAllowed", mallory.fingerprint[-16:])


def test_an_expired_gpg_key_is_refused(
    fleet: Fleet, start: Callable[..., Node], gpg: GpgHome, grace: GpgKey
) -> None:
    old = gpg.make("old", expired=True)
    node = start("head", grace, grace.armour, old.armour)
    old.sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 2
    node.expect_refusal("KeyExpired", old.fingerprint)


@pytest.mark.parametrize("tool", ["ssh", "gpg"])
def test_a_commit_altered_after_it_was_signed_is_refused(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, grace: GpgKey, tool: str
) -> None:
    node = start("head", ada if tool == "ssh" else grace)
    fleet.set_version(3, "Harmless")
    alter(fleet.work, b"Harmless", b"Harmful!")
    fleet.push("--force")
    node.poll()
    assert node.version() == 2
    node.expect_refusal("BadSignature", "was altered after it was signed")


def test_a_certificate_is_never_accepted(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey
) -> None:
    node = start("head", ada)
    fleet.set_version(3)
    for word in (b"BEGIN", b"END"):
        alter(fleet.work, word + b" SSH SIGNATURE", word + b" SIGNED MESSAGE")
    fleet.push("--force")
    node.poll()
    assert node.version() == 2
    node.expect_refusal("KeyNotAllowed", "X.509")


def test_nothing_of_the_host_makes_a_key_allowed(
    fleet: Fleet,
    start: Callable[..., Node],
    tmp_path: Path,
    ada: SshKey,
    eve: SshKey,
    gpg: GpgHome,
    mallory: GpgKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = start("head", ada)
    (tmp_path / "signers").write_text(eve.allow() + "\n")
    config = tmp_path / "gitconfig"
    config.write_text(f'[gpg "ssh"]\n\tallowedSignersFile = {tmp_path}/signers\n')
    monkeypatch.setenv("GNUPGHOME", str(gpg.folder))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    for key in (eve, mallory):
        key.sign_in(fleet.work)
        fleet.set_version(3)
        node.poll()
        assert node.version() == 2
        node.expect_refusal("KeyNotAllowed")


# --- which commits must be signed ---------------------------------------------------------------


@pytest.mark.parametrize("mode", ["head", "range"])
def test_an_unsigned_commit_inside_a_merge_counts_in_mode_range_alone(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, mode: str
) -> None:
    node = start(mode, ada)
    git("switch", "--quiet", "--create", "change", cwd=fleet.work)
    stop_signing(fleet.work)
    inside = fleet.set_version(3, "Unsigned work")
    ada.sign_in(fleet.work)
    fleet.set_version(4, "Signed work")
    git("switch", "--quiet", "main", cwd=fleet.work)
    git("merge", "--quiet", "--no-ff", "-m", "Merge", "change", cwd=fleet.work)
    fleet.push()
    newest = git("rev-parse", "HEAD", cwd=fleet.work)
    node.poll()
    if mode == "head":
        assert node.version() == 4
        node.expect_verified()
    else:
        assert node.version() == 2
        node.expect_refusal(
            "CommitUnsigned",
            f"commit {inside[:8]} by Ada (Unsigned work) is not signed",
            f"it comes with commit {newest[:8]}",
        )


def test_a_new_node_does_not_ask_who_signed_what_was_before(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey
) -> None:
    node = start("range", ada)  # over a first commit that nobody signed
    fleet.set_version(3)
    fleet.set_version(4)
    node.poll()
    assert node.version() == 4


@pytest.mark.parametrize("mode", ["head", "range"])
def test_a_branch_put_back_by_force_is_refused_and_a_revert_is_followed(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, mode: str
) -> None:
    node = start(mode, ada)
    fleet.set_version(3)
    node.poll()
    newest = git("rev-parse", "HEAD", cwd=fleet.work)
    git("push", "--quiet", "--force", "origin", "HEAD~1:main", cwd=fleet.work)
    node.poll()
    assert node.version() == 3
    node.expect_refusal("HistoryRewound", "git revert", f"commit {newest[:8]} stays in force")
    node.start()
    node.poll()
    assert node.version() == 3
    node.expect_refusal("HistoryRewound")
    git("revert", "--no-edit", "HEAD", cwd=fleet.work)
    fleet.push()
    node.poll()
    assert node.version() == 2
    node.expect_verified("ada@example.org")


@pytest.mark.parametrize("mode", ["head", "range"])
def test_a_history_rewritten_by_an_allowed_key_is_followed(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, mode: str
) -> None:
    node = start(mode, ada)
    fleet.set_version(3)
    node.poll()
    fleet.commit({RANKER: "source: gs://demo-models/ranker\nversion: 5\n"}, amend=True)
    node.poll()
    assert node.version() == 5
    node.expect_verified()


def test_a_refused_commit_that_is_taken_back_leaves_no_trace(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey
) -> None:
    node = start("head", ada)
    stop_signing(fleet.work)
    fleet.set_version(3)
    node.poll()
    node.expect_refusal("CommitUnsigned")
    git("reset", "--quiet", "--hard", "HEAD~1", cwd=fleet.work)
    fleet.push("--force")
    assert node.poll()
    assert node.version() == 2
    node.expect_verified("ada@example.org")


# --- whose rules count --------------------------------------------------------------------------


def test_a_commit_that_asks_for_signatures_is_admitted_by_the_rules_before_it(
    fleet: Fleet, state: Path, ada: SshKey
) -> None:
    node = Node(fleet, state)
    node.poll()
    fleet.set_rules("head", ada.allow())
    node.poll()
    node.expect_verified("the next must be")
    fleet.set_version(2)
    node.poll()
    assert node.version() == 1
    node.expect_refusal("CommitUnsigned")


@pytest.mark.parametrize("restarted", [False, True])
def test_only_a_signed_commit_switches_signatures_off(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, eve: SshKey, restarted: bool
) -> None:
    node = start("head", ada)
    stop_signing(fleet.work)
    fleet.commit({"fleet.yaml": None}, "Off with it")
    if restarted:
        node.start()
        assert node.version() == 2
    node.poll()
    node.expect_refusal("CommitUnsigned", "Off with it")
    eve.sign_in(fleet.work)
    fleet.set_rules("head", eve.allow())
    node.poll()
    node.expect_refusal("KeyNotAllowed")
    ada.sign_in(fleet.work)
    fleet.set_rules("off")
    node.poll()
    node.expect_verified("no commit needs to be signed")
    stop_signing(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 3


@pytest.mark.parametrize("mode", ["head", "range"])
@pytest.mark.parametrize("away", [False, True])
def test_a_key_is_replaced_by_a_commit_of_the_old_one(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, grace: GpgKey, mode: str, away: bool
) -> None:
    """A node that was away meanwhile comes to the same answer as one that saw each commit."""
    node = start(mode, ada)

    def look() -> None:
        if not away:
            node.poll()

    fleet.set_rules(mode, ada.allow(), grace.armour)
    look()
    grace.sign_in(fleet.work)
    fleet.set_rules(mode, grace.armour)
    look()
    fleet.set_version(3)
    node.poll()
    assert node.version() == 3
    node.expect_verified("grace@example.org")
    ada.sign_in(fleet.work)
    fleet.set_version(4)
    node.poll()
    assert node.version() == 3
    node.expect_refusal("KeyNotAllowed", ada.fingerprint)


@pytest.mark.parametrize("mode", ["head", "range"])
def test_a_key_taken_out_while_the_node_was_away_does_not_count(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, eve: SshKey, mode: str
) -> None:
    node = start(mode, ada, ada.allow(), eve.allow())
    git("switch", "--quiet", "--create", "without-eve", cwd=fleet.work)
    if mode == "head":
        stop_signing(fleet.work)  # whoever merges vouches
    fleet.set_rules(mode, ada.allow())
    ada.sign_in(fleet.work)
    git("switch", "--quiet", "main", cwd=fleet.work)
    git("merge", "--quiet", "--no-ff", "-m", "Merge", "without-eve", cwd=fleet.work)
    fleet.push()
    eve.sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 2
    node.expect_refusal("KeyNotAllowed", eve.fingerprint)


@pytest.mark.parametrize("vouched", [False, True])
def test_rules_that_nobody_signed_count_only_once_someone_vouches(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey, eve: SshKey, vouched: bool
) -> None:
    node = start("head", ada)
    stop_signing(fleet.work)
    fleet.set_rules("head", eve.allow())
    (ada if vouched else eve).sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == (3 if vouched else 2)
    if not vouched:
        node.expect_refusal("KeyNotAllowed", eve.fingerprint)


def test_a_gpg_key_that_was_taken_out_signs_no_more(
    fleet: Fleet, start: Callable[..., Node], grace: GpgKey, mallory: GpgKey
) -> None:
    node = start("head", grace, grace.armour, mallory.armour)
    mallory.sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 3
    grace.sign_in(fleet.work)
    fleet.set_rules("head", grace.armour)
    node.poll()
    mallory.sign_in(fleet.work)
    fleet.set_version(4)
    node.poll()
    assert node.version() == 3
    node.expect_refusal("KeyNotAllowed")


def test_a_broken_fleet_file_does_not_switch_signatures_off(
    fleet: Fleet, start: Callable[..., Node], state: Path, ada: SshKey
) -> None:
    node = start("head", ada)
    fleet.commit({"fleet.yaml": "<<<<<<< ours\n"}, "Break")
    node.poll()
    node.expect_verified("ada@example.org")
    (state / "last_good.json").unlink()
    shutil.rmtree(state / "mirror")
    node.start()
    stop_signing(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 2
    node.expect_refusal("CommitUnsigned")


def test_rules_without_any_key_are_an_error_and_not_off(fleet: Fleet, state: Path) -> None:
    node = Node(fleet, state)
    node.poll()
    fleet.set_rules("head")
    node.poll()
    fleet.set_version(2)
    node.poll()
    assert node.version() == 1
    node.expect_refusal("NoAllowedKeys", "allowed_signers_file")


# --- the node's own rules -----------------------------------------------------------------------


def test_a_first_start_on_an_unsigned_repo_follows_nothing(
    fleet: Fleet, state: Path, tmp_path: Path, ada: SshKey
) -> None:
    signers = tmp_path / "signers"
    signers.write_text(f"# who may sign\n\n{ada.allow()}\n")
    node = Node(fleet, state, signature_mode="head", allowed_signers_file=signers)
    node.poll()
    assert node.version() is None
    node.expect_refusal("CommitUnsigned", "nothing is changed on this node until then")
    node.start()
    assert node.version() is None
    ada.sign_in(fleet.work)
    fleet.set_version(2)
    node.poll()
    assert node.version() == 2
    node.expect_verified("ada@example.org")


def test_the_nodes_keys_count_alone(
    fleet: Fleet, start: Callable[..., Node], tmp_path: Path, ada: SshKey, grace: GpgKey
) -> None:
    keys = tmp_path / "keys.asc"
    keys.write_text(grace.armour)
    ada.sign_in(fleet.work)
    node = start("head", grace, ada.allow(), gpg_keys_file=keys)
    ada.sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 2
    node.expect_refusal("KeyNotAllowed", ada.fingerprint)
    stop_signing(fleet.work)


def test_the_nodes_mode_wins(fleet: Fleet, start: Callable[..., Node], ada: SshKey) -> None:
    node = start("head", ada, signature_mode="off")
    stop_signing(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 3
    node.expect_verified("no commit needs to be signed")


def test_a_key_given_to_the_node_counts_without_restart(
    fleet: Fleet, start: Callable[..., Node], tmp_path: Path, ada: SshKey, eve: SshKey
) -> None:
    signers = tmp_path / "signers"
    signers.write_text(ada.allow())
    node = start("head", ada, allowed_signers_file=signers)
    eve.sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    node.expect_refusal("KeyNotAllowed")
    signers.write_text("")
    node.poll()
    node.expect_refusal("KeysUnreadable", f"{signers} holds no key", "stays in force")
    signers.write_text(f"{ada.allow()}\n{eve.allow('eve@example.org')}\n")
    node.poll()
    assert node.version() == 3
    node.expect_verified("eve@example.org")


def test_an_agent_does_not_start_with_keys_that_cannot_be_read(
    fleet: Fleet, state: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"allowed_signers_file: .* cannot be read"):
        Node(fleet, state, allowed_signers_file=tmp_path / "nowhere")


# --- restarts, damage, what is missing ----------------------------------------------------------


def test_a_restart_begins_with_the_last_commit_that_was_followed(
    fleet: Fleet, start: Callable[..., Node], ada: SshKey
) -> None:
    node = start("range", ada)
    stop_signing(fleet.work)
    fleet.set_version(3)
    node.poll()
    fleet.bare.rename(fleet.bare.with_name("away"))
    node.start()
    assert node.version() == 2
    node.poll()
    assert node.version() == 2
    assert node.git.trouble is not None
    fleet.bare.with_name("away").rename(fleet.bare)
    node.poll()
    node.expect_refusal("CommitUnsigned")


def test_a_lost_mirror_forgets_neither_rules_nor_commit(
    fleet: Fleet, start: Callable[..., Node], state: Path, ada: SshKey
) -> None:
    node = start("head", ada)
    stop_signing(fleet.work)
    fleet.set_version(3)
    shutil.rmtree(state / "mirror")
    node.start()
    assert node.version() is None
    node.poll()
    assert node.version() == 2
    node.expect_refusal("CommitUnsigned")


def test_a_followed_commit_that_is_nowhere_any_more_is_doubt(
    fleet: Fleet, start: Callable[..., Node], state: Path, ada: SshKey
) -> None:
    node = start("head", ada)
    fleet.commit({RANKER: "source: gs://demo-models/ranker\nversion: 5\n"}, amend=True)
    shutil.rmtree(state / "mirror")
    node.start()
    node.poll()
    assert node.version() is None
    node.expect_refusal("TrustedCommitLost", "trusted.json")
    (state / "trusted.json").unlink()
    node.start()
    node.poll()
    assert node.version() == 5


def test_what_a_kill_left_of_the_keyring_is_made_anew(
    fleet: Fleet, start: Callable[..., Node], state: Path, grace: GpgKey
) -> None:
    node = start("head", grace)
    home = state / "git" / "gnupg"
    (home / "pubring.kbx").write_bytes(b"")
    (home.with_name("gnupg.new")).mkdir()
    (home.with_name("allowed_signers")).write_text("half a li")
    node.start()
    fleet.set_version(3)
    node.poll()
    assert node.version() == 3


def test_a_missing_verifier_is_named_and_missed_only_until_it_is_there(
    fleet: Fleet,
    start: Callable[..., Node],
    tmp_path: Path,
    ada: SshKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = start("head", ada)
    fleet.set_version(3)
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "git").symlink_to(str(shutil.which("git")))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(bare))
        node.poll()
        assert node.version() == 2
        node.expect_refusal("VerifierMissing", "no ssh-keygen command on this machine")
    node.poll()
    assert node.version() == 3


def test_each_commit_is_verified_once(
    fleet: Fleet,
    start: Callable[..., Node],
    tmp_path: Path,
    ada: SshKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "ssh-keygen"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *"-Y verify"*|*check-novalidate*) echo >> {calls};; esac\n'
        f'exec {shutil.which("ssh-keygen")} "$@"\n'
    )
    program.chmod(0o755)

    def count() -> int:
        return len(calls.read_text().splitlines())

    node = start("range", ada)
    for version in (3, 4, 5):
        fleet.set_version(version)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        node.poll()
        assert (node.version(), count()) == (5, 3)
        node.poll()
        assert count() == 3
        fleet.set_version(6)
        alter(fleet.work, b"Change ranker", b"Change rankle")
        fleet.push("--force")
        node.poll()
        node.expect_refusal("BadSignature")
        checked = count()
        assert checked > 3
        assert not node.poll()
        assert count() == checked
