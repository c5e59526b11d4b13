"""Sources and outputs on an object store (s3:// of a real moto server), from this machine and from a Ray cluster."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.engines import Engine
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage import lock
from imgtool.pipelines.storage.folders import LocalFolder, RemoteFolder, open_folder, write_text
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.sample import write_sample
from imgtool.wordnet.errors import DatasetError, ImgtoolError, SourceError

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")

SMALL = Settings(max_side=96, shard_size=1, format="both")
MANY = Settings(max_side=0, quality=95, shard_size=1, format="both")


def filesystem():
    import fsspec

    return fsspec.filesystem("s3", skip_instance_cache=True)


def upload(folder: Path, name: str) -> None:
    filesystem().put(str(folder), f"bucket/{name}", recursive=True)


@pytest.fixture(scope="module")
def s3(drawn: Path):
    """The URL of a bucket that holds the drawn source under ILSVRC2012/."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name in ("AWS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        os.environ.pop(name, None)
    filesystem().mkdir("bucket")
    upload(drawn, "ILSVRC2012")
    yield "s3://bucket"
    server.stop()
    os.environ.clear()
    os.environ |= before


def contents(url: str | Path) -> dict[str, str]:
    folder, out = open_folder(url), {}
    for name, _ in folder.walk():
        with folder.local_path(name) as path:
            out[name] = file_xxh3(path)
    return out


@pytest.fixture(scope="module")
def whole(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that the local engine writes to a local disk, with their hashes."""
    out = tmp_path_factory.mktemp("whole") / "data"
    prepare(drawn, out, SMALL, workers=1)
    return contents(out)


def test_local_and_remote_folders_behave_alike(s3, tmp_path):
    for folder in (LocalFolder(tmp_path / "x"), RemoteFolder(f"{s3}/x")):
        assert folder.size("a/b.txt") is None
        for name, text in (("a/b.txt", "hello"), ("a.txt", "top"), ("a/a/c.txt", "")):
            write_text(folder, name, text)
        assert list(folder.walk()) == [("a/a/c.txt", 0), ("a/b.txt", 5), ("a.txt", 3)]
        assert (folder.size("a/b.txt"), folder.read("a/b.txt")) == (5, b"hello")
        file = folder.open("a/b.txt")
        assert (file.size, file.read(1, 3), file.read(3, 99), file.read(7, 1)) == (5, b"ell", b"lo", b"")
        file.close()
        with folder.local_path("a/b.txt") as path:
            assert path.read_bytes() == b"hello"
        with pytest.raises(FileNotFoundError):
            folder.open("a/missing")
        with contextlib.suppress(RuntimeError), folder.atomic_write("never.txt") as path:
            path.write_text("half")
            raise RuntimeError
        folder.remove("a")
        folder.remove("a")
        assert list(folder.walk()) == [("a.txt", 3)]


def test_from_store_to_store(s3, whole):
    prepare(f"{s3}/ILSVRC2012", f"{s3}/out", SMALL, workers=2)
    assert contents(f"{s3}/out") == whole
    assert prepare(f"{s3}/ILSVRC2012", f"{s3}/out", SMALL).already_complete


def test_from_store_to_disk_and_back(s3, drawn, whole, tmp_path):
    prepare(f"{s3}/ILSVRC2012", tmp_path / "out", SMALL, workers=1)
    assert contents(tmp_path / "out") == whole
    prepare(drawn, f"{s3}/up", SMALL, workers=1)
    assert contents(f"{s3}/up") == whole


def test_only_missing_shards_are_written_again(s3, drawn, whole):
    out = f"{s3}/lost"
    prepare(drawn, out, SMALL, workers=1)
    open_folder(out).remove("train/00000.beton")
    assert not prepare(drawn, out, SMALL, workers=1).already_complete
    assert contents(out) == whole
    with pytest.raises(DatasetError, match="other settings"):
        prepare(drawn, out, Settings(max_side=80))


def test_missing_and_foreign_paths_are_refused(s3, drawn):
    with pytest.raises(SourceError, match="nothing: no such file or folder in the store; check the URL"):
        prepare(f"{s3}/nothing", f"{s3}/o")
    with pytest.raises(ImgtoolError):
        prepare(drawn, "s3://no-such-bucket/out", SMALL, workers=1)
    with pytest.raises(DatasetError, match="not empty and not a prepared data set"):
        prepare(drawn, f"{s3}/ILSVRC2012", SMALL)


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("nothing/a.tar", "no such file or folder"),
        ("../no-such-bucket/a", "bucket does not exist"),
        ("../no-such-bucket", "404|does not exist"),
    ],
)
def test_what_is_missing_in_a_store_is_named(s3, path, cause):
    url = f"{s3}/{path}".replace("bucket/../", "")
    with pytest.raises(SourceError, match=f"{url}: .*({cause}).*; check the URL"):
        open_source(url)


def test_refused_connections_and_missing_credentials_are_named(s3, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ImgtoolError, match=r"s3://bucket/ILSVRC2012: .*[Cc]redentials"):
        open_source(f"{s3}/ILSVRC2012")
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ImgtoolError, match=r"s3://bucket/ILSVRC2012: .*[Cc]onnect"):
        open_source(f"{s3}/ILSVRC2012")
    monkeypatch.undo()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_second_prepare_is_refused_and_an_abandoned_lock_taken_over(s3, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.2)
    folder = open_folder(f"{s3}/locked")
    with lock.locked(folder):
        second = lock.locked(open_folder(f"{s3}/locked"))
        with pytest.raises(DatasetError, match="locked: another imgtool prepare"):
            second.__enter__()
    assert list(folder.walk()) == []
    write_text(folder, lock.LOCK, "a prepare that was killed")
    with lock.locked(folder):
        assert folder.size(lock.LOCK)


ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster(s3):
    """Two nodes on this machine, two CPUs each. The driver's node has no CPUs, so killing a node spares the driver."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_ray_writes_the_same_bytes(cluster, s3, whole):
    prepare(f"{s3}/ILSVRC2012", f"{s3}/ray", SMALL, engine=Engine("ray", address=cluster.address))
    assert contents(f"{s3}/ray") == whole


def test_a_lost_node_loses_nothing(cluster, s3, tmp_path):
    """A node is killed without notice after the first shard, while more shards are left than there are CPUs."""
    write_sample(tmp_path / "many", train_count=60, val_count=2)
    upload(tmp_path / "many", "many")

    def kill_one(_samples: int, _skipped: int) -> None:
        if len(cluster.worker_nodes) == 2:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    engine = Engine("ray", address=cluster.address)
    summary = prepare(f"{s3}/many", f"{s3}/killed", MANY, engine=engine, progress=kill_one)
    assert len(cluster.worker_nodes) == 1
    assert summary.stored == {"train": 600, "val": 20}
    prepare(tmp_path / "many", tmp_path / "out", MANY)
    made = contents(f"{s3}/killed")
    assert made == contents(tmp_path / "out")
    assert sum(name.endswith(".beton") for name in made) > 8
