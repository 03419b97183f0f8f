"""Publishing an export as the next version, into a bucket and into a folder."""

import asyncio
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from reconciler.cli.publish import publish, publish_version
from reconciler.errors import SourceError
from reconciler.model import Query, Rule, VersionScheme
from reconciler.sources.file import FileSource
from reconciler.sources.registry import Sources
from tests.bucket import WHOLE, FakeBucket, read_files, run_fake_gcs, write_files
from tests.faultproxy import Fault, Request, always, run_proxy

RANKER = "gs://acme/ranker"
SUMS = "".join(
    f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(WHOLE.items())
).encode()
PUBLISHED = {**WHOLE, "SHA256SUMS": SUMS}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBucket]:
    with run_fake_gcs() as endpoint:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        yield FakeBucket(endpoint, "acme")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return write_files(tmp_path / "export", WHOLE)


def test_versions_count_up_in_a_bucket(bucket: FakeBucket, export: Path) -> None:
    assert publish_version(export, RANKER) == 1
    assert publish_version(export, f"{RANKER}/", 41) == 41
    assert publish_version(export, RANKER) == 42
    expected = {f"ranker/{version}/{path}" for version in (1, 41, 42) for path in PUBLISHED}
    assert bucket.names() == expected
    for path, content in PUBLISHED.items():
        assert bucket.read(f"ranker/42/{path}") == content


def test_the_graph_comes_last_and_the_sums_before_it(bucket: FakeBucket, export: Path) -> None:
    publish_version(export, RANKER)
    sources = Sources()
    files = sources.open(RANKER).list(Query(RANKER)).snapshots[1].files
    sources.close()
    written = [file.path for file in sorted(files, key=lambda file: file.generation)]
    assert written[-2:] == ["SHA256SUMS", "saved_model.pb"]


def test_versions_count_up_in_a_folder(tmp_path: Path, export: Path) -> None:
    url = f"file://{tmp_path}/source"
    assert publish_version(export, url) == 1
    assert publish_version(export, url) == 2
    assert read_files(tmp_path / "source/2") == PUBLISHED
    assert read_files(export) == WHOLE
    assert {path.name for path in (tmp_path / "source").iterdir()} == {"1", "2"}


def test_the_sums_are_those_that_sha256sum_checks(tmp_path: Path, export: Path) -> None:
    publish_version(export, f"file://{tmp_path}/source")
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    folder = tmp_path / "source/1"
    subprocess.run(command, cwd=folder, check=True, timeout=20)
    (folder / "saved_model.pb").write_bytes(b"another graph")
    assert subprocess.run(command, cwd=folder, check=False, timeout=20).returncode == 1


@pytest.mark.parametrize(
    ("sums", "is_false"),
    [
        (SUMS, False),
        (b"".join(reversed(SUMS.splitlines(keepends=True))), False),
        (SUMS.splitlines(keepends=True)[0], True),
        (SUMS.replace(b"a", b"b"), True),
        (b"no sums", True),
    ],
    ids=["true", "another order", "a file too few", "other sums", "junk"],
)
def test_sums_in_an_export_are_replaced_unless_they_are_true(
    tmp_path: Path, export: Path, sums: bytes, is_false: bool
) -> None:
    (export / "SHA256SUMS").write_bytes(sums)
    url = f"file://{tmp_path}/source"
    result = CliRunner().invoke(publish, [str(export), url])
    assert (result.exit_code, result.stdout) == (0, f"published {url}/1 (6 files, 7.5 kB)\n")
    assert ("is not true of its files" in result.stderr) == is_false
    assert read_files(tmp_path / "source/1") == PUBLISHED
    assert (export / "SHA256SUMS").read_bytes() == sums


def test_a_name_that_clashes_with_the_sums_is_refused(tmp_path: Path, export: Path) -> None:
    (export / "sha256sums").touch()
    with pytest.raises(SourceError, match="differ only in the case") as raised:
        publish_version(export, f"file://{tmp_path}/source")
    assert raised.value.reason == "BadObjectName"


def test_a_large_file_is_published_whole(bucket: FakeBucket, export: Path) -> None:
    content = bytes(range(256)) * 40 * 1024
    (export / "saved_model.pb").write_bytes(content)
    publish_version(export, RANKER)
    assert bucket.read("ranker/1/saved_model.pb") == content


def test_an_existing_version_is_not_overwritten(
    bucket: FakeBucket, tmp_path: Path, export: Path
) -> None:
    bucket.put("ranker/0042/saved_model.pb", b"old")
    bucket.put("ranker/7/a\nb", b"refused by nodes, but there")
    for version in (42, 7):
        with pytest.raises(SourceError, match="to publish 43") as raised:
            publish_version(export, RANKER, version)
        assert raised.value.reason == "VersionExists"
    assert len(bucket.names()) == 2


async def test_someone_else_publishing_the_same_number_is_noticed(
    bucket: FakeBucket, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_proxy(bucket.endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        await asyncio.to_thread(publish_version, export, RANKER)
        uploads = [request for request in proxy.requests if request.method == "POST"]
        assert all("ifGenerationMatch=0" in request.target for request in uploads)
        assert len(uploads) == len(PUBLISHED)
        # The emulator ignores the condition; this is what Cloud Storage answers.
        proxy.rules = [always(Fault(status=412), lambda r: r.method == "POST")]
        with pytest.raises(SourceError) as raised:
            await asyncio.to_thread(publish_version, export, RANKER)
    assert raised.value.reason == "VersionExists"


async def test_an_upload_that_fails_leaves_nothing_that_a_node_would_take(
    bucket: FakeBucket, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_proxy(bucket.endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        posts = 0

        def refuse_third(request: Request) -> Fault | None:
            nonlocal posts
            posts += request.method == "POST"
            return Fault(status=403) if posts == 3 else None

        proxy.rules = [refuse_third]
        with pytest.raises(SourceError, match="not taken by any node") as raised:
            await asyncio.to_thread(publish_version, export, RANKER)
    assert raised.value.reason == "PublishFailed"
    assert "ranker/1/saved_model.pb" not in bucket.names()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "saved_model.pb").unlink(), "Incomplete"),
        (lambda folder: (folder / "variables/variables.index").unlink(), "Incomplete"),
        (lambda folder: (folder / "a\nb").touch(), "BadObjectName"),
        (lambda folder: (folder / "link").symlink_to("saved_model.pb"), "BadObjectName"),
    ],
    ids=["no graph", "no index", "control character", "link"],
)
def test_what_no_node_would_take_is_not_published(
    bucket: FakeBucket, export: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(export)
    with pytest.raises(SourceError) as raised:
        publish_version(export, RANKER)
    assert raised.value.reason == reason
    assert bucket.names() == set()


def test_a_missing_bucket_is_said_so(bucket: FakeBucket, export: Path) -> None:
    with pytest.raises(SourceError) as raised:
        publish_version(export, "gs://nowhere/ranker")
    assert raised.value.reason == "BucketNotFound"


def test_the_command_says_what_it_did(tmp_path: Path, export: Path) -> None:
    url = f"file://{tmp_path}/source"
    result = CliRunner().invoke(publish, [str(export), url, "--version", "5"])
    assert (result.exit_code, result.output) == (
        0,
        f"published {url}/5 (6 files, 7.5 kB)\n",
    )
    assert set(FileSource().list(Query(url)).snapshots) == {5}


@pytest.mark.parametrize("url", [RANKER, "file://FOLDER/source"], ids=["bucket", "folder"])
def test_a_version_is_published_under_a_name_once(
    bucket: FakeBucket, tmp_path: Path, export: Path, url: str
) -> None:
    url = url.replace("FOLDER", str(tmp_path))
    arguments = [str(export), url, "--name", "1.43.13"]
    result = CliRunner().invoke(publish, arguments)
    assert result.exit_code == 0, result.output
    assert result.output == f"published {url}/1.43.13 (6 files, 7.5 kB)\n"
    sources = Sources()
    found = sources.open(url).list(Query(url, scheme=VersionScheme(Rule.SEMVER))).snapshots
    sources.close()
    assert [(snapshot.title, len(snapshot.files)) for snapshot in found.values()] == [
        ("1.43.13", 6)
    ]
    with pytest.raises(SourceError, match=r"version 1\.43\.13 of \S+ exists already"):
        CliRunner().invoke(publish, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--name", "a/b"], "cannot be the name of a version"),
        (["--name", "latest"], "cannot be the name of a version"),
        (["--name", "1.2.3", "--version", "5"], "give --version or --name"),
    ],
)
def test_what_is_no_name_is_not_published(
    tmp_path: Path, export: Path, options: list[str], sentence: str
) -> None:
    result = CliRunner().invoke(publish, [str(export), f"file://{tmp_path}/source", *options])
    assert (result.exit_code, sentence in result.output) == (2, True)
    assert not (tmp_path / "source").exists()
