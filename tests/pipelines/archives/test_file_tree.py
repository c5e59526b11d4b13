"""A data set's files are the same from a folder, a tar and a zip, and what is passed over is counted."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.records import Record, from_table, to_table
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError

FORMS = ["folder", "tar", "zip"]


def image(seed: int = 0, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20 + seed, 10), (seed * 40 % 256, 9, 200)).save(buffer, form)
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    """Writes files, bytes by name; a str is the target of a symbolic link."""
    for name, content in files.items():
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return root


class UnixName(zipfile.ZipInfo):
    """A member whose name's bytes are as the file system has them, without the UTF-8 flag, as `zip` writes it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return os.fsencode(self.filename), self.flag_bits


def zip_of(root: Path, out: Path) -> Path:
    """Writes the zip of a folder with its links, as `zip -y` does."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                info = UnixName(str(path.relative_to(root)))
                info.external_attr = os.lstat(path).st_mode << 16
                archive.writestr(info, os.readlink(path) if path.is_symlink() else path.read_bytes())
            else:
                archive.writestr(UnixName(f"{path.relative_to(root)}/"), b"")
    return out


def tree_of(root: Path, form: str) -> FileTree:
    if form == "folder":
        return FileTree(str(root))
    out = root.with_name(f"{root.name}.{form}")
    if form == "zip":
        zip_of(root, out)
    else:
        with tarfile.open(out, "w") as archive:
            archive.add(root, ".")
    return FileTree(str(out.parent), out.name)


def contents(tree: FileTree) -> dict[str, bytes]:
    with LocatorReader(tree.root) as reader:
        return {name: reader.read(locator) for name, locator in tree.files.items()}


@pytest.mark.parametrize("form", FORMS)
def test_hidden_and_system_files_are_passed_over_and_counted(tmp_path, form):
    litter = [
        *(
            ".git/objects/aa/b",
            ".ipynb_checkpoints/0-checkpoint.jpg",
            ".DS_Store",
            "train/ant/._0.jpg",
            "train/Thumbs.db",
        ),
        *("__MACOSX/train/ant/0.jpg", "train/@eaDir/0.jpg/SYNO.jpg", "train/bee/desktop.ini", "train/.x/1.jpg"),
    ]
    data = ["train/ant/0.jpg", "train/bee/0.jpg"]
    tree = tree_of(write(tmp_path / "s", {name: image() for name in [*litter, *data]}), form)
    assert sorted(tree.files) == data
    assert tree.passed_over.counts == {"hidden": 5, "system file": 4}
    [line] = tree.passed_over.notes()
    assert line.startswith("passed over: 9 files: 5 hidden (") and "4 system file" in line
    source = open_source(tree.path)
    assert source.wnids == ["ant", "bee"]


@pytest.mark.parametrize("form", FORMS)
def test_links_are_files_where_they_lead_to_one(tmp_path, form):
    root = write(
        tmp_path / "s",
        {
            "train/ant/0.jpg": image(0),
            "train/ant/link.jpg": "0.jpg",
            "train/ant/chain.jpg": "link.jpg",
            "train/bee/up.jpg": "../ant/0.jpg",
            "train/bee/hidden.jpg": "../../.data/x",
            "train/bee/gone.jpg": "nowhere/0.jpg",
            "train/bee/circle.jpg": "circle.jpg",
            "train/cat": "ant",
            "train/cat2": "./cat/",
            "train/dog/up": "..",
            ".data/x": image(1),
        },
    )
    os.link(root / "train/ant/0.jpg", root / "train/bee/hard.jpg")
    tree = tree_of(root, form)
    found = contents(tree)
    assert set(found) == {
        *(f"train/{name}/{base}.jpg" for name in ("ant", "cat", "cat2") for base in ("0", "link", "chain")),
        *("train/bee/up.jpg", "train/bee/hidden.jpg", "train/bee/hard.jpg"),
    }
    assert {name for name, data in found.items() if data != image(0)} == {"train/bee/hidden.jpg"}
    assert tree.passed_over.counts == {"link to a missing file": 1, "link loop": 2, "hidden": 1}
    assert tree.passed_over.first["link to a missing file"] == "train/bee/gone.jpg"


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../etc/hostname", "../" * 9])
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_no_link_leads_out_of_an_archive(tmp_path, form, target):
    root = write(tmp_path / "s", {"train/ant/0.jpg": image(), "train/ant/1.jpg": target})
    tree = tree_of(root, form)
    assert list(tree.files) == ["train/ant/0.jpg"]
    assert tree.passed_over.counts == {"link out of the archive": 1}


def test_links_that_multiply_files_are_refused(tmp_path, monkeypatch):
    from imgtool.pipelines.archives import links

    monkeypatch.setattr(links, "MAX_FILES", 1000)
    files: dict[str, bytes | str] = {"0/x.jpg": image()}
    for level in range(1, 20):
        files |= {f"{level}/{side}": f"../{level - 1}" for side in "ab"}
    with pytest.raises(SourceError, match=r"s\.tar: its links .* multiply"):
        tree_of(write(tmp_path / "s", files), "tar")


def test_a_link_to_a_folder_above_the_source_is_a_loop(tmp_path):
    tree = FileTree(str(write(tmp_path / "a/s", {"train/ant/0.jpg": image(), "train/bee": "../..", "root": "/"})))
    assert list(tree.files) == ["train/ant/0.jpg"]
    assert tree.passed_over.counts == {"link loop": 2}


def test_pipes_and_folders_that_cannot_be_read(tmp_path, monkeypatch):
    root = write(tmp_path / "s", {"train/ant/0.jpg": image(), "train/no/0.jpg": image()})
    os.mkfifo(root / "train/pipe.jpg")
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("/no"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    tree = FileTree(str(root))
    assert list(tree.files) == ["train/ant/0.jpg"]
    assert tree.passed_over.counts == {"folder that cannot be read": 1, "not a regular file": 1}


@pytest.mark.parametrize("form", FORMS)
def test_files_of_unknown_suffix_are_decided_by_their_content(tmp_path, form):
    ppm = b"P6\n2 2\n255\n" + bytes(12)
    root = write(
        tmp_path / "s",
        {
            "train/ant/a.jfif": image(),
            "train/ant/b": image(1, "PNG"),
            "train/ant/c.img": ppm,
            "train/ant/d.unknown": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "train/ant/html.jpg": b"<html>",
            "train/ant/e.unknown": b"no image",
            "train/ant/f": b"",
            "README.md": image(),
        },
    )
    tree = tree_of(root, form)
    images = [f"train/ant/{name}" for name in ("a.jfif", "b", "c.img", "d.unknown", "html.jpg")]
    assert sorted(tree.images()) == sorted(tree.images()) == images
    assert tree.passed_over.counts == {"not an image": 3}
    tree.read_text("train/ant/e.unknown")
    assert tree.passed_over.counts == {"not an image": 2} and tree.texts == {"train/ant/e.unknown"}
    assert len(tree.files) == 8


@pytest.mark.parametrize("form", FORMS)
def test_folders_without_files(tmp_path, form):
    files = {"top/train/ant/0.jpg": image(), "top/val/ant/1.jpg": image(), "top/train/bee/.gitkeep": b"", ".git/x": b""}
    root = write(tmp_path / "s", files)
    for name in ("top/train/cat", "top/é/a/b", ".git/y", "else"):
        (root / name).mkdir(parents=True)
    (root / "top/train/link").symlink_to("..")
    tree = tree_of(root, form)
    assert set(tree.files) == {"train/ant/0.jpg", "val/ant/1.jpg"}
    assert tree.empty_folders == ["train/bee", "train/cat", "é", "é/a", "é/a/b"]


@pytest.mark.parametrize("form", FORMS)
def test_names_outside_ascii(tmp_path, form):
    """UTF-8, and Latin-1 as older systems write it, part by part."""
    names = [
        "train/猫/é.jpg".encode(),
        "train/猫/".encode() + b"\xe9t\xe9.jpg",
        b"train/caf\xe9/1.jpg",
        b"train/a\x80/2.jpg",
    ]
    try:
        root = write(tmp_path / "s", {os.fsdecode(name): image() for name in names})
    except OSError:
        pytest.skip("this file system accepts only UTF-8 names")
    tree = tree_of(root, form)
    assert set(tree.files) == {"train/猫/é.jpg", "train/猫/été.jpg", "train/café/1.jpg", "train/a\x80/2.jpg"}
    assert set(contents(tree).values()) == {image()}
    records = [Record(name, ("n",), locator) for name, locator in tree.files.items()]
    assert list(from_table(to_table(records))) == records
    for record in records:
        str(record.locator).encode()


def test_two_names_that_read_alike_are_both_kept(tmp_path):
    try:
        root = write(tmp_path / "s", {"train/caf\udce9/1.jpg": image(0), "train/café/1.jpg": image(1)})
    except OSError:
        pytest.skip("this file system accepts only UTF-8 names")
    assert contents(FileTree(str(root))) == {"train/café/1.jpg": image(1), "train/caf\\xe9/1.jpg": image(0)}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["top/a/train/x/1.jpg", "top/a/val/x/1.jpg"], ["train/x/1.jpg", "val/x/1.jpg"]),
        (["top/train/x/1.jpg", "top/train/y/1.jpg"], ["train/x/1.jpg", "train/y/1.jpg"]),
        (["top/train/x/1.jpg", "__MACOSX/top/._x", "._top"], ["train/x/1.jpg"]),
        ([".top/train/x/1.jpg", ".top/.DS_Store"], ["train/x/1.jpg"]),
        (["x/1.jpg", "x/2.jpg"], ["x/1.jpg", "x/2.jpg"]),
    ],
)
def test_a_folder_that_holds_everything_is_left_out(tmp_path, names, expected):
    assert list(tree_of(write(tmp_path / "s", dict.fromkeys(names, b"x")), "tar").files) == expected


def test_the_last_of_several_members_of_a_name_counts(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (b"first", b"second"):
            info = tarfile.TarInfo("x/1.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    tree = FileTree(str(tmp_path), "a.tar")
    assert contents(tree) == {"x/1.jpg": b"second"}
    assert tree.passed_over.counts == {"replaced by a later file": 1}


def test_a_second_archive_after_the_first_is_counted(tmp_path, tar_of):
    (tmp_path / "a.tar").write_bytes(tar_of({"x/1.jpg": b"one"}) + tar_of({"x/2.jpg": b"two"}))
    tree = FileTree(str(tmp_path), "a.tar")
    assert list(tree.files) == ["x/1.jpg"]
    assert tree.passed_over.first == {"further archive after the end of the first": "x/2.jpg"}


def test_a_link_and_a_file_of_one_name(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, target in (
            ("x/0.jpg", ""),
            ("x/1.jpg", ""),
            ("x/1.jpg", "0.jpg"),
            ("x/2.jpg", "0.jpg"),
            ("x/2.jpg", ""),
        ):
            info = tarfile.TarInfo(name)
            if target:
                info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    tree = FileTree(str(tmp_path), "a.tar")
    assert list(tree.files) == ["x/0.jpg", "x/1.jpg", "x/2.jpg"]
    assert tree.passed_over.counts == {"replaced by a later file": 2}


PARTS = st.sampled_from(["a", "b", "train", "val", ".h", "Thumbs.db", "é", "__MACOSX", "x.jpg", "y.txt", "z"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
CONTENTS = st.sampled_from([b"", b"text", image(), image(1, "PNG")])
LINKS = st.tuples(PATHS, st.integers(0, 3)).map(lambda link: "../" * link[1] + link[0])


@settings(max_examples=60, deadline=None)
@given(
    files=st.dictionaries(PATHS, CONTENTS, min_size=1, max_size=8),
    links=st.dictionaries(PATHS, LINKS, max_size=4),
)
def test_what_is_stored_and_passed_over_is_all_there_is(tmp_path_factory, files, links):
    """The same in every form, for any tree of files and of links inside it."""
    root = tmp_path_factory.mktemp("tree") / "s"
    root.mkdir()
    for name, content in {**files, **links}.items():
        try:
            if not content or not isinstance(content, str) or "../" * (name.count("/") + 1) not in content:
                write(root, {name: content})
        except OSError:
            pass  # a file where another needs a folder
    seen = sum(len(names) for _, _, names in os.walk(root)) + sum(
        os.path.islink(os.path.join(folder, name)) for folder, folders, _ in os.walk(root) for name in folders
    )
    found: list[tuple[dict[str, bytes], Counter[str]]] = []
    for form in FORMS:
        tree = tree_of(root, form)
        before = tree.passed_over.total
        is_tree_of_files = not any(path.is_symlink() and path.is_dir() for path in root.rglob("*"))
        if is_tree_of_files:  # a link to a folder stands for any number of files
            assert len(tree.files) + before == seen
        images = tree.images()
        assert len(images) + tree.passed_over.total == len(tree.files) + before
        found.append(({name: data for name, data in sorted(contents(tree).items())}, tree.passed_over.counts))
    assert found[1] == found[2]
    if len(found[0][0]) and is_tree_of_files:
        names = [sorted(names.values()) for names, _ in found]
        assert names[0] == names[1]


@settings(max_examples=80, deadline=None)
@given(
    files=st.dictionaries(PATHS, CONTENTS, min_size=1, max_size=12),
    form=st.sampled_from(FORMS),
    split=st.sampled_from(["train/", "train/val/", ""]),
)
def test_no_file_disappears_between_a_source_and_its_records(tmp_path_factory, files, form, split):
    """Records, files that are passed over and label files are all the files of any tree that is read."""
    root = tmp_path_factory.mktemp("source") / "s"
    for name, content in {f"{split}ant/0.jpg": image(), f"{split}bee/0.jpg": image(1), **files}.items():
        with contextlib.suppress(OSError):  # a file where another needs a folder
            write(root, {name: content})
    tree = tree_of(root, form)
    seen = len(tree.files) + tree.passed_over.total
    try:
        source = open_source(root if form == "folder" else root.parent / f"s.{form}")
        records = [record for name in source.splits for record in source.records(name)]
    except SourceError:
        return  # refused as a whole
    places = {record.locator.member or record.locator.file for record in records}
    assert len(places) == len(records)
    assert len(records) + source.passed_over.total == seen


def test_gnu_tar_and_info_zip(tmp_path):
    """Archives of the usual programs, where they are installed: the same files as tar xf gives."""
    root = write(tmp_path / "s", {"train/café/0.jpg": image(), "train/猫/1.jpg": image(1), "train/猫/l.jpg": "1.jpg"})
    os.link(root / "train/猫/1.jpg", root / "train/猫/h.jpg")
    commands = {f"{form}.tar": ["tar", f"--format={form}", "-cf"] for form in ("v7", "ustar", "oldgnu", "gnu", "pax")}
    commands |= {"a.zip": ["zip", "-qr"], "y.zip": ["zip", "-qry"]}
    ran = 0
    for name, command in commands.items():
        try:
            subprocess.run([*command, str(tmp_path / name), "train"], cwd=root, check=True, capture_output=True)
        except FileNotFoundError:
            continue
        tree, ran = FileTree(str(tmp_path), name), ran + 1
        expected = {f"train/猫/{base}.jpg": image(1) for base in "1lh"} | {"train/café/0.jpg": image()}
        assert contents(tree) == expected, name
        assert not tree.passed_over.total
    if not ran:
        pytest.skip("neither tar nor zip is installed")


def test_backslashes_of_dos(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename, info.create_system = "train\\ant\\0.jpg", 0
        archive.writestr(info, b"x")
    assert list(FileTree(str(tmp_path), "a.zip").files) == ["train/ant/0.jpg"]


def test_special_members(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"x/{kind!r}")
            info.type = kind
            archive.addfile(info)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR):
            info = zipfile.ZipInfo(f"x/{kind}")
            info.create_system, info.external_attr = 3, kind << 16
            archive.writestr(info, b"")
    for name in ("a.tar", "a.zip"):
        tree = FileTree(str(tmp_path), name)
        assert not tree.files
        assert tree.passed_over.counts == {"not a regular file": 2}
