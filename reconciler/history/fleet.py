"""What fleet.yaml and groups/ say at a commit, without the cost of reading its deployments."""

from collections.abc import Iterable, Iterator

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.fleets import FleetReader
from reconciler.config_repo.layout import Kind, Place, locate
from reconciler.config_repo.tree import Blob


def read_fleet(checkout: Checkout, commit_id: str) -> Fleet:
    """Return policy and groups at a commit; raises GitError or ConfigError as FleetReader does."""
    return FleetReader(_WithoutDeployments(checkout)).read(commit_id)


class _WithoutDeployments:
    """A checkout in which every commit has the files for the whole fleet alone."""

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout

    def read_tree(self, commit_id: str) -> dict[str, Blob]:
        tree = self._checkout.read_tree(commit_id)
        return {path: blob for path, blob in tree.items() if _is_of_fleet(path)}

    def read_blobs(self, blobs: Iterable[Blob]) -> Iterator[tuple[Blob, bytes]]:
        return self._checkout.read_blobs(blobs)

    def read_blob(self, blob_id: str) -> bytes | None:
        return self._checkout.read_blob(blob_id)


def _is_of_fleet(path: str) -> bool:
    place = locate(path)
    return isinstance(place, Place) and place.kind in (Kind.FLEET, Kind.GROUP)
