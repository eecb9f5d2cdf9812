"""What each instruction does to the image, or to the commands after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.build.conftest import DOCKERS, Bench

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.mark.parametrize("docker", DOCKERS)
def test_the_transcript(bench: Bench, docker: str) -> None:
    dockerfile = 'FROM busybox\nENV a=b\nRUN echo hello\nCMD ["x"]\n'
    output = bench.output(dockerfile, "--no-cache", "-t", "made", "-t", "made:2", docker=docker)
    lines = [line for line in output.splitlines() if not line.startswith(" --->")]
    assert lines[lines.index("Step 1/4 : FROM busybox") :] == [
        "Step 1/4 : FROM busybox", "Step 2/4 : ENV a=b", "Step 3/4 : RUN echo hello", "hello", 'Step 4/4 : CMD ["x"]',
        f"Successfully built {bench.image('made')['Id'][7:19]}", "Successfully tagged made:latest", "Successfully tagged made:2",
    ]  # fmt: skip
    assert bench.image("made")["Id"] == bench.image("made:2")["Id"]


CONFIGURATIONS: list[tuple[str, dict[str, Any]]] = [
    ("ENV a=1 b='two words' c=\"$a\" d=\\$a e=${x:-9}\nENV a=2 f=$a", {
        "Env": ["PATH=/bin", "a=2", "b=two words", "c=", "d=$a", "e=9", "f=1"],
    }),
    ("ENV old style  value", {"Env": ["PATH=/bin", "old=style  value"]}),
    ("ENV PATH=/x:$PATH", {"Env": ["PATH=/x:/bin"]}),
    ("LABEL a=1 \"b c\"='d e' \\\n  f=g\nLABEL a=2", {"Labels": {"a": "2", "b c": "d e", "f": "g"}}),
    ("ENV P='80 443'\nEXPOSE $P 53/udp 100-102", {
        "ExposedPorts": {"80/tcp": {}, "443/tcp": {}, "53/udp": {}, "100/tcp": {}, "101/tcp": {}, "102/tcp": {}},
        "Env": ["PATH=/bin", "P=80 443"],
    }),
    ('VOLUME /a /b\nVOLUME ["/c d"]', {"Volumes": {"/a": {}, "/b": {}, "/c d": {}}}),
    ("USER user:extra", {"User": "user:extra"}),
    ("ENV d=/x\nWORKDIR $d/y\nWORKDIR ../z", {"WorkingDir": "/x/z", "Env": ["PATH=/bin", "d=/x"]}),
    ("STOPSIGNAL SIGUSR1", {"StopSignal": "SIGUSR1"}),
    ("SHELL [\"/bin/sh\", \"-ec\"]\nCMD a b", {"Shell": ["/bin/sh", "-ec"], "Cmd": ["/bin/sh", "-ec", "a b"]}),
    ("CMD a $b", {"Cmd": ["/bin/sh", "-c", "a $b"]}),
    ('CMD ["a", "$b"]', {"Cmd": ["a", "$b"]}),
    ('ENTRYPOINT ["a"]', {"Entrypoint": ["a"], "Cmd": None}),
    ('CMD ["b"]\nENTRYPOINT ["a"]', {"Entrypoint": ["a"], "Cmd": ["b"]}),
    ('ENTRYPOINT ["a"]\nENTRYPOINT []\nCMD ["c"]', {"Cmd": ["c"]}),
    ("ENTRYPOINT a b", {"Entrypoint": ["/bin/sh", "-c", "a b"], "Cmd": None}),
    ("HEALTHCHECK --interval=5s --timeout=1m --start-period=2s --retries=4 CMD a || b", {
        "Healthcheck": {
            "Test": ["CMD-SHELL", "a || b"], "Interval": 5 * 10**9, "Timeout": 60 * 10**9, "StartPeriod": 2 * 10**9, "Retries": 4,
        },
    }),
    ("HEALTHCHECK CMD a\nHEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
    ("ONBUILD RUN a\nONBUILD COPY b c", {"OnBuild": ["RUN a", "COPY b c"]}),
    ("ARG a=1\nENV b=$a", {"Env": ["PATH=/bin", "b=1"]}),
]  # fmt: skip


def test_configurations(bench: Bench) -> None:
    """One build of one stage each, all compared at once: what differs is shown with its Dockerfile."""
    wrong = []
    for text, expected in CONFIGURATIONS:
        found = bench.config(bench.build(f"FROM busybox\n{text}\n"))
        whole = {"Env": ["PATH=/bin"], "Cmd": ["sh"], **expected}
        whole = {key: value for key, value in whole.items() if value is not None}
        if found != whole:
            wrong.append((text, found, whole))
    assert wrong == []


def test_scratch(bench: Bench) -> None:
    bench.write("a", "hello")
    image = bench.build('FROM scratch\nCOPY a /\nCMD ["/x"]\n')
    assert bench.config(image) == {"Env": [PATH], "Cmd": ["/x"]}
    assert {name.partition("/")[0] for name in bench.files(image)} - {"", "dev", "etc", "proc", "sys", ".dockerenv"} == {"a"}
    assert len(bench.image(image)["RootFS"]["Layers"]) == 1


def test_a_command_on_scratch(bench: Bench) -> None:
    bench.write("busybox", Path("/bin/busybox").read_bytes(), 0o755)
    image = bench.build('FROM scratch\nCOPY busybox /\nRUN ["/busybox", "touch", "/made"]\n')
    assert "made" in bench.files(image)


def test_nothing_built_is_an_error(bench: Bench) -> None:
    assert bench.fails("FROM scratch") == "No image was generated. Is your Dockerfile empty?"


def test_from_alone_is_the_image_itself(bench: Bench) -> None:
    assert bench.build("FROM busybox") == bench.image("busybox")["Id"]


def test_maintainer(bench: Bench) -> None:
    assert bench.image(bench.build("FROM busybox\nMAINTAINER me <me@example.org>"))["Author"] == "me <me@example.org>"


def test_run(bench: Bench) -> None:
    image = bench.build(
        'FROM busybox\nENV a=1\nWORKDIR /w/d\nRUN echo "$a $0 $(pwd) $(id -u)" > /shell\n'
        'RUN ["sh", "-c", "echo $0 $1 > /exec", "x", "$a"]\n'
        'SHELL ["/bin/sh", "-e", "-c"]\nRUN echo $- > /flags\nUSER user\nRUN id -un > /tmp/name; echo $HOME >> /tmp/name\n'
        "RUN echo a \\\n  # comment\n  b > /tmp/continued\nRUN ['x'] || echo not JSON > /tmp/json\n"
    )  # fmt: skip
    assert bench.run(image, "cat /shell /exec /tmp/name /tmp/continued /tmp/json") == (
        "1 /bin/sh /w/d 0\nx $a\nuser\n/home/user\na b\nnot JSON"
    )
    assert "e" in bench.run(image, "cat /flags")


def test_an_entry_point_is_nothing_to_a_build(bench: Bench) -> None:
    assert bench.run(bench.build('FROM busybox\nENTRYPOINT ["false"]\nRUN echo 1 > /x'), "cat /x") == "1"


def test_streams_come_as_they_are_written(bench: Bench) -> None:
    output = bench.output(
        "FROM busybox\nRUN echo out; echo err >&2; printf 'no newline'; printf '\\303'; printf '\\251'", "--no-cache"
    )
    assert "out\n" in output
    assert "err\n" in output
    assert "no newlineé" in output


def test_arguments(bench: Bench) -> None:
    dockerfile = (
        "ARG base=nosuch\nARG shared=outer\nFROM $base\nARG a=1\nARG b\nARG c=$a-$b\nARG shared\nARG unset\n"
        "RUN echo $a,$b,$c,$shared,${unset-none},$base > /x\nENV a=env\nRUN echo $a > /y\n"
    )
    image = bench.build(dockerfile, "--build-arg", "base=busybox", "--build-arg", "b=given", "--build-arg", "a=2")
    assert bench.run(image, "cat /x /y") == "2,given,2-given,outer,none,\nenv"
    assert not any(item.startswith(("b=", "c=")) for item in bench.config(image)["Env"])


def test_an_argument_from_the_environment(bench: Bench) -> None:
    image = bench.build("FROM busybox\nARG a\nRUN echo $a > /x", "--build-arg", "a", env={"a": "from outside"})
    assert bench.run(image, "cat /x") == "from outside"


def test_predefined_arguments(bench: Bench) -> None:
    dockerfile = "FROM busybox\nRUN echo $HTTP_PROXY,$no_proxy > /x"
    image = bench.build(dockerfile, "--build-arg", "HTTP_PROXY=secret", "--build-arg", "no_proxy=hidden")
    assert bench.run(image, "cat /x") == "secret,hidden"
    history = bench.engine.out("history", "--no-trunc", image)
    assert "secret" not in history
    assert "hidden" not in history


def test_platform_arguments(bench: Bench) -> None:
    image = bench.build("FROM --platform=$BUILDPLATFORM busybox\nARG TARGETOS\nARG TARGETARCH\nRUN echo $TARGETOS/$TARGETARCH > /x")
    assert bench.run(image, "cat /x") == "/".join(bench.image("busybox")[key] for key in ("Os", "Architecture"))


def test_an_unused_argument_is_warned_of(bench: Bench) -> None:
    output = bench.output(
        "FROM busybox\nARG used\nENV x=1", "--build-arg", "used=1", "--build-arg", "unused=1", "--build-arg", "ftp_proxy=1"
    )
    assert "[Warning] One or more build-args [unused] were not consumed\n" in output
    assert "Warning" not in bench.output(None, "--build-arg", "used=1")


def test_stages(bench: Bench) -> None:
    dockerfile = (
        "FROM busybox AS one\nRUN echo 1 > /one\nFROM one AS Two\nRUN echo 2 > /two\nFROM busybox AS unneeded\nRUN false\n"
        "FROM scratch\nCOPY --from=two /one /two /x/\nCOPY --from=0 /one /y\nCOPY --from=busybox /etc/passwd /z\n"
    )
    image = bench.build(dockerfile)
    assert {name: shown for name, shown in bench.files(image).items() if name[:1] in ("x", "y", "z")} == {
        "x": "d 0755 0:0", "x/one": "f 0644 0:0", "x/two": "f 0644 0:0", "y": "f 0644 0:0", "z": "f 0644 0:0",
    }  # fmt: skip


def test_a_target(bench: Bench) -> None:
    dockerfile = "FROM busybox AS one\nENV a=1\nFROM one AS two\nENV b=2\nFROM two\nRUN false\n"
    assert bench.config(bench.build(dockerfile, "--target", "one"))["Env"] == ["PATH=/bin", "a=1"]
    assert bench.config(bench.build(None, "--target", "TWO"))["Env"] == ["PATH=/bin", "a=1", "b=2"]
    assert bench.fails(None, "--target", "three").endswith("failed to reach build target three in Dockerfile")


def test_triggers(bench: Bench) -> None:
    bench.write("file", "content")
    bench.build(
        "FROM busybox\nWORKDIR /w\nONBUILD COPY file .\nONBUILD RUN cat file > copy\nONBUILD COPY --from=tools /tool /tool",
        "-t",
        "parent",
    )
    output = bench.output(
        "FROM busybox AS tools\nRUN echo tool > /tool\nFROM parent\nRUN cat copy /tool\n", "--no-cache", "-t", "child"
    )
    assert "# Executing 3 build triggers\n" in output
    assert "content" in output
    assert "OnBuild" not in bench.config("child")
    assert bench.run(bench.build("FROM child"), "cat /w/copy /tool") == "contenttool"  # triggers are not inherited twice


def test_a_volume_is_there_for_the_commands_after_it(bench: Bench) -> None:
    image = bench.build("FROM busybox\nVOLUME /v/w\nRUN echo kept > /v/w/x\n")
    assert bench.run(image, "cat /v/w/x") == "kept"


def test_a_step_that_changes_nothing_makes_no_layer(bench: Bench) -> None:
    base = len(bench.image("busybox")["RootFS"]["Layers"])
    image = bench.build("FROM busybox\nRUN true\nWORKDIR /tmp\nRUN touch /x\n", "--no-cache")
    assert len(bench.image(image)["RootFS"]["Layers"]) == base + 1
    sizes = bench.engine.out("history", "--format", "{{.Size}}", image).splitlines()
    assert [size == "0B" for size in sizes[:3]] == [False, True, True]


def test_history(bench: Bench) -> None:
    image = bench.build('FROM busybox\nENV a=1\nARG x=2\nRUN echo hi > /x\nENTRYPOINT ["a"]\nLABEL l=m')
    assert bench.engine.out("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).splitlines()[:5] == [
        "/bin/sh -c #(nop)  LABEL l=m", '/bin/sh -c #(nop)  ENTRYPOINT ["a"]', "|1 x=2 /bin/sh -c echo hi > /x",
        "/bin/sh -c #(nop)  ARG x=2", "/bin/sh -c #(nop)  ENV a=1",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings(bench: Bench, ending: str) -> None:
    text = ending.join(["# escape=`", "from busybox", "env a=1 `", "  b=c:\\x", "run echo $a,$b > /x", ""])
    assert bench.run(bench.build(text), "cat /x") == "1,c:\\x"
