"""Whose rules count, which keys a text holds, and what is remembered of a commit."""

import base64
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config_repo.desired import ConfigRepo
from reconciler.config_repo.documents import Document, parse_document
from reconciler.config_repo.layout import Kind
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from reconciler.config_repo.rules import find_rule_mistakes
from reconciler.config_repo.signers import is_gpg_key, parse_signer, parse_signers
from reconciler.errors import SettingsError
from reconciler.follow.node_keys import NodeKeys, read_node_keys
from reconciler.follow.trust import Trust, choose_rules
from reconciler.model import Commit, Desired, Problem
from reconciler.planning.conditions import SIGNATURES_OFF
from reconciler.policy import Policy, SignatureMode, Signatures
from reconciler.settings import Settings
from tests.keys import make_ssh_key

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ8mCCs3yTvnBzXEe1gq0qGIvnYnCqJ7Dp0s5Lx3Xb2"
LINE = f"ada@example.org {KEY}"
ARMOUR = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{}\n-----END PGP PUBLIC KEY BLOCK-----"
HEAD = Signatures(SignatureMode.HEAD, (LINE,), (ARMOUR.format("fleet"),))
COMMIT = Commit("ab" * 20, "Ada", "Change", 1.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(repo=str(tmp_path / "fleet.git"), node="n1", state_dir=tmp_path / "state")


def make_trust(settings: Settings) -> Trust:
    mirror = Mirror(MirrorSettings.of(settings))
    return Trust(mirror, ConfigRepo(mirror, "n1", settings.state_dir), settings)


def desired(signatures: Signatures, *problems: Problem, commit: Commit = COMMIT) -> Desired:
    policy = Policy(signatures=signatures)
    return Desired(commit, "n1", None, (), policy, problems)


# --- whose rules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "rules"),
    [
        (NodeKeys(), HEAD),
        (NodeKeys(SignatureMode.RANGE), replace(HEAD, mode=SignatureMode.RANGE)),
        (NodeKeys(SignatureMode.OFF), replace(HEAD, mode=SignatureMode.OFF)),
        (NodeKeys(None, ssh=("own",)), Signatures(SignatureMode.HEAD, ("own",))),
        (NodeKeys(None, gpg=("own",)), Signatures(SignatureMode.HEAD, (), ("own",))),
        (NodeKeys(SignatureMode.RANGE, ("own",)), Signatures(SignatureMode.RANGE, ("own",))),
    ],
)
def test_the_nodes_mode_and_keys_win_over_the_fleets(node: NodeKeys, rules: Signatures) -> None:
    assert choose_rules(HEAD, node) == rules


# --- keys in texts ------------------------------------------------------------------------------


def test_a_line_has_the_fingerprint_that_ssh_keygen_prints(tmp_path: Path) -> None:
    key = make_ssh_key(tmp_path, "ada")
    signer = parse_signer(key.allow())
    assert signer is not None
    assert signer.fingerprint == key.fingerprint
    assert signer.may_sign_at(0.0)


@pytest.mark.parametrize(
    ("options", "begin", "end"),
    [
        ('valid-before="20200101Z"', None, 1577836800),
        ('VALID-AFTER="202001010130Z",namespaces="git"', 1577842200, None),
        ('namespaces="git,file",valid-after="20200101013005Z"', 1577842205, None),
        ('valid-after="20200101Z",valid-before="20200102Z"', 1577836800, 1577923200),
        ('valid-before="20200101"', None, datetime(2020, 1, 1).timestamp()),
    ],
)
def test_a_key_signs_from_its_beginning_to_its_end(
    options: str, begin: float | None, end: float | None
) -> None:
    signer = parse_signer(f'"ada@example.org,eve@example.org" {options} {KEY} a comment')
    assert signer is not None
    middle = 1577840000 if begin is None and end is None else (begin or (end or 0) - 1)
    assert signer.may_sign_at(middle)
    if begin is not None:
        assert not signer.may_sign_at(begin - 1)
    if end is not None:
        assert not signer.may_sign_at(end)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# a comment",
        KEY,
        "ada@example.org",
        f"ada@example.org {KEY[:-3]}",
        f"ada@example.org ssh-rsa {KEY.split()[1]}",
        f'ada@example.org valid-before="soon" {KEY}',
        f'ada@example.org valid-before="20201301" {KEY}',
        f'ada@example.org valid-before="2020" {KEY}',
        f"ada@example.org valid-before=20200101 {KEY}",
        f'ada@example.org namespaces="git {KEY}',
    ],
)
def test_a_line_that_is_not_understood_allows_nobody(line: str) -> None:
    assert parse_signer(line) is None


@pytest.mark.parametrize(
    ("namespaces", "counts"),
    [("git", True), ("file,git", True), ("g*", True), ("file", False), ("file,email", False)],
)
def test_a_line_for_other_things_than_git_does_not_count(namespaces: str, counts: bool) -> None:
    line = f'ada@example.org namespaces="{namespaces}" {KEY}'
    assert parse_signer(line) is not None
    assert bool(parse_signers([line])) is counts


WHOLE = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawGQCRYJKwYBBAHaRw8BAQdAbWs/4Q5RmMAUkrkIAshIP9rdyOgG3XMrspDZ
nYnWAbW0EWIgPGJAZXhhbXBsZS5vcmc+iJAEExYIADgWIQS794cTfCor5ZNXvnpe
a0UV2+2T5gUCawGQCQIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRBea0UV
2+2T5h8JAQDjb7aefwowWZtfugFf4lbwWbJZeEmEC+Kld6gN1ya+eQD/ZZm6Mis1
GW8e20xaqex8MyaNmFaEP/J/VFaUn8wVSw8=
=IBf9
-----END PGP PUBLIC KEY BLOCK-----
"""


@pytest.mark.parametrize(
    ("text", "is_key"),
    [
        (WHOLE, True),
        (WHOLE.replace("\n", "\r\n"), True),
        (WHOLE.replace("BLOCK-----\n\n", "BLOCK-----\nComment: ours\n\n"), True),
        (WHOLE.replace("=IBf9\n", ""), True),  # newer programs write no checksum
        (WHOLE.replace("BLOCK-----\n\n", "BLOCK-----\n"), False),
        (WHOLE.replace("nYnWAbW0EWIg", "nYnWAbW0EWIh"), False),
        ("\n".join(line for line in WHOLE.splitlines() if "nYnW" not in line), False),
        (WHOLE.replace("PUBLIC", "PRIVATE"), False),
        (WHOLE.replace("mDME", "iJAE"), False),
        (ARMOUR.format("one"), False),
        ("", False),
    ],
)
def test_a_gpg_key_of_which_a_part_is_lost_is_none(text: str, is_key: bool) -> None:
    assert is_gpg_key(text) is is_key


def test_a_fleet_file_whose_gpg_keys_cannot_be_used_is_a_mistake() -> None:
    indented = "".join(f"      {line}\n" for line in WHOLE.replace("nYnW", "nYnX").splitlines())
    text = "signatures:\n  mode: head\n  gpg:\n    - |\n" + indented
    document = parse_document(Kind.FLEET, text.encode())
    assert isinstance(document, Document)
    (mistake,) = find_rule_mistakes(document)
    assert "not a whole public key" in mistake.message
    assert mistake.line == 4


@given(st.text(max_size=80), st.binary(max_size=40))
def test_no_text_stops_the_reading_of_keys(text: str, data: bytes) -> None:
    encoded = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + data).decode()
    for line in (text, f"{text} {KEY}", f"a {text} ssh-ed25519 {encoded}"):
        found = parse_signers([line])
        assert all(signer.line == line.strip() for signer in found)


# --- the node's files ---------------------------------------------------------------------------


def test_the_nodes_files_are_read(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "signers").write_text(f"# ops\n\n  {LINE}\n")
    (tmp_path / "keys").write_text(f"{ARMOUR.format('one')}\n\nnote\n{ARMOUR.format('two')}\n")
    given = replace(
        settings,
        signature_mode="range",
        allowed_signers_file=tmp_path / "signers",
        gpg_keys_file=tmp_path / "keys",
    )
    keys = (ARMOUR.format("one"), ARMOUR.format("two"))
    assert read_node_keys(given) == NodeKeys(SignatureMode.RANGE, (LINE,), keys)
    assert read_node_keys(settings) == NodeKeys()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("allowed_signers_file", b"", "holds no key"),
        ("allowed_signers_file", b"# nobody\n", "holds no key"),
        ("allowed_signers_file", f"{LINE}\nada {KEY[:-3]}\n".encode(), "line 2 of .* is not an"),
        ("allowed_signers_file", b"\xff", "is not text"),
        ("allowed_signers_file", b"x" * (4 * 1024 * 1024 + 1), "is larger than"),
        ("allowed_signers_file", None, r"cannot be read \(No such file"),
        ("gpg_keys_file", LINE.encode(), "holds no public key"),
        ("gpg_keys_file", ARMOUR.replace("PUBLIC", "PRIVATE").encode(), "holds no public key"),
        ("gpg_keys_file", None, "cannot be read"),
    ],
)
def test_a_file_without_keys_is_an_error(
    settings: Settings, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    given: Settings = replace(settings, **{name: path})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=f"{name}: .*{sentence}") as caught:
        read_node_keys(given)
    assert KEY.split()[1][:20] not in str(caught.value)
    assert read_node_keys(replace(given, signature_mode="off")) == NodeKeys(SignatureMode.OFF)


# --- what is remembered -------------------------------------------------------------------------


def test_what_was_followed_is_remembered_across_restarts(settings: Settings) -> None:
    make_trust(settings).follow(desired(HEAD), "ada@example.org (SHA256:x)")
    condition = make_trust(settings).describe()
    assert condition.holds
    assert condition.sentence == "commit abababab is signed by ada@example.org (SHA256:x)"


def test_a_commit_that_was_followed_needs_no_second_check(settings: Settings) -> None:
    make_trust(settings).follow(desired(HEAD), "ada")
    assert make_trust(settings).check(COMMIT) == "ada"  # there is not even a mirror


@pytest.mark.parametrize("name", ["repo", "branch", "path"])
def test_another_repo_is_not_trusted_for_this_one(settings: Settings, name: str) -> None:
    make_trust(settings).follow(desired(HEAD), "ada")
    other: Settings = replace(settings, **{name: "other"})  # type: ignore[arg-type]
    assert make_trust(other).describe() == SIGNATURES_OFF


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"[]",
        lambda content: content[:-5],
        lambda content: content.replace(COMMIT.id.encode(), b"--help"),
        lambda content: content.replace(b'"head"', b'"none"'),
        lambda content: content.replace(b'"ssh"', b'"shh"'),
        lambda content: content + b" " * 16 * 1024 * 1024,
    ],
)
def test_a_memory_that_makes_no_sense_is_said_and_is_none(
    settings: Settings, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    make_trust(settings).follow(desired(HEAD), "ada")
    file = settings.state_dir / "trusted.json"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert make_trust(settings).describe() == SIGNATURES_OFF
    assert "the next commit is taken as the first" in caplog.text


def test_a_broken_fleet_file_leaves_the_rules_as_they_were(settings: Settings) -> None:
    broken = Problem("fleet.yaml", 1, 1, "is not YAML")
    trust = make_trust(settings)
    trust.follow(desired(Signatures(), broken), "")
    assert not (settings.state_dir / "trusted.json").exists()
    trust.follow(desired(HEAD), "ada")
    newer = replace(COMMIT, id="cd" * 20)
    trust.follow(desired(Signatures(), broken, commit=newer), "ada")
    content = json.loads((settings.state_dir / "trusted.json").read_text())
    assert content["commit"] == newer.id
    assert content["signatures"]["mode"] == "head"


def test_a_memory_that_cannot_be_written_holds_nothing_up_and_is_written_later(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    trust = make_trust(settings)
    settings.state_dir.write_text("a file where the folder should be")
    trust.follow(desired(HEAD), "ada")
    trust.save()
    assert caplog.text.count("cannot be written, trying on") == 1
    assert "signed by ada" in trust.describe().sentence
    settings.state_dir.unlink()
    trust.save()
    assert "signed by ada" in make_trust(settings).describe().sentence
