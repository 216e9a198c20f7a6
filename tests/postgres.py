"""A PostgreSQL server for tests: its own cluster in a temporary folder, with passwords, gone with the tests."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

USER = "searcher"
PASSWORD = "corrrect horse/50%:battery"
"""With characters that mean something in a URL; not to be found anywhere afterwards."""
ENCODED_PASSWORD = "corrrect%20horse%2F50%25%3Abattery"

# Ends what a killed test run leaves behind: its standard input ends with the run.
GUARDIAN = 'cat; kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")"; sleep 0.5; rm -rf "$1"'


def find_binaries() -> Path | None:
    """On the PATH, or where Debian puts them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(versions, key=lambda path: int(path.parent.name), default=None)


class Cluster:
    """A server on a free port of 127.0.0.1."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.data = binaries, folder / "data"
        # The server refuses to run as root.
        self._as: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        password_file = folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        self._run(
            "initdb", "-D", str(self.data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={password_file}", "-N", "-E", "UTF8"
        )
        password_file.unlink()
        with open(self.data / "postgresql.conf", "a") as settings:
            settings.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
                "max_connections = 30\nshared_buffers = 16MB\nlc_messages = 'C'\n"
            )
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120, **self._as)
        assert done.returncode == 0, done.stdout + done.stderr

    def url(self, database: str = "postgres", password: str | None = ENCODED_PASSWORD) -> str:
        who = USER if password is None else f"{USER}:{password}"
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        assert self._process is None
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.data)], stdout=log, stderr=log, cwd="/", **self._as
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                with self.connect():
                    return
            except Exception:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(self.log.read_text()) from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """By default at once, as if the machine had lost its power; SIGINT ends what is under way first."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(timeout=60)
            finally:
                self._process.kill()
                self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def connect(self, database: str = "postgres") -> Any:
        """A connection of an onlooker, to use in a `with`."""
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database, autocommit=True, connect_timeout=5
        )

    def create_database(self, name: str) -> str:
        """Its URL, password and all."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed")
    if os.geteuid() == 0 and not any(entry.pw_name == "postgres" for entry in pwd.getpwall()):
        pytest.skip("PostgreSQL does not run as root, and there is no user `postgres`")
    folder = Path(tempfile.mkdtemp(prefix="nas-postgres-", dir="/tmp"))
    folder.chmod(0o755)
    with subprocess.Popen(
        ["sh", "-c", GUARDIAN, "sh", str(folder)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ):
        cluster = Cluster(binaries, folder)
        cluster.start()
        yield cluster
        cluster.stop()
