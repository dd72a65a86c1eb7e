"""Shared parts of the typer command lines: safe streams, one-line usage errors, examples in the help."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from artifacts.resources import limit_thread_pools
from artifacts.terminal import exit_code, prepare_streams, printable, say

# click's own or typer's copy of it, by the version of typer; both are below what typer exports
UsageError: Any = typer.BadParameter.__mro__[1]


NO_HOME = "HOME is not set, and this user id has no account: set HOME or ATELIER_CACHE to a folder that is writable"


def is_missing_home_error(error: RuntimeError) -> bool:
    """Return whether pathlib raised this because there is no home folder for `~` or a default."""
    return "home directory" in str(error)


def command_name(command: str) -> str:
    """Return how a user types a command of this Python environment, such as `trainer` or `python`, for a hint.

    That is its name where the shell finds it, and its path where the environment is not activated.
    """
    here = Path.cwd()
    folder = (here / sys.executable).parent  # not resolved: the Python of an environment is a link
    found = shutil.which(command)
    if found and (here / found).parent == folder:
        return command
    path = folder / command
    if not path.exists():
        if command != "python":
            return command  # it was installed elsewhere
        path = here / sys.executable
    below = here != Path(here.anchor) and path.is_relative_to(here)
    return shlex.quote(str(path.relative_to(here) if below else path))


def examples(*lines: str) -> str:
    """Return the end of a command's help: example command lines, which click does not wrap after a backspace."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


class FilesCommand(TyperCommand):
    """A command that takes several paths, whose type is shown as that of one path."""

    def get_help(self, ctx: Any) -> str:
        """Return the help with `<path>` for `<list[Path]>`, padded so that the columns stay aligned."""
        return super().get_help(ctx).replace("<list[Path]>", f"{'<path>':12}")


class OneLineErrors(TyperGroup):
    """Commands whose usage errors are one line, as every other error is, instead of a box of five."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command and exit: 0 done, 1 a check failed, 2 a mistake or lost output, 130 stopped."""
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        prepare_streams()
        limit_thread_pools()  # before a command imports torch or NumPy
        try:
            Path.cwd()
        except FileNotFoundError:  # MKL ends the process there, without a word of ours
            say("error: the working directory was removed; change into another one", error=True)
            sys.exit(2)
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                print(error.ctx.get_help(), file=sys.stderr)
            else:
                say(f"error: {' '.join(printable(error.format_message()).split())}", error=True)
            sys.exit(error.exit_code)
        except typer.Abort:
            sys.exit(130)
        sys.exit(exit_code(code if isinstance(code, int) else 0))


def command_group(text: str, *lines: str, cls: type[OneLineErrors] = OneLineErrors) -> typer.Typer:
    """Return a program, or a group of its commands, with the look that all of them share.

    Args:
        text: What it does, for its help.
        lines: Example command lines.
        cls: The group's class.
    """
    return typer.Typer(
        cls=cls,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,  # in 80 columns rich's table cuts the names of options
        help=text,
        epilog=examples(*lines),
    )
