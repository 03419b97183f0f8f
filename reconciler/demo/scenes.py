"""The scenes of the demo: what a team does with its models in a week, in under a minute."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from reconciler.demo.fleet import BROKEN, Node
from reconciler.demo.repository import ConfigRepository
from reconciler.demo.services import DemoError, Services, wait_for

RANKER = "deployments/search/ranker.yaml"
_SCENE_SECONDS = 30.0
_SETUP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a scene came out."""

    title: str
    seconds: float
    error: str | None = None


@dataclass(slots=True)
class Stage:
    """The fleet and the repository, and somebody to tell what happens."""

    services: Services
    repository: ConfigRepository
    nodes: Sequence[Node]
    say: Callable[[str], None]
    _told: dict[tuple[str, str], str] = field(default_factory=dict)

    def play(self) -> Iterator[Result]:
        """Play one scene after the other; a scene that fails does not keep the next from trying."""
        scenes: Sequence[tuple[str, Callable[[], None]]] = (
            ("the first commit is deployed on three nodes", self._deploy),
            ("a commit pins another version", self._pin),
            ("git revert brings the old version back", self._revert),
            ("a version that fails to load leaves the old one serving", self._break),
        )
        for number, (title, scene) in enumerate(scenes):
            self.say(f"\nScene {number}: {title}" if number else f"\nSetting: {title}")
            begun_at = time.monotonic()
            try:
                scene()
                result = Result(title, time.monotonic() - begun_at)
                self.say(f"  done in {result.seconds:.1f} s")
            except DemoError as error:
                result = Result(title, time.monotonic() - begun_at, str(error))
                self.say(f"  FAILED: {error}")
            yield result

    def _deploy(self) -> None:
        def is_deployed() -> bool:
            self._tell()
            return all(
                node.deployments()
                and all(d["phase"] in ("Deployed", "Stopped") for d in node.deployments().values())
                for node in self.nodes
            )

        wait_for(is_deployed, "the first deployment", _SETUP_SECONDS)
        self._tell()

    def _pin(self) -> None:
        self.repository.pin(RANKER, 2)
        self.repository.commit("Serve ranker 2: better recall")
        self.say(_indent(self.repository.show()))
        self._wait_until_ranker_serves(2)

    def _revert(self) -> None:
        self.repository.revert()
        self.say(_indent(self.repository.show()))
        self._wait_until_ranker_serves(1)

    def _break(self) -> None:
        model, version = BROKEN
        self.repository.pin(RANKER, version)
        self.repository.commit(f"Serve {model} {version}: faster")
        self.say(_indent(self.repository.show()))

        def has_failed() -> bool:
            self._tell()
            found = [d for node in self.nodes if (d := node.deployments().get(model))]
            return all(
                d["phase"] == "Failed" and d["wanted_version"] == version for d in found
            ) and bool(found)

        wait_for(has_failed, f"the failure of {model} {version}", _SCENE_SECONDS)
        for node in self.nodes:
            deployment = node.deployments().get(model)
            if deployment and deployment["serving_versions"] != [1]:
                raise DemoError(f"{node.name} serves {deployment['serving_versions']}, not [1]")

    def _wait_until_ranker_serves(self, version: int) -> None:
        def is_served() -> bool:
            self._tell()
            found = [d for node in self.nodes if (d := node.deployments().get("ranker"))]
            return bool(found) and all(
                d["phase"] == "Deployed" and d["serving_versions"] == [version] for d in found
            )

        wait_for(is_served, f"ranker {version} on every node of its group", _SCENE_SECONDS)

    def _tell(self) -> None:
        """Say what the nodes say, each thing once."""
        self.services.check()
        for node in self.nodes:
            for model, deployment in node.deployments().items():
                text = f"{deployment['phase']}: {deployment['sentence']}"
                if self._told.get((node.name, model)) != text:
                    self._told[node.name, model] = text
                    self.say(f"  {node.name:9} {model:9} {text}")


def _indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())
