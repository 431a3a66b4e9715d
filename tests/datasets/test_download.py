"""Downloading Omniglot, from a server on this machine; the command `fewstep data`."""

import hashlib
import importlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fewstep import cli
from fewstep.datasets.download import OMNIGLOT, RemoteFile, download, download_omniglot

download_module = importlib.import_module("fewstep.datasets.download")
CONTENT = bytes(range(256)) * 4000


class Server(HTTPServer):
    """Serves CONTENT; may break off after some bytes, ignore ranges, or serve something else."""

    breaks_after: int | None = None
    knows_ranges = True
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    def file(self) -> RemoteFile:
        url = f"http://127.0.0.1:{self.server_address[1]}/python/images_background.zip"
        return RemoteFile(url, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        if self.path != "/python/images_background.zip":
            self.send_error(404)
            return
        start = 0
        if wanted and self.server.knows_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.server.content) - start))
        self.end_headers()
        end = None if self.server.breaks_after is None else start + self.server.breaks_after
        self.wfile.write(self.server.content[start:end])

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_whole_file(server: Server, tmp_path: Path):
    file = tmp_path / "new" / "a.zip"
    download(server.file(), file)
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]


def test_interrupted_downloads_go_on(server: Server, tmp_path: Path):
    file = tmp_path / "a.zip"
    server.breaks_after = 400_000
    for arrived in ("400,000", "800,000"):
        with pytest.raises(ConnectionError, match=rf"{arrived} of 1,024,000 bytes .*run the same command"):
            download(server.file(), file)
        assert not file.exists()
    download(server.file(), file)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=400000-", "bytes=800000-"]
    assert list(tmp_path.iterdir()) == [file]


def test_servers_without_ranges_begin_anew(server: Server, tmp_path: Path):
    file = tmp_path / "a.zip"
    server.knows_ranges, server.breaks_after = False, 300_000
    with pytest.raises(ConnectionError):
        download(server.file(), file)
    server.breaks_after = None
    download(server.file(), file)
    assert file.read_bytes() == CONTENT


def test_whole_but_not_renamed(server: Server, tmp_path: Path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    download(server.file(), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.ranges == []


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT + b"!"])
def test_wrong_content_is_removed(server: Server, tmp_path: Path, content: bytes):
    server.content = content
    found, wanted = (hashlib.sha256(each).hexdigest() for each in (content, CONTENT))
    with pytest.raises(ValueError, match=rf"images_background\.zip .*must be {wanted}; got {found}"):
        download(server.file(), tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    download(server.file(), tmp_path / "a.zip")


def test_failures_name_the_file_and_its_place(server: Server, tmp_path: Path):
    absent = RemoteFile(server.file().url + ".old", 5, "")
    with pytest.raises(ConnectionError, match=rf"404.*get images_background\.zip\.old elsewhere.*into {tmp_path}"):
        download(absent, tmp_path / "a.zip")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        nobody = RemoteFile(f"http://127.0.0.1:{free.getsockname()[1]}/images.zip", 5, "")
        with pytest.raises(ConnectionError, match=rf"images\.zip could not be downloaded.*put it into {tmp_path}"):
            download(nobody, tmp_path / "a.zip")


def test_files_that_are_there_are_left_alone(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download_module, "OMNIGLOT", [server.file()])
    said = list(download_omniglot(tmp_path))
    file = tmp_path / "omniglot" / "images_background.zip"
    assert said == [f"Downloading {server.file().url} (1.0 MB)", f"Wrote {file}"]
    assert list(download_omniglot(tmp_path)) == [f"{file} exists and is complete."]
    file.write_bytes(b"mine")
    (said,) = download_omniglot(tmp_path)
    assert "is not the official file" in said
    assert file.read_bytes() == b"mine"
    assert len(server.ranges) == 1


def test_the_official_files():
    assert [remote.name for remote in OMNIGLOT] == ["images_background.zip", "images_evaluation.zip"]
    for remote in OMNIGLOT:
        assert remote.url.startswith("https://github.com/brendenlake/omniglot/")
        assert re.fullmatch("[0-9a-f]{64}", remote.sha256)


def test_command_downloads(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(download_module, "OMNIGLOT", [server.file()])
    cli.main(["data", "download", "omniglot", "--root", str(tmp_path)])
    assert f"Wrote {tmp_path / 'omniglot' / 'images_background.zip'}" in capsys.readouterr().out
    assert (tmp_path / "omniglot" / "images_background.zip").read_bytes() == CONTENT
    server.content = b"else"
    (tmp_path / "omniglot" / "images_background.zip").unlink()
    with pytest.raises(SystemExit):
        cli.main(["data", "download", "omniglot", "--root", str(tmp_path)])
    assert "could not be downloaded" in capsys.readouterr().err


def test_command_shows_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("FEWSTEP_DATA", str(tmp_path))
    (tmp_path / "cifar-100-python").mkdir()
    cli.main(["data"])
    lines = capsys.readouterr().out.splitlines()
    assert str(tmp_path) in lines[0]
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert " no " in rows["omniglot"]
    assert "fewstep data download omniglot" in rows["omniglot"]
    assert "cifar-100-python" in rows["cifar-fs"]
    with pytest.raises(SystemExit):
        cli.main(["data", "upload"])
    assert "no command `data upload`" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["data", "--help"])
    assert capsys.readouterr().out.startswith("usage: fewstep data")
