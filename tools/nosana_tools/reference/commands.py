"""docs/reference/cli.md: the commands of `nosana-operator`, from click."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

import click

from nosana_tools.reference.tables import table

_HEAD: Final = """\
# Commands
Made from the program by `make docs`; `nosana-operator COMMAND --help` tells the same.
"""


def commands_page(group: click.Group) -> str:
    """The page as Markdown."""
    context = click.Context(group, info_name="nosana-operator")
    parts = [_HEAD]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            parts.append(_command(command, click.Context(command, parent=context, info_name=name)))
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "")
    rows = list(_options(command))
    return f"## {command.name}\n```\n{usage}\n```\n{text}\n" + (
        f"\n{table(('option', 'default', ''), rows)}" if rows else ""
    )


def _options(command: click.Command) -> Iterator[tuple[str, str, str]]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
            if isinstance(parameter.type, click.Choice):
                names += f" {' or '.join(f'`{choice}`' for choice in parameter.type.choices)}"
            yield names, _default(parameter), parameter.help or ""


def _default(option: click.Option) -> str:
    default: Any = option.default
    shown = isinstance(default, str | int | float) and not isinstance(default, bool)
    return f"`{default}`" if shown else "required" if option.required else ""
