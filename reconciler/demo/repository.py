"""The demo's config repo: a bare repository, and a checkout in which a person would edit it."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from reconciler.demo.services import DemoError
from reconciler.process import run
from reconciler.resources import data_folder

_DEADLINE_SECONDS = 30.0


class ConfigRepository:
    """A git repository made from example-config-repo, with the model files of its deployments."""

    def __init__(self, folder: Path, members: Mapping[str, Mapping[str, str]]) -> None:
        """Make the bare repository and its first commit in `folder`.

        `members` says where each node and its server are on this machine, as groups/ has it.
        """
        self.url = str(folder / "config.git")
        self._checkout = folder / "checkout"
        self._git_in(folder, "init", "--quiet", "--bare", "--initial-branch=main", self.url)
        self._git_in(folder, "clone", "--quiet", self.url, str(self._checkout))
        shutil.copytree(data_folder("example-config-repo"), self._checkout, dirs_exist_ok=True)
        for node, places in members.items():
            self._set_places(node, places)
        self.commit("Deploy our first models")

    def _set_places(self, node: str, places: Mapping[str, str]) -> None:
        lines = [f"  - name: {node}", *(f"    {name}: {place}" for name, place in places.items())]
        entry = "\n".join(lines)
        for file in (self._checkout / "groups").glob("*.yaml"):
            text = re.sub(rf"(?m)^  - {node}$", f"  - name: {node}", file.read_text())
            written = rf"(?m)^  - name: {node}(\n    address: .*)?$"
            file.write_text(re.sub(written, entry, text))

    def pin(self, path: str, version: int) -> None:
        """Change the version in a deployment's file, as a pull request would."""
        file = self._checkout / path
        text = re.sub(r"(?m)^version: .*$", f"version: {version}", file.read_text())
        file.write_text(text)

    def commit(self, subject: str) -> str:
        """Commit and push everything; return the commit's id."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", subject)
        return self._push()

    def revert(self) -> str:
        """Revert the newest commit and push; return the new commit's id."""
        self._git("revert", "--no-edit", "HEAD")
        return self._push()

    def show(self) -> str:
        """Return the change of the newest commit, as a reviewer reads it."""
        diff = self._git("show", "--format=%h %an: %s", "--unified=0", "HEAD")
        lines = diff.splitlines()
        kept = [line for line in lines if not line.startswith(("diff", "index", "@@"))]
        return "\n".join(line for line in kept if line and not line.startswith(("---", "+++")))

    def _push(self) -> str:
        self._git("push", "--quiet", "origin", "HEAD:main")
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        return self._git_in(self._checkout, *arguments)

    @staticmethod
    def _git_in(folder: Path, *arguments: str) -> str:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.com",
        }
        done = run(["git", *arguments], deadline_seconds=_DEADLINE_SECONDS, env=env, cwd=folder)
        if done.code != 0:
            raise DemoError(f"git {arguments[0]} failed: {done.stderr}")
        return done.stdout.decode()
