"""What a bundle with a long past costs: its size, and a node's work for one more commit in it."""

import os
import resource
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.history import make_repository
from reconciler.config_repo.bundle_publish import publish_bundle
from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from tests.bucket import FakeBucket, run_fake_gcs
from tests.gitserver import git

COMMITS = 10_000
_ROUNDS = 9
_URL = "gs://acme/fleet.bundle"


@dataclass(frozen=True, slots=True)
class LongPast:
    """The bundle's size, and processor seconds of one more commit, git's own among them."""

    commits: int
    size_bytes: int
    publish_cpu_seconds: float
    bundle_cpu_seconds: float
    """Of a node that takes it from the bundle, as that is brought and fetched whole."""
    git_cpu_seconds: float
    """Of a node that takes it from a git server."""
    mirror_bytes: int
    """What the node keeps at most: the file and the mirror."""


def measure_long_past() -> LongPast:
    """Return the medians over some commits."""
    with tempfile.TemporaryDirectory() as name, run_fake_gcs() as endpoint:
        folder, clone = Path(name), Path(name) / "fleet"
        os.environ["STORAGE_EMULATOR_HOST"] = endpoint
        FakeBucket(endpoint, "acme")
        make_repository(clone, COMMITS)
        git("checkout", "--quiet", "--force", "main", cwd=clone)
        by_bundle = Mirror(MirrorSettings(_URL, "main", folder / "by-bundle"))
        by_git = Mirror(MirrorSettings(f"file://{clone}", "main", folder / "by-git"))
        checkout = Checkout(clone)
        size_bytes, mirror_bytes = 0, 0
        publishing, bundled, fetched = [], [], []
        for number in range(_ROUNDS):
            text = f"version: {number}\n"
            (clone / "deployments" / "search" / "model-0.yaml").write_text(text)
            git("commit", "--quiet", "--all", "-m", f"Deploy {number}", cwd=clone)
            publishing.append(_time(lambda: publish_bundle(checkout, _URL, "main")))
            bundled.append(_time(by_bundle.fetch))
            fetched.append(_time(by_git.fetch))
            size_bytes = (folder / "by-bundle" / "fleet.bundle").stat().st_size
            mirror_bytes = max(mirror_bytes, _sum_sizes(folder / "by-bundle"))
        by_bundle.close()
        # The first is that of an empty mirror.
        return LongPast(
            commits=COMMITS,
            size_bytes=size_bytes,
            publish_cpu_seconds=round(statistics.median(publishing[1:]), 2),
            bundle_cpu_seconds=round(statistics.median(bundled[1:]), 2),
            git_cpu_seconds=round(statistics.median(fetched[1:]), 2),
            mirror_bytes=mirror_bytes,
        )


def _time(work: Callable[[], object]) -> float:
    before = _read_cpu_seconds()
    work()
    return _read_cpu_seconds() - before


def _read_cpu_seconds() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def _sum_sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
