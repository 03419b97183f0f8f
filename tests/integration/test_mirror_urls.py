"""URLs, branches and git's messages: what is taken, what is hidden, what is said."""

from pathlib import Path

import pytest

from reconciler.config_repo.git_errors import explain, redact
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings, Remote, split_url
from reconciler.errors import SettingsError
from reconciler.settings import load_settings


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("https://host/a.git", Remote("https://host/a.git")),
        ("https://me:p%40ss@host:8443/a.git", Remote("https://host:8443/a.git", "me", "p@ss")),
        ("https://token@host/a.git", Remote("https://host/a.git", "token")),
        ("ssh://git@host:22/a.git", Remote("ssh://git@host:22/a.git")),
        ("git@host:team/a.git", Remote("git@host:team/a.git")),
        ("file:///srv/a.git", Remote("file:///srv/a.git")),
        ("/srv/a.git", Remote("/srv/a.git")),
    ],
)
def test_urls(text: str, remote: Remote) -> None:
    assert split_url(text) == remote


@pytest.mark.parametrize(
    "text",
    [
        "",
        "--upload-pack=x",
        "ext::sh -c x",
        "ftp://host/a",
        "ext://x",
        "https:///a",
        "http://[",
        "a\nb",
    ],
)
def test_urls_that_git_must_not_see(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^repo "):
        split_url(text)


@pytest.mark.parametrize(
    "branch",
    ["", "-x", "a b", "a..b", "a:b", "a*", "a~1", "/a", "a/", "a.lock", "@", "a@{1}", ".a", "a\n"],
)
def test_branches_that_cannot_be(branch: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be a branch's name"):
        Mirror(MirrorSettings("https://host/a.git", branch, tmp_path))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fatal: https://me:s3cret@host/a.git/", "fatal: https://***@host/a.git/"),
        ("https://s3cret@host/a?b=s3cret c", "https://***@host/a?*** c"),
        ("ssh://git:s3cret@host/a", "ssh://git:***@host/a"),
        ("ssh://git@host/a and git@host:a", "ssh://git@host/a and git@host:a"),
        ("'http://host/a?x=s3cret'", "'http://host/a?***'"),
    ],
)
def test_secrets_in_urls_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("fatal: unable to access 'https://h/': Could not resolve host: h", "GitUnreachable"),
        ("fatal: unable to access 'https://h/': SSL certificate problem: x", "CertificateRefused"),
        ("fatal: unable to access 'https://h/': gnutls_handshake() failed: x", "GitUnreachable"),
        ("ssh: Could not resolve hostname h: Name or service not known", "GitUnreachable"),
        ("ssh: connect to host h port 22: Connection timed out", "GitUnreachable"),
        ("fatal: Authentication failed for 'https://h/'", "AuthenticationFailed"),
        ("fatal: could not read Username for 'https://h': x", "AuthenticationFailed"),
        ("ERROR: Repository not found.\nfatal: Could not read from remote", "RepositoryNotFound"),
        ("remote: The project you were looking for could not be found", "RepositoryNotFound"),
        ("No ED25519 host key is known for h and you have requested", "HostKeyRefused"),
        ("git@h: Permission denied (publickey).\nfatal: Could not read", "AuthenticationFailed"),
        ("fatal: write error: No space left on device", "DiskFull"),
        ("error: insufficient permission for adding an object", "MirrorUnwritable"),
        ("fatal: mismatched algorithms: client sha1; server sha256", "UnsupportedRepository"),
        ("fatal: transport 'ext' not allowed", "ProtocolRefused"),
        ("fatal: loose object abc (stored in x) is corrupt\nhung up unexpectedly", "GitFailed"),
        ("fatal: something new", "GitFailed"),
        ("", "GitFailed"),
    ],
)
def test_gits_messages_get_a_reason_and_a_sentence(stderr: str, reason: str) -> None:
    error = explain("https://me:s3cret@h/a.git", stderr)
    assert error.reason == reason
    assert str(error).startswith("config repo https://***@h/a.git: ")
    assert str(error).endswith("stays in force, and it is tried again at the next poll")


def test_the_agents_settings_become_the_mirrors(tmp_path: Path) -> None:
    settings = load_settings(
        {"repo": "https://host/a.git", "path": "/fleet/", "git_deadline": "5s"},
        {"RECONCILER_STATE_DIR": str(tmp_path), "RECONCILER_GIT_PROXY": "http://proxy:1"},
    )
    assert MirrorSettings.of(settings) == MirrorSettings(
        url="https://host/a.git",
        branch="main",
        state_dir=tmp_path,
        folder="fleet",
        deadline_seconds=5.0,
        proxy="http://proxy:1",
    )
