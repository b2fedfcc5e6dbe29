"""An op's arguments as Docker means them → the fields of a Kubernetes container.

(docs/protocol/node.md#containers)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from nosana_operator.api.placement import is_nvidia
from nosana_operator.definition import Problem, RunArgs
from nosana_operator.definition.literals import Place
from nosana_operator.json_paths import json_path, quoted
from nosana_operator.workload.aliases import alias_problems
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.resources import resources_problems
from nosana_operator.workload.storage import volume_problems

NVIDIA_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"

# The grammar of image references (distribution's `reference` package). A kubelet refuses other references too,
# but only after the pod is scheduled.
_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_IMAGE: Final = re.compile(
    rf"(?:(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?{_WORD}(?:/{_WORD})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
)
_LONGEST_IMAGE: Final = 512
_ENV_NAME: Final = re.compile(r"[!-<>-~]+")


def escape_expansion(text: str) -> str:
    """The text, escaped so that Kubernetes' expansion returns it unchanged.

    A kubelet replaces `$(NAME)` and halves `$$` in commands, arguments and values. Docker does neither, so a
    shell's `$(date)` and `$$` have to be escaped.
    """
    return re.sub(r"\$(?=[$(])", "$$", text)


def make_command(ctx: JobContext, args: RunArgs) -> dict[str, list[str]]:
    """`command` and `args` of the container, each only when the op has it.

    An entrypoint replaces the image's ENTRYPOINT and drops its CMD, in Docker as in Kubernetes; a string is one
    word. A cmd replaces CMD; a string is a line for `/bin/sh -c`. Empty values count as absent.
    """
    defaults = ctx.definition.global_
    entrypoint = args.entrypoint or (defaults.entrypoint if defaults else None)
    fields: dict[str, list[str]] = {}
    if entrypoint:
        words = [entrypoint] if isinstance(entrypoint, str) else entrypoint
        fields["command"] = [escape_expansion(word) for word in words]
    if args.cmd:
        words = ["/bin/sh", "-c", args.cmd] if isinstance(args.cmd, str) else args.cmd
        fields["args"] = [escape_expansion(word) for word in words]
    return fields


def make_env(ctx: JobContext, args: RunArgs) -> list[dict[str, str]]:
    """The container's environment variables; NOSANA_ID wins over the op's, which win over the global ones.

    A definition never decides which GPUs a container sees. Kubelets prefer a container's own variable to the
    device plugin's, so the variable is removed from ops with NVIDIA GPUs, and says `void` for all other ops.
    """
    merged = {**_global_env(ctx), **(args.env or {}), "NOSANA_ID": ctx.job_address}
    merged.pop(NVIDIA_DEVICES, None)
    if not (ctx.uses_gpu(args) and is_nvidia(ctx.spec.gpu.resource_name)):
        merged[NVIDIA_DEVICES] = "void"
    return [{"name": name, "value": escape_expansion(value)} for name, value in merged.items()]


def _global_env(ctx: JobContext) -> dict[str, str]:
    defaults = ctx.definition.global_
    return (defaults.env if defaults else None) or {}


def work_dir(ctx: JobContext, args: RunArgs) -> str | None:
    """The working directory of the op, else the global one; None: the image decides."""
    defaults = ctx.definition.global_
    return args.work_dir or (defaults.work_dir if defaults else None) or None


def args_problems(ctx: JobContext, op_index: int, args: RunArgs) -> Iterator[Problem]:
    """The arguments of which no container can be created. Text that still contains a literal is skipped."""
    defaults = ctx.definition.global_
    place: Place = ("ops", op_index, "args")
    if "%%" not in args.image and (len(args.image) > _LONGEST_IMAGE or not _IMAGE.fullmatch(args.image)):
        yield Problem(
            json_path((*place, "image")),
            f"{quoted(args.image)} is not an image reference",
            "write it as for docker pull: [registry/]name[:tag], the name in lower case, without https://",
        )
    folder = work_dir(ctx, args)
    folder_place: Place = (*place, "work_dir") if args.work_dir else ("global", "work_dir")
    if folder and not folder.startswith(("/", "%%")):
        yield Problem(json_path(folder_place), f"{quoted(folder)} is not an absolute path", "start it with /")
    yield from _nul_problems(folder_place, folder)
    for env_place, env in (((*place, "env"), args.env or {}), (("global", "env"), _global_env(ctx))):
        for name, value in env.items():
            if not _ENV_NAME.fullmatch(name):
                yield Problem(
                    json_path(env_place),
                    f"{quoted(name)} cannot be the name of an environment variable",
                    "use letters, digits and _",
                )
            yield from _nul_problems((*env_place, name), value)
    yield from alias_problems(op_index, args)
    yield from _nul_problems((*place, "cmd"), args.cmd)
    yield from _nul_problems((*place, "entrypoint"), args.entrypoint)
    yield from _nul_problems(("global", "entrypoint"), defaults.entrypoint if defaults else None)
    yield from volume_problems(ctx, op_index, args)
    yield from resources_problems(op_index, args)


def _nul_problems(place: Place, value: str | list[str] | None) -> Iterator[Problem]:
    if any("\0" in text for text in ([value] if isinstance(value, str) else value or ())):
        yield Problem(
            json_path(place), "it contains a NUL character, which no program can receive", "remove it"
        )
