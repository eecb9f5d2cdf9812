"""PostgreSQL from Debian's packages, in an image built here: what it has committed is there after every kind of end."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import debian
from tests.support.engine import SECONDS, Engine, running_engine, wait_until

pytestmark = pytest.mark.timeout(300)

DOCKERFILE = """
FROM debian:bookworm
ARG MIRROR
ARG DEBIAN_FRONTEND=noninteractive
# no service is started while its package is installed
RUN printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
RUN echo "deb $MIRROR bookworm main" >/etc/apt/sources.list \\
    && apt-get update -qq -o Acquire::Languages=none \\
    && apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-unsafe-io postgresql >/dev/null \\
    && apt-get clean && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
WORKDIR /etc/postgresql/15/main
RUN echo "listen_addresses = '*'" >>postgresql.conf && echo "host all all all trust" >>pg_hba.conf
USER postgres
EXPOSE 5432
STOPSIGNAL SIGINT
CMD ["postgres", "-c", "config_file=/etc/postgresql/15/main/postgresql.conf"]
"""
DATA = "/var/lib/postgresql/15/main"


class Database:
    """A connection to the server over TCP, in the simple query protocol."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), SECONDS)
        self._stream = self._socket.makefile("rb")
        body = struct.pack(">I", 3 << 16) + b"user\0postgres\0\0"
        self._socket.sendall(struct.pack(">I", len(body) + 4) + body)
        self._answers()

    def query(self, statement: str) -> list[str]:
        """Run one statement, committed when this returns: the first column of each row."""
        body = statement.encode() + b"\0"
        self._socket.sendall(b"Q" + struct.pack(">I", len(body) + 4) + body)
        return [data[6 : 6 + struct.unpack(">I", data[2:6])[0]].decode() for kind, data in self._answers() if kind == b"D"]

    def _answers(self) -> list[tuple[bytes, bytes]]:
        """The messages until the server is ready for the next query."""
        found: list[tuple[bytes, bytes]] = []
        while not found or found[-1][0] != b"Z":
            head = self._stream.read(5)
            kind, length = struct.unpack(">cI", head) if len(head) == 5 else (b"", 4)
            found.append((kind, self._stream.read(length - 4)))
            if not kind or (kind == b"E" and b"SFATAL" in found[-1][1]):
                self.close()
                raise ConnectionError(f"the server is gone: {found[-1][1]!r}")
            assert kind != b"E", found[-1][1]
        return found

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


class Writer:
    """Inserts row after row, each committed by itself, until the connection breaks or it is told to stop."""

    def __init__(self, database: Database) -> None:
        self.committed = 0
        self._database = database
        self._stopping = False
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count(1):
                self._database.query(f"INSERT INTO rows VALUES ({number})")
                self.committed = number
                if self._stopping:
                    break
        self._database.close()

    def go_on(self, rows: int) -> None:
        """Wait for so many rows more."""
        goal = self.committed + rows
        wait_until(lambda: self.committed >= goal or not self._thread.is_alive(), f"{goal} rows are committed")
        assert self.committed >= goal, f"the connection broke after {self.committed} rows"

    def ended(self) -> int:
        """How many rows were committed at the connection's end."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.committed

    def stop(self) -> int:
        self._stopping = True
        return self.ended()


@pytest.fixture(scope="module")
def built(_clean_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a daemon that has the image `postgres`."""
    mirror = debian.mirror()
    base = debian.base(mirror)
    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text(DOCKERFILE)
    directory = tmp_path_factory.mktemp("postgres")
    with running_engine(directory, busybox=False) as engine:
        path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        engine.docker("import", "--change", path, str(base), "debian:bookworm", timeout=120)
        engine.docker("build", "-t", "postgres", "--network", "host", "--build-arg", f"MIRROR={mirror}", str(context), timeout=280)
    return directory


@pytest.fixture
def postgres(built: Path) -> Iterator[Engine]:
    """A server `db`, its data in the volume `data`, with a table `rows`."""
    with running_engine(built, busybox=False) as engine:
        engine.docker("run", "-d", "--name", "db", "-v", f"data:{DATA}", "-p", "127.0.0.1::5432", "postgres")
        await_server(engine)
        sql(engine, "CREATE TABLE rows (number integer PRIMARY KEY)")
        yield engine


def sql(engine: Engine, statement: str) -> str:
    return engine.out("exec", "db", "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement)


def await_server(engine: Engine) -> None:
    ready = ("exec", "db", "pg_isready", "-q")
    wait_until(lambda: engine.docker(*ready, check=False).returncode == 0, "the server takes connections")


def address(engine: Engine) -> str:
    return engine.out("port", "db", "5432/tcp")


def missing(engine: Engine, committed: int) -> str:
    """How many of the rows 1 to `committed` are not there."""
    return sql(engine, f"SELECT count(*) FROM generate_series(1, {committed}) n WHERE n NOT IN (SELECT number FROM rows)")


def start_of_log(engine: Engine, since: str) -> str:
    done = engine.docker("logs", "--since", since, "db")
    return done.stdout + done.stderr


def test_sql_inside_and_over_the_published_port(postgres: Engine) -> None:
    assert sql(postgres, "INSERT INTO rows SELECT generate_series(1, 1000); SELECT sum(number) FROM rows") == "500500"
    assert postgres.docker("exec", "-i", "db", "psql", "-qAt", input="SELECT count(*) FROM rows;\n").stdout == "1000\n"
    database = Database(address(postgres))
    assert database.query("SELECT version()")[0].startswith("PostgreSQL 15")
    assert database.query("SELECT number FROM rows WHERE number % 400 = 0 ORDER BY 1") == ["400", "800"]
    database.close()
    # a statement that is wrong is the server's error and the command's exit code
    done = postgres.docker("exec", "db", "psql", "-c", "SELECT nothing FROM nowhere", check=False)
    assert (done.returncode, 'relation "nowhere" does not exist' in done.stderr) == (1, True)
    # the volume was filled from the image, and belongs to the server's user
    mountpoint = Path(postgres.out("volume", "inspect", "-f", "{{.Mountpoint}}", "data"))
    assert (mountpoint / "PG_VERSION").read_text() == "15\n"
    assert postgres.out("exec", "db", "stat", "-c", "%U %a", DATA) == "postgres 700"


def test_a_server_killed_while_it_writes_loses_no_committed_row(postgres: Engine) -> None:
    for _ in range(3):
        sql(postgres, "TRUNCATE rows")
        writer = Writer(Database(address(postgres)))
        writer.go_on(100)
        postgres.docker("kill", "db")
        committed = writer.ended()
        assert postgres.inspect("db")["State"]["ExitCode"] == 137
        postgres.docker("start", "db")
        await_server(postgres)
        assert committed >= 100
        assert missing(postgres, committed) == "0"
        log = start_of_log(postgres, postgres.inspect("db")["State"]["StartedAt"])
        assert "database system was not properly shut down" in log


def test_the_server_goes_on_without_the_daemon(postgres: Engine) -> None:
    where = address(postgres)
    pid = postgres.inspect("db")["State"]["Pid"]
    writer = Writer(Database(where))
    writer.go_on(50)
    postgres.kill()
    writer.go_on(50)
    other = Database(where)
    assert int(other.query("SELECT count(*) FROM rows")[0]) >= 100
    other.close()
    postgres.start()
    writer.go_on(50)
    assert postgres.inspect("db")["State"]["Pid"] == pid
    assert address(postgres) == where
    postgres.docker("kill", "db")
    committed = writer.ended()
    postgres.docker("start", "db")
    await_server(postgres)
    assert committed >= 150
    assert missing(postgres, committed) == "0"


def test_a_stop_is_clean_and_the_data_outlives_the_container(postgres: Engine) -> None:
    writer = Writer(Database(address(postgres)))
    writer.go_on(50)
    committed = writer.stop()
    postgres.docker("stop", "db")
    assert postgres.inspect("db")["State"]["ExitCode"] == 0
    assert "database system is shut down" in start_of_log(postgres, "0")
    postgres.docker("rm", "db")
    postgres.docker("run", "-d", "--name", "db", "-v", f"data:{DATA}", "postgres")
    await_server(postgres)
    assert missing(postgres, committed) == "0"
    log = start_of_log(postgres, "0")
    assert "database system is ready to accept connections" in log
    assert "not properly shut down" not in log
    mountpoint = Path(postgres.out("volume", "inspect", "-f", "{{.Mountpoint}}", "data"))
    assert "volume is in use" in postgres.docker("volume", "rm", "data", check=False).stderr
    postgres.docker("rm", "-f", "db")
    postgres.docker("volume", "rm", "data")
    assert not mountpoint.exists()
    assert postgres.docker("volume", "inspect", "data", check=False).returncode == 1
