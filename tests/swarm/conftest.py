"""One Swarm for all tests of this folder: it takes a minute to come up."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bucket import FakeBucket, run_fake_gcs
from tests.gitserver import ConfigRemote, serve_ssh
from tests.swarm import images
from tests.swarm.engines import find_obstacle, make_lan, run_node
from tests.swarm.fleet import Fleet

_NOT_TRIED = "THE STACK WAS NOT TRIED ON A REAL SWARM"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test the time to build the images, should it have to."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    if obstacle := find_obstacle():
        pytest.skip(f"{_NOT_TRIED}: {obstacle}")
    with ExitStack() as stack:
        # Not pytest's own folder, which may be moved away before an interrupted run has ended.
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="reconciler-swarm-"))
        folder = Path(name)
        try:
            lan = stack.enter_context(make_lan())
            nodes = {
                name: stack.enter_context(run_node(lan, folder / name, name, number))
                for number, name in enumerate(("one", "two"), start=11)
            }
        except AssertionError as error:  # in a container without the rights, for example
            pytest.skip(f"{_NOT_TRIED}: no engine starts here: {error}")
        with images.run_builder() as builder:
            try:
                images.build_all(builder)
            except images.NoImagesError as error:
                pytest.skip(f"{_NOT_TRIED}: {error}")
            names = (images.AGENT, images.NEWER_AGENT, images.BROKEN_AGENT, images.SERVER)
            for node in nodes.values():
                builder.copy_images(node, *names)
        remote = ConfigRemote(folder)
        ssh = stack.enter_context(serve_ssh(folder / "ssh", shutil.which("sshd") or "", lan.here))
        bucket = FakeBucket(stack.enter_context(run_fake_gcs(lan.here)), "models")
        made = Fleet(folder, nodes, remote, bucket, ssh)
        try:
            made.form_swarm()
        except AssertionError as error:  # on a kernel without what Swarm's networks need
            pytest.skip(f"{_NOT_TRIED}: no Swarm is formed here: {error}")
        made.publish("ranker", 41)
        made.publish("ranker", 42)
        made.commit("Serve ranker 41", ranker=41)
        made.deploy()
        yield made
