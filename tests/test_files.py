"""A file is replaced as a whole, or stays as it was."""

import errno
import os
import stat
import threading

import pytest

from regard._internal.files import atomic_write


def full(file):
    file.write(b"half of ")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_written_and_replaced(tmp_path):
    target = tmp_path / "a.txt"
    atomic_write(target, lambda file: file.write(b"old"))
    assert target.read_bytes() == b"old"
    atomic_write(str(target), lambda file: file.write(b"new"))
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("old", [b"old", None])
def test_a_full_disk(tmp_path, old):
    target = tmp_path / "a.txt"
    if old:
        target.write_bytes(old)
    with pytest.raises(OSError, match="No space left on device") as error:
        atomic_write(target, full)
    assert error.value.filename == str(target)
    assert os.listdir(tmp_path) == (["a.txt"] if old else [])
    assert not old or target.read_bytes() == old


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_whatever_stops_it_the_old_file_is_there(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")

    def stopped(file):
        file.write(b"half of ")
        raise error

    with pytest.raises(type(error)):
        atomic_write(target, stopped)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_errors_of_other_files_keep_their_names(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        atomic_write(tmp_path / "out", lambda file: (tmp_path / "in").read_bytes())
    assert error.value.filename == str(tmp_path / "in")


@pytest.mark.parametrize(
    ("name", "kind"), [("no/a.txt", FileNotFoundError), (".", IsADirectoryError), ("a.txt/b", NotADirectoryError)]
)
def test_paths_that_cannot_be_written(tmp_path, name, kind):
    (tmp_path / "a.txt").write_bytes(b"old")
    with pytest.raises(kind) as error:
        atomic_write(tmp_path / name, lambda file: file.write(b"new"))
    assert error.value.filename == str(tmp_path / name)
    assert (tmp_path / "a.txt").read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_device_is_written_to_and_not_replaced():
    atomic_write("/dev/null", lambda file: file.write(b"x"))
    with pytest.raises(OSError, match="No space left on device") as error:
        atomic_write("/dev/full", lambda file: file.write(b"x"))
    assert error.value.filename == "/dev/full"
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    atomic_write(pipe, lambda file: file.write(b"through"))
    reader.join(10)
    assert read == [b"through"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"old")
    (tmp_path / "link").symlink_to("a.txt")
    atomic_write(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a.txt").read_bytes() == b"new"


def test_who_may_read_it(tmp_path):
    umask = os.umask(0o027)
    try:
        atomic_write(tmp_path / "new", lambda file: file.write(b"x"))
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o604)
        atomic_write(tmp_path / "old", lambda file: file.write(b"x"))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o604


def test_a_name_as_long_as_a_name_may_be(tmp_path):
    atomic_write(tmp_path / ("x" * 255), lambda file: file.write(b"x"))
