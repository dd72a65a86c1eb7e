"""`python -m service serve`, and `settings`: every setting, its value here, and what it does."""

import argparse
import os
import sys
from typing import Any, NoReturn

from pydantic import SecretStr

from artifacts.terminal import exit_code, prepare_streams, printable, say
from service.health import default_port
from service.middleware.auth import ApiKeys
from service.quotes import unquote
from service.settings import ALIASES, Settings, SettingsError, settings


def rows(values: Settings | None = None) -> list[tuple[str, str, str]]:
    """(variable, value, what it does) of each setting; the value that it has when not set, without `values`."""
    found = []
    for name, field in Settings.model_fields.items():
        value = field.default if values is None else getattr(values, name)
        variable = "ATELIER_" + name.upper()
        if name in ALIASES:
            variable += f" or {ALIASES[name]}"
        found.append((variable, shown(value), field.description or ""))
    return found


def shown(value: Any) -> str:
    """As it would be written in the environment; a secret is not told."""
    if isinstance(value, SecretStr):
        return "(secret)" if value.get_secret_value() else ""
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def markdown() -> str:
    """The settings and their defaults as the table in docs/reference/settings.md."""
    lines = ["| environment | default | |", "|---|---|---|"]
    for variable, value, does in rows():
        names = " or ".join(f"`{name}`" for name in variable.split(" or "))
        lines.append(f"| {names} | {value} | {does} |")
    return "\n".join(lines) + "\n"


class PlainParser(argparse.ArgumentParser):
    """A parser whose complaints hold no control characters of the arguments."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one printable message."""
        super().error(printable(message))


def parser() -> argparse.ArgumentParser:
    """The command line, from which its documentation is made too."""
    parser = PlainParser(prog="python -m service", description="Serve, or list the settings.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("settings", help="list every setting and the value it has here")
    listing.add_argument("--markdown", action="store_true", help="the defaults as a table for the documentation")
    serving = commands.add_parser("serve", help="look at what could keep it from starting, then `bentoml serve`")
    serving.add_argument(
        "--host",
        default=unquote(os.environ.get("ATELIER_BIND", "")) or "127.0.0.1",
        help="the address to listen on; 0.0.0.0: all there are. Default: $ATELIER_BIND, else 127.0.0.1",
    )
    serving.add_argument("--port", default=default_port(), help="default: $PORT, else $ATELIER_PORT, else 3000")
    return parser


def main(arguments: list[str] | None = None) -> int:
    prepare_streams()
    given = parser().parse_args(arguments)
    if given.command == "serve":
        from service import startup

        return startup.main(given.host, given.port)
    if given.markdown:
        print(markdown(), end="")
        return 0
    try:
        found = rows(settings())
        ApiKeys(settings())
    except SettingsError as error:
        say(f"error: {error}", error=True)
        return 2
    width = max(len(f"{variable}={value}") for variable, value, _ in found)
    for variable, value, does in found:
        say(f"{f'{variable}={value}':<{min(width, 60)}}  {does}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main()))
