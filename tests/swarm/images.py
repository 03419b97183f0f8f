"""The images of the test: the agent's by its Dockerfile, and what is made of it.

No image registry is asked: the base is made from Debian's packages. The builder's store stays in
`build/`, so that a second run takes seconds.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

from tests.swarm.engines import Engine, run

ROOT = Path(__file__).parents[2]
BASE = "local/python:3.11-bookworm"
AGENT = "local/reconciler:1"
NEWER_AGENT = "local/reconciler:2"
BROKEN_AGENT = "local/reconciler:3"
SERVER = "local/tensorflow-serving:2.20.0"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_DEBOOTSTRAP_SECONDS = 600.0

_SERVER_FILE = f"""
FROM {BASE}
COPY --from={AGENT} /opt/reconciler /opt/reconciler
RUN printf '#!/bin/sh\\nexec /opt/reconciler/bin/reconciler dev tf-serving "$@"\\n' \
      >/usr/local/bin/tensorflow_model_server && chmod 755 /usr/local/bin/tensorflow_model_server
"""
"""The stand-in in the role of tensorflow/serving: nothing of the agent's user or folders in it."""


_PROBE_FILE = f"""
FROM {BASE}
RUN apt-get update --quiet && python3 -m venv /probe && /probe/bin/pip install --quiet hatchling
"""
"""What every build needs of the network; if this fails the Dockerfile is not to blame."""


class NoImagesError(Exception):
    """This machine cannot build images: it gets no base, or no packages into a container."""


@contextmanager
def run_builder() -> Iterator[Engine]:
    """Run an engine that builds images, on this machine's own network."""
    builder = Engine("builder", ROOT / "build/swarm")
    builder.start()
    try:
        yield builder
    finally:
        builder.stop()


def build_all(builder: Engine) -> None:
    """Build every image of the test."""
    build_agent(builder)
    for tag, dockerfile in {
        SERVER: _SERVER_FILE,
        NEWER_AGENT: f"FROM {AGENT}\nLABEL edition=2\n",
        BROKEN_AGENT: f'FROM {AGENT}\nCMD ["run", "--no-such-option"]\n',
    }.items():
        builder.docker("build", "--tag", tag, "-", stdin=dockerfile.encode())


def build_agent(builder: Engine) -> None:
    """Build the agent's image as README.md says, on a base of Debian's Python."""
    if not builder.docker("images", "--quiet", BASE):
        _make_base(builder)
        probe = builder.try_docker("build", "--network", "host", "-", stdin=_PROBE_FILE.encode())
        if probe.returncode != 0:
            builder.docker("rmi", "--force", BASE)
            said = probe.stderr.decode(errors="replace")[-1000:]
            raise NoImagesError(f"containers reach no package registries here: {said}")
    builder.docker(
        *("build", "--network", "host", "--build-arg", f"BASE={BASE}", "--tag", AGENT, str(ROOT))
    )


def _make_base(builder: Engine) -> None:
    with tempfile.TemporaryDirectory(prefix="reconciler-base-") as folder:
        packages = "--include=python3,python3-venv,ca-certificates"
        try:
            run(
                *("debootstrap", "--variant=minbase", packages, "bookworm", folder),
                seconds=_DEBOOTSTRAP_SECONDS,
            )
        except AssertionError as error:
            raise NoImagesError(f"debootstrap could not make a base image: {error}") from None
        if _CERTIFICATES.exists():  # with a company's own authority in it, where there is one
            shutil.copy(_CERTIFICATES, Path(folder + str(_CERTIFICATES)))
        for rest in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(Path(folder, rest))
        with Popen(["tar", "--create", "--directory", folder, "."], stdout=PIPE) as packing:
            assert packing.stdout is not None
            builder.docker("import", "-", BASE, stdin=packing.stdout.read())
        assert packing.returncode == 0
