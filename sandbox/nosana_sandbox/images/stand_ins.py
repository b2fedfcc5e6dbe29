"""Stand-ins: small images that take the place of the real ones whose names they have.

A stand-in has the programs that its callers start, each a shell script with one of the behaviours below.
`CATALOGUE` holds those that are wanted in a particular shape; for any other image that a job definition names
`stand_ins_for` makes one that fits how the definition uses it.
"""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final

from nosana_sandbox.images import says
from nosana_sandbox.images.archive import File, Image, Login, layer, script
from nosana_sandbox.images.references import full_name
from nosana_sandbox.images.rootfs import PATH, SERVER

OWN_PROGRAM: Final = "/usr/local/bin/stand-in"
"""In every image with a program at all: what starts when the image is left to itself.

A script that was fetched begins with this word when it is a stand-in as well, so it starts this too.
"""

SERVES: Final = f"""\
#!/bin/sh
cat /srv/says
# Takes any arguments, as the real program's command line has; of them only a port counts.
ports=$(cat /srv/ports)
more=${{ports%% *}}
while [ $# -gt 0 ]; do
  case "$1" in
    --port=* | --listen-port=*) more=${{1#*=}} ;;
    --port | --listen-port) more=$2 ;;
  esac
  shift
done
case " $ports " in
  *" $more "*) ;;
  *) ports="${{ports:+$ports }}$more" ;;
esac
{SERVER} -answers /srv/answers.json $ports &
server=$!
# As the first process it would else not hear the signal.
trap 'kill $server; echo "told to end"; exit 0' TERM INT
echo "answering on port $ports"
wait $server
"""
"""A program that answers HTTP on the image's ports, and on one its arguments name, until told to end."""


@dataclass(frozen=True)
class StandIn:
    """A stand-in for `image` (as a definition writes it); `programs` maps absolute paths to shell scripts.

    `ports` are those on which its servers answer; `statuses` the HTTP statuses other than 200, by "PORT METHOD
    PATH"; `greetings` the first messages of WebSockets, by port; `says` the first lines in the log.
    """

    image: str
    programs: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)
    greetings: Mapping[str, str] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    login: Login | None = None
    """The login that may pull it; None: it is public."""

    def build(self, base: bytes) -> Image:
        """Return the image on top of the layer `base` that all of them share."""
        files: dict[str, File] = {path.lstrip("/"): script(text) for path, text in self.programs.items()}
        if files:
            answers = {"page": _page(self.image), "statuses": self.statuses, "greetings": self.greetings}
            files["srv/answers.json"] = File(json.dumps(answers, sort_keys=True).encode())
            files["srv/says"] = File("".join(f"{line}\n" for line in self.says).encode())
            files["srv/ports"] = File(" ".join(map(str, self.ports)).encode())
        return Image(
            full_name(self.image),
            (base, layer(files)) if files else (base,),
            self.entrypoint,
            self.cmd,
            {"PATH": PATH},
            self.login,
        )


def server(image: str, port: int, program: str, **more: Any) -> StandIn:
    """Return a stand-in whose `program` answers on `port`."""
    return StandIn(image, {program: SERVES, OWN_PROGRAM: SERVES}, ports=(port,), **more)


def prints(text: str) -> str:
    """Return a program that prints what the image says, `text` and its arguments, and ends well."""
    return f'#!/bin/sh\ncat /srv/says\necho {shlex.quote(text)} "$@"\n'


def fails(code: int) -> str:
    """Return a program that prints an error and ends with exit code `code`."""
    return f'#!/bin/sh\necho "failing as asked, with exit code {code}" >&2\nexit {code}\n'


def sleeps(seconds: int) -> str:
    """Return a program that does nothing for that long, and ends early when it is told to."""
    return f"""\
#!/bin/sh
sleep {seconds} &
sleeper=$!
trap 'kill $sleeper; echo "told to end"; exit 0' TERM INT
echo "sleeping for {seconds} s"
wait $sleeper
"""


CATALOGUE: Final = (
    StandIn("ubuntu", cmd=("/bin/bash",)),
    StandIn("busybox", cmd=("/bin/sh",)),
    server(
        "docker.io/nosana/tensorflow-jupyter:2.0.0", 8888, "/usr/local/bin/jupyter", cmd=("jupyter", "lab")
    ),
    server("nginx", 80, "/usr/sbin/nginx", cmd=("nginx", "-g", "daemon off;")),
    server("sandbox.invalid/server:1", 8080, "/usr/local/bin/serve", entrypoint=("serve",)),
    StandIn(
        "docker.io/jeisses/tinyllama:v2", {OWN_PROGRAM: prints("prompted with")}, entrypoint=(OWN_PROGRAM,)
    ),
    StandIn("sandbox.invalid/printer:1", {"/usr/local/bin/print": prints("hello")}, entrypoint=("print",)),
    StandIn("sandbox.invalid/failing:1", {"/usr/local/bin/fail": fails(3)}, entrypoint=("fail",)),
    StandIn("sandbox.invalid/sleeper:1", {"/usr/local/bin/sleeper": sleeps(3600)}, entrypoint=("sleeper",)),
)
"""Loaded into every cluster. `ubuntu` and `busybox` have a real shell and run what they are given."""


def stand_ins_for(definitions: Iterable[Mapping[str, Any]]) -> tuple[StandIn, ...]:
    """Return a stand-in for each image that the job definitions (as parsed from JSON) name, one per image.

    Images of the catalogue keep their shape. Of literals (`%%…%%`) in a name only results are known: those that
    stand-ins print. Other such names are left out, and so is what is no container operation: validating is not
    done here.
    """
    shaped = {full_name(stand_in.image): stand_in for stand_in in CATALOGUE}
    found: dict[str, StandIn] = {}
    for image, arguments, lines in _containers(definitions):
        name = full_name(image)
        made = shaped.get(name) or _fitting(image, arguments)
        made = replace(made, login=_login(arguments), says=lines)
        before = found.get(name)
        # One image in several operations has what each of them starts.
        found[name] = made if before is None else _both(before, made)
    return tuple(found.values())


def _containers(
    definitions: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
    """Image, arguments and what is to be printed of each container operation."""
    for definition in definitions:
        for operation in says.operations(definition):
            arguments = operation.get("args")
            image = arguments.get("image") if isinstance(arguments, Mapping) else None
            if isinstance(arguments, Mapping) and isinstance(image, str) and image:
                image = says.spelled_out(definition, image)
                if "%%" not in image:
                    yield image, arguments, says.lines(definition, operation)


def _both(one: StandIn, other: StandIn) -> StandIn:
    programs = dict(one.programs)
    for path, text in other.programs.items():
        # What serves for one serves for all: only then can everybody reach it.
        if text == SERVES or path not in programs:
            programs[path] = text
    return StandIn(
        one.image,
        programs,
        one.entrypoint or other.entrypoint,
        one.cmd or other.cmd,
        tuple(dict.fromkeys((*one.ports, *other.ports))),
        {**one.statuses, **other.statuses},
        {**one.greetings, **other.greetings},
        tuple(dict.fromkeys((*one.says, *other.says))),
        # Private only when nobody takes it for public.
        one.login and other.login,
    )


def _login(arguments: Mapping[str, Any]) -> Login | None:
    """Return the user and password with which the arguments pull; a literal is no password that we know."""
    authentication = arguments.get("authentication")
    docker = authentication.get("docker") if isinstance(authentication, Mapping) else None
    if not isinstance(docker, Mapping):
        return None
    user, password = docker.get("username"), docker.get("password")
    if not (isinstance(user, str) and isinstance(password, str) and user and password):
        return None
    return None if "%%" in user + password or ":" in user else Login(user, password)


def _fitting(image: str, arguments: Mapping[str, Any]) -> StandIn:
    """Make a stand-in that can be started the way these arguments start it."""
    ports = tuple(exposed_ports(arguments.get("expose")))
    behaviour = SERVES if ports else prints(f"stand-in for {image}:")
    programs = {OWN_PROGRAM: behaviour}
    entrypoint, cmd = _words(arguments.get("entrypoint")), arguments.get("cmd")
    started = [*entrypoint, *_words(cmd)] if entrypoint or not isinstance(cmd, str) else ["sh", "-c", cmd]
    folder = arguments.get("work_dir")
    for name in started_programs(started):
        home = "/usr/local/bin" if "/" not in name else folder if isinstance(folder, str) else "/"
        programs[str(PurePosixPath(home, name))] = behaviour
    # What begins with a dash, or nothing at all, is given to a program that the image itself starts.
    starts_itself = not started or started[0].startswith("-")
    statuses, greetings = _answers(arguments.get("expose"))
    return StandIn(
        image,
        programs,
        entrypoint=(OWN_PROGRAM,) if starts_itself else (),
        ports=ports,
        statuses=statuses,
        greetings=greetings,
    )


def _answers(expose: Any) -> tuple[dict[str, int], dict[str, str]]:
    """Return what health checks want to hear: `statuses` and `greetings` of a stand-in."""
    statuses: dict[str, int] = {}
    greetings: dict[str, str] = {}
    for entry in expose if isinstance(expose, list) else [expose]:
        checks = entry.get("health_checks") if isinstance(entry, Mapping) else None
        for check in checks if isinstance(checks, list) else []:
            match check:
                case {"type": "http", "path": str(path), "expected_status": int(status)} if status != 200:
                    statuses[f"{entry.get('port')} {check.get('method', 'GET')} {path}"] = status
                case {"type": "websocket", "expected_response": str(text)}:
                    greetings[str(entry.get("port"))] = text
    return statuses, greetings


def exposed_ports(expose: Any) -> list[int]:
    """Return the port numbers in a definition's `expose`, in order; what is none is passed over."""
    entries = expose if isinstance(expose, list) else [expose]
    values = [str(entry.get("port") if isinstance(entry, Mapping) else entry) for entry in entries]
    return [int(value) for value in values if re.fullmatch(r"[0-9]{1,5}", value) and 0 < int(value) < 65536]


_SHELLS: Final = frozenset({"sh", "bash", "/bin/sh", "/bin/bash"})
_COMMAND: Final = re.compile(
    r"(?:^|&&|\|\||[;|\n(])\s*(?:(?:do|then|else|if|while|until)\s+)*([A-Za-z_./][\w./+-]*)"
)
_KEYWORDS: Final = frozenset(
    {
        *("if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "in"),
        *("exit", "cd", "export", "set", "source", "trap", "exec", "eval", "read", "return", "shift", "wait"),
        *(".", ":"),
    }
)


def started_programs(words: list[str]) -> list[str]:
    """Return the names of programs that a command line starts and that the shared root does not have.

    For a shell's `-c` text these are the words where a command can stand: a guess, good enough for what job
    definitions hold.
    """
    if not words:
        return []
    if words[0] in _SHELLS:
        # A script beside it is one that the definition has fetched.
        scripts = [word for word in words[1:2] if not word.startswith("./")]
        found = _COMMAND.findall(words[2]) if len(words) > 2 and words[1] == "-c" else scripts
    else:
        found = words[:1]
    return [
        name
        for name in dict.fromkeys(found)
        if re.fullmatch(r"(?:\./)?[A-Za-z_/][\w./+-]*", name)
        and name not in _SHELLS
        and name not in _KEYWORDS
        and PurePosixPath(name).name not in _SHARED
    ]


_SHARED: Final = frozenset(
    {
        *(
            "awk",
            "basename",
            "cat",
            "chmod",
            "chown",
            "cp",
            "cut",
            "date",
            "dd",
            "df",
            "dirname",
            "du",
            "echo",
        ),
        *("env", "expr", "false", "find", "free", "grep", "head", "hostname", "id", "kill", "ln", "ls"),
        *("md5sum", "mkdir", "mktemp", "mv", "nc", "nohup", "nproc", "nslookup", "printf", "ps", "pwd", "rm"),
        *("rmdir", "sed", "seq", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "tar", "tee", "test"),
        *("timeout", "touch", "tr", "true", "uname", "uniq", "wc", "which", "whoami", "xargs", "yes", "zcat"),
    }
)
"""Programs of BusyBox that must stay what they are."""


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _page(image: str) -> str:
    name = html.escape(image)
    return (
        "<!doctype html>\n"
        f"<title>{name} (stand-in)</title>\n"
        f"<h1>{name}</h1>\n"
        f"<p>This page is served by the sandbox's stand-in for <code>{name}</code>: a small web server that "
        "has the image's name, so that a job can be tried without it.</p>\n"
    )
