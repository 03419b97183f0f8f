"""What git's messages mean: a reason word and a sentence that says what to do.

git has no exit codes for its failures, only English, which LC_ALL=C holds still. A message that is
not known here is `GitFailed`, and the mirror then finds out whose fault it is.
"""

import re

from reconciler.errors import DeadlineError, GitError

GIT_UNREACHABLE = "GitUnreachable"
AUTHENTICATION_FAILED = "AuthenticationFailed"
HOST_KEY_REFUSED = "HostKeyRefused"
CERTIFICATE_REFUSED = "CertificateRefused"
REPOSITORY_NOT_FOUND = "RepositoryNotFound"
REPOSITORY_EMPTY = "RepositoryEmpty"
BRANCH_MISSING = "BranchMissing"
FOLDER_MISSING = "FolderMissing"
PROTOCOL_REFUSED = "ProtocolRefused"
UNSUPPORTED_REPOSITORY = "UnsupportedRepository"
DISK_FULL = "DiskFull"
MIRROR_UNWRITABLE = "MirrorUnwritable"
MIRROR_CORRUPT = "MirrorCorrupt"
GIT_MISSING = "GitMissing"
CREDENTIALS_UNREADABLE = "CredentialsUnreadable"
DEADLINE_EXCEEDED = DeadlineError.reason
GIT_FAILED = GitError.reason

MEANWHILE = "what was read before stays in force, and it is tried again at the next poll"

# The first that matches counts: ssh and git end many different failures with the same last lines.
_MEANINGS: tuple[tuple[str, str, str], ...] = (
    (
        r"host key verification failed|no .* host key is known|remote host identification has",
        HOST_KEY_REFUSED,
        "the ssh host's key is not the one in the known hosts; if the host is right, put its key"
        " into the file that git_known_hosts names",
    ),
    (
        r"permission denied \(|authentication failed|could not read (username|password)"
        r"|terminal prompts disabled|returned error: 40[13]|invalid (username|credentials)"
        r"|too many authentication failures",
        AUTHENTICATION_FAILED,
        "the git server refused the credentials; check git_token_file for https, git_ssh_key for"
        " ssh, and that they may read this repository",
    ),
    (
        r"certificate|ssl peer",
        CERTIFICATE_REFUSED,
        "the git server's certificate is not trusted; name the right authority by"
        " SSL_CERT_FILE or repair the certificate",
    ),
    (
        r"mismatched algorithms",
        UNSUPPORTED_REPOSITORY,
        "the repository uses sha256 object names, which are not supported; use one with sha1",
    ),
    (
        r"transport '.*' not allowed",
        PROTOCOL_REFUSED,
        "the repo URL uses a protocol that is not allowed; use https, ssh or file",
    ),
    (
        r"no space left on device|disk quota exceeded",
        DISK_FULL,
        "there is no space left for the mirror; make room in the state folder",
    ),
    (
        r"read-only file system|insufficient permission|unable to create .*permission denied"
        r"|cannot open .*permission denied",
        MIRROR_UNWRITABLE,
        "the mirror cannot be written; give the agent's user the state folder",
    ),
    (
        r"couldn't find remote ref",
        BRANCH_MISSING,
        "the branch is not in the repository",
    ),
    (
        r"repository .*not found|does not appear to be a git repository|returned error: 404"
        r"|repository not exported|no such repository|project .* (not be found|not found)"
        r"|dubious ownership",
        REPOSITORY_NOT_FOUND,
        "there is no git repository at that URL, or it may not be seen; check RECONCILER_REPO",
    ),
    (
        r"not valid: is this a git repo",
        REPOSITORY_NOT_FOUND,
        "something other than a git repository answers there, such as a proxy's login page; check"
        " RECONCILER_REPO, git_proxy and HTTPS_PROXY",
    ),
    (
        r"bad object|missing object|loose object|corrupt|all necessary objects|not a git repo",
        GIT_FAILED,
        "git met damaged objects",
    ),
    (
        r"could not resolve|failed to connect|couldn't connect|connection (refused|reset|timed out"
        r"|closed)|network is unreachable|no route to host|operation timed out|unable to connect"
        r"|returned error: (429|5\d\d)|unable to look up|rpc failed|temporary failure"
        r"|received http code|empty reply|tls_handshake|ssl_connect|hung up unexpectedly"
        r"|unable to access 'https?:",
        GIT_UNREACHABLE,
        "the git server cannot be reached",
    ),
)


def redact(text: str) -> str:
    """Return the text with what may be secret in URLs replaced: user names, tokens, queries."""
    text = re.sub(r"(\b(?!ssh:)[a-z+]+://)[^/@\s]+@", r"\1***@", text, flags=re.IGNORECASE)
    text = re.sub(r"(\bssh://[^/@:\s]+):[^/@\s]*@", r"\1:***@", text, flags=re.IGNORECASE)
    return re.sub(r"(\b[a-z+]+://[^\s?'\"]+)\?[^\s'\"]*", r"\1?***", text, flags=re.IGNORECASE)


def explain(url: str, stderr: str) -> GitError:
    """Return the error for what git printed when it failed; secrets must be out of `stderr`."""
    for pattern, reason, sentence in _MEANINGS:
        if re.search(pattern, stderr, re.IGNORECASE):
            return git_error(reason, url, f"{sentence} (git said: {quote_git(stderr)})")
    return git_error(GIT_FAILED, url, f"git failed: {quote_git(stderr)}")


def git_error(reason: str, url: str, sentence: str) -> GitError:
    """Return an error about the repo at `url` that says what happens meanwhile."""
    return GitError(f"config repo {redact(url)}: {sentence}; {MEANWHILE}", reason)


def describe_damage(url: str, what: str) -> GitError:
    """Return the error of a mirror that cannot be read; the next fetch builds it anew."""
    return git_error(MIRROR_CORRUPT, url, f"the mirror on disk is damaged ({what})")


def quote_git(stderr: str) -> str:
    """Return the telling line of git's message, short and without secrets."""
    lines = [line.strip() for line in redact(stderr).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR"))] or lines
    line = telling[0] if telling else "nothing"
    return "".join(character for character in line[:300] if character.isprintable())
