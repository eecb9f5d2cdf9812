"""A web application of two containers that find each other by name: a page that asks a counter, which keeps its count."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.engine import Engine, wait_until

DOCKERFILE = """\
FROM busybox
COPY --chmod=755 cgi /www/cgi-bin/run
RUN mkdir /data && chown 1000:1000 /data && echo up >/www/index.html
USER user
VOLUME /data
EXPOSE 8080
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
"""
# nc, not wget: that of a statically linked busybox fails where there is no library to look services up with
PAGE = """\
#!/bin/sh
count=$(printf 'GET /cgi-bin/run HTTP/1.0\\r\\n\\r\\n' | nc -w 5 counter 8080 | tail -n 1)
if [ -n "$count" ]; then
    printf 'Content-Type: text/plain\\r\\n\\r\\nvisit %s\\n' "$count"
else
    printf 'Status: 502 Bad Gateway\\r\\nContent-Type: text/plain\\r\\n\\r\\nthe counter does not answer\\n'
fi
"""
COUNTER = """\
#!/bin/sh
count=$(( $(cat /data/count 2>/dev/null) + 1 ))
echo $count >/data/count
printf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' $count
"""


@pytest.fixture
def images(engine: Engine, tmp_path: Path) -> Iterator[None]:
    """Two images, built here: `page` and `counter`."""
    for name, script in (("page", PAGE), ("counter", COUNTER)):
        context = tmp_path / name
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE)
        (context / "cgi").write_text(script)
        engine.docker("build", "-t", name, str(context))
    yield
    engine.clean()
    engine.docker("rmi", "page", "counter")


def fetch(url: str) -> tuple[int, str]:
    """The status and the text that the host gets; status 0 while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return 0, ""


def start_counter(engine: Engine, name: str, *options: str) -> str:
    """Start a counter that answers to the name `counter`: its address."""
    engine.docker("run", "-d", "--name", name, "--network", "shop", "-v", "counts:/data", *options, "counter")
    return str(engine.inspect(name)["NetworkSettings"]["Networks"]["shop"]["IPAddress"])


@pytest.fixture
def page(engine: Engine, images: None) -> str:
    """The address at which the host finds the page."""
    engine.docker("network", "create", "--subnet", "10.213.47.0/24", "shop")
    engine.docker("run", "-d", "--name", "page", "--network", "shop", "-p", "127.0.0.1::8080", "page")
    address = engine.out("port", "page", "8080/tcp")
    wait_until(lambda: fetch(f"http://{address}/")[0] == 200, "the page is served")
    return f"http://{address}/cgi-bin/run"


def visit(page: str) -> str:
    """The page as it is once the counter answers."""
    return str(wait_until(lambda: (found := fetch(page))[0] == 200 and found[1], "the counter answers")).strip()


def test_two_containers_that_find_each_other(engine: Engine, page: str) -> None:
    assert fetch(page) == (502, "the counter does not answer\n")
    start_counter(engine, "counter")
    assert visit(page) == "visit 1"
    assert fetch(page) == (200, "visit 2\n")
    request = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 page 8080 | tail -n 1"
    assert engine.out("exec", "counter", "sh", "-c", request) == "up"
    assert engine.out("exec", "counter", "stat", "-c", "%u %s", "/data/count") == "1000 2"


def test_a_counter_that_comes_back_elsewhere_is_followed(engine: Engine, page: str) -> None:
    before = start_counter(engine, "counter")
    assert visit(page) == "visit 1"
    engine.docker("stop", "-t", "0", "counter")
    assert fetch(page)[0] == 502
    # its address is somebody else's by the time that it comes back
    engine.docker("run", "-d", "--name", "squatter", "--network", "shop", "--ip", before, "busybox", "sleep", "1000")
    engine.docker("start", "counter")
    after = engine.inspect("counter")["NetworkSettings"]["Networks"]["shop"]["IPAddress"]
    assert after.startswith("10.213.47.")
    assert after != before
    assert visit(page) == "visit 2"


def test_a_successor_under_an_alias_goes_on_counting(engine: Engine, page: str) -> None:
    start_counter(engine, "first", "--network-alias", "counter")
    assert visit(page) == "visit 1"
    engine.docker("rm", "-f", "-v", "first")
    start_counter(engine, "second", "--network-alias", "counter")
    assert visit(page) == "visit 2"


def test_what_is_on_another_network_is_not_found(engine: Engine, page: str) -> None:
    engine.docker("network", "create", "elsewhere")
    engine.docker("run", "-d", "--name", "counter", "--network", "elsewhere", "-v", "counts:/data", "counter")
    assert fetch(page)[0] == 502
    engine.docker("network", "connect", "shop", "counter")
    assert visit(page) == "visit 1"


def test_the_page_after_a_restart(engine: Engine, page: str) -> None:
    start_counter(engine, "counter")
    assert visit(page) == "visit 1"
    engine.docker("restart", "-t", "0", "page", "counter")
    address = engine.out("port", "page", "8080/tcp")
    assert visit(f"http://{address}/cgi-bin/run") == "visit 2"
