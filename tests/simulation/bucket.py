"""The bucket of a simulated fleet: which versions there are, and how large."""

from reconciler.model import Listing, Query, Snapshot, StoredFile
from tests.simulation.repo import source


class Bucket:
    """Versions by model; a version once published stays as it is."""

    def __init__(self) -> None:
        self.generation = 0
        """Grows with every change: a listing of the same generation is the same."""
        self.is_away = False
        self._snapshots: dict[str, dict[int, Snapshot]] = {}
        self._sizes_bytes: dict[str, int] = {}

    def add_model(self, model: str, size_bytes: int, versions: int, now: float) -> None:
        """Publish versions 1 to `versions` of a model that is not there yet."""
        self._sizes_bytes[model] = size_bytes
        for version in range(1, versions + 1):
            self.publish(model, version, now)

    def publish(self, model: str, version: int, now: float) -> bool:
        """Publish one version; False where it is there, or the model is none."""
        found = self._snapshots.setdefault(source(model), {})
        if version in found or model not in self._sizes_bytes:
            return False
        file = StoredFile("saved_model.pb", self._sizes_bytes[model], version, 7, now)
        snapshot = Snapshot(source(model), version, str(version), (file,))
        self._snapshots[source(model)] = {**found, version: snapshot}
        self.generation += 1
        return True

    def newest(self, model: str) -> int:
        """Return the highest version of a model."""
        return max(self._snapshots[source(model)])

    def size_bytes(self, model: str) -> int:
        """Return how large each version of a model is."""
        return self._sizes_bytes[model]

    def list(self, query: Query, now: float) -> Listing:
        """Answer a query."""
        found = self._snapshots.get(query.source, {})
        if query.version is not None:
            found = {v: snapshot for v, snapshot in found.items() if v == query.version}
        return Listing(query, now, found)
