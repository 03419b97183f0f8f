"""The Docker engine, as far as an agent may use it: on containers with one label, and no others.

Every call that changes something looks at the label first, in the engine, so that no mistake
further up and no name that changed hands meanwhile leads it to another container. Blocking; each
call is a connection of its own with a deadline of its own. Imported only where supervision is on:
the docker SDK is an extra.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, TypeVar

import requests
from docker.errors import APIError, DockerException, NotFound
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as ReadTimeoutError

from reconciler.docker_engine import (
    UNIX,
    AnswerTooLargeError,
    Engine,
    causes,
    socket_path,
    try_socket,
)
from reconciler.model import ServerSpec
from reconciler.status.client import printable
from reconciler.supervision.container import (
    NEXT_SUFFIX,
    Container,
    build_successor,
    find_endpoints,
)
from reconciler.supervision.errors import INVALID, REFUSED, EngineError

ResultT = TypeVar("ResultT")

STOP_SECONDS = 30
"""How long a server may take to end before the engine kills it."""
_DEADLINE_SECONDS = 15.0
_STOP_DEADLINE_SECONDS = STOP_SECONDS + 30.0
_PULL_DEADLINE_SECONDS = 1800.0
_MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_CONTAINERS = 50
_MAX_QUOTED_CHARACTERS = 200
_GONE = frozenset({"removing", "dead"})
_MISREADINGS = (TypeError, LookupError, AttributeError, RecursionError)


class ServerEngine:
    """One engine and the label of what may be touched there."""

    def __init__(self, host: str, label: str) -> None:
        self._host = host
        self._label, self._has_value, self._value = label.partition("=")

    def find(self) -> tuple[Container, ...]:
        """Return the containers with the label, running or not."""

        def look(engine: Engine) -> tuple[Container, ...]:
            listed = engine.containers(all=True, filters={"label": self._filter})
            if len(listed) > _MAX_CONTAINERS:
                raise EngineError(
                    f"{len(listed)} containers carry the label {self._filter}; give it to the one"
                    " that runs this node's server (RECONCILER_SUPERVISE_LABEL)"
                )
            found = []
            for item in listed:
                try:
                    found.append(Container.of(engine.inspect_container(item["Id"])))
                except NotFound:
                    continue  # removed since it was listed
            return tuple(
                container
                for container in found
                if self._is_ours(container) and container.state not in _GONE
            )

        return self._call("list its containers", look)

    def find_image_id(self, image: str) -> str | None:
        """Return the id of an image that is here, None where it has to be pulled."""

        def look(engine: Engine) -> str | None:
            try:
                return str(engine.inspect_image(image)["Id"])
            except NotFound:
                return None

        return self._call(f"look at the image {image}", look)

    def pull(self, image: str) -> None:
        """Bring an image here, with the engine's or the agent's own credentials."""

        def pull(engine: Engine) -> None:
            for line in str(engine.pull(image)).splitlines():
                # The engine says 200 before it knows, and how it ended in the last line.
                said = json.loads(line) if line.strip() else {}
                if "error" in said:
                    raise EngineError(
                        f"the image {image} could not be pulled: {_quote(said['error'])}", REFUSED
                    )

        self._call(f"pull {image}", pull, _PULL_DEADLINE_SECONDS)

    def create_successor(self, container: Container, spec: ServerSpec) -> None:
        """Create, without starting it, what is to take the container's place."""

        def create(engine: Engine) -> None:
            try:
                defaults = engine.inspect_image(container.image_id)["Config"] or {}
            except NotFound:
                defaults = {}  # removed by force: what it brought along is kept as if it was given
            body = build_successor(container, spec, defaults)
            made = engine.create_container_from_config(body, container.place + NEXT_SUFFIX)
            for network, endpoint in list(find_endpoints(container).items())[1:]:
                _connect(engine, network, str(made["Id"]), endpoint)

        self._change(container, "create the successor of", create)

    def start(self, container: Container) -> None:
        """Start a container that is stopped."""
        self._change(container, "start", lambda engine: engine.start(container.id))

    def stop(self, container: Container) -> None:
        """Stop a container, by force after STOP_SECONDS."""
        self._change(
            container,
            "stop",
            lambda engine: engine.stop(container.id, timeout=STOP_SECONDS),
            _STOP_DEADLINE_SECONDS,
        )

    def restart(self, container: Container) -> None:
        """Stop a container and start it again."""
        self._change(
            container,
            "restart",
            lambda engine: engine.restart(container.id, timeout=STOP_SECONDS),
            _STOP_DEADLINE_SECONDS,
        )

    def remove(self, container: Container) -> None:
        """Remove a container that is stopped; its volumes stay."""
        self._change(container, "remove", lambda engine: engine.remove_container(container.id))

    def rename(self, container: Container, name: str) -> None:
        """Give a container another name."""
        self._change(container, "rename", lambda engine: engine.rename(container.id, name))

    @property
    def _filter(self) -> str:
        return f"{self._label}{self._has_value}{self._value}"

    def _is_ours(self, container: Container) -> bool:
        value = container.labels.get(self._label)
        return value is not None and (not self._has_value or value == self._value)

    def _change(
        self,
        container: Container,
        what: str,
        change: Callable[[Engine], None],
        deadline_seconds: float = _DEADLINE_SECONDS,
    ) -> None:
        def check_and_change(engine: Engine) -> None:
            if not self._is_ours(Container.of(engine.inspect_container(container.id))):
                raise EngineError(f"container {container.name} does not carry the label any more")
            change(engine)

        self._call(f"{what} container {container.name}", check_and_change, deadline_seconds)

    def _call(
        self,
        what: str,
        work: Callable[[Engine], ResultT],
        deadline_seconds: float = _DEADLINE_SECONDS,
    ) -> ResultT:
        if not self._host.startswith((UNIX, "tcp://")):
            raise EngineError(
                "RECONCILER_DOCKER_HOST is not an address of Docker; write it as"
                " unix:///var/run/docker.sock or tcp://host:port"
            )
        try:
            if self._host.startswith(UNIX):
                try_socket(socket_path(self._host), _DEADLINE_SECONDS)
            with closing(Engine(self._host, deadline_seconds, _MAX_BODY_BYTES)) as engine:
                return work(engine)
        except (
            AnswerTooLargeError,
            DockerException,
            HTTPError,
            OSError,
            ValueError,
            *_MISREADINGS,
        ) as error:
            raise _explain(error, what, deadline_seconds) from None


def _connect(engine: Engine, network: str, container: str, endpoint: Mapping[str, Any]) -> None:
    """Connect a container to a further network; the SDK's own call knows not all of an endpoint."""
    url = engine._url("/networks/{0}/connect", network)
    body = {"Container": container, "EndpointConfig": dict(endpoint)}
    engine._raise_for_status(engine._post_json(url, data=body))


def _explain(error: Exception, what: str, deadline_seconds: float) -> EngineError:
    """Return what went wrong in a sentence."""
    found = list(causes(error))
    for cause in found:
        match cause:
            case AnswerTooLargeError():
                return EngineError(f"{cause} when asked to {what}", INVALID)
            case APIError():
                said = _quote(cause.explanation)
                sentence = f"Docker would not {what}: {cause.status_code}: {said}"
                return EngineError(sentence, REFUSED)
            case PermissionError():
                return EngineError(
                    "the agent may not use Docker's socket; let its user be of the socket's group",
                    REFUSED,
                )
            case requests.Timeout() | ReadTimeoutError() | TimeoutError():
                return EngineError(f"Docker did not {what} within {deadline_seconds:g} s")
            case requests.JSONDecodeError() | json.JSONDecodeError():
                return EngineError(f"Docker's answer makes no sense, asked to {what}", INVALID)
            case TypeError() | LookupError() | AttributeError() | RecursionError():
                return EngineError(f"Docker's answer makes no sense, asked to {what}", INVALID)
    root = found[-1]
    words = (root.strerror if isinstance(root, OSError) else None) or str(root)
    return EngineError(
        f"Docker cannot be asked to {what}: {_quote(words)}; is its socket mounted, and"
        " RECONCILER_DOCKER_HOST right?"
    )


def _quote(words: object) -> str:
    return printable(" ".join(str(words).split()))[:_MAX_QUOTED_CHARACTERS]
