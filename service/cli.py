"""`python -m service serve|settings|health|store`. Heavy imports happen inside the commands."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from artifacts.terminal import say
from artifacts.typer_group import FilesCommand, command_group, examples
from service.default_address import default_host, default_port

app = command_group(
    "Serve generators over HTTP.", "python -m service serve", "MODEL_DIR=models python -m service serve --port 8000"
)
store_app = command_group(
    "Put generators into BentoML's model store, and build bentos.",
    "python -m service store build models/mnist-dcgan.onnx",
)
app.add_typer(store_app, name="store")

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="Generator files (*.onnx).", show_default=False)]


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Print errors that the user can fix as one line, and exit with code 2."""
    from service.errors import UserError

    try:
        yield
    except UserError as error:
        say(f"error: {error}", error=True)
        raise typer.Exit(2) from None


@app.command(epilog=examples("MODEL_DIR=models python -m service serve --port 8000"))
def serve(
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on (0.0.0.0: all interfaces).", show_default="$ATELIER_BIND, else 127.0.0.1"
        ),
    ] = None,
    port: Annotated[
        str | None, typer.Option(help="Port to listen on.", show_default="$PORT, else $ATELIER_PORT, else 3000")
    ] = None,
) -> None:
    """Serve the models in $MODEL_DIR (default: ./models).

    Settings, port and folders are checked first.
    """
    with plain_errors():
        from service import preflight

        preflight.serve(default_host() if host is None else host, default_port() if port is None else port)


@app.command(epilog=examples("python -m service settings"))
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the defaults as a Markdown table for the documentation.")
    ] = False,
) -> None:
    """List every setting with its current value and its effect."""
    with plain_errors():
        from service import settings as module
        from service.middleware.auth import ApiKeys

        if markdown:
            print(module.markdown_table(), end="")
            return
        values = module.settings()
        ApiKeys(values)
        rows = module.describe_settings(values)
        width = max(len(f"{variable}={value}") for variable, value, _ in rows)
        for variable, value, description in rows:
            say(f"{f'{variable}={value}':<{min(width, 60)}}  {description}")


@app.command(epilog=examples("python -m service health http://127.0.0.1:3000"))
def health(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="Address of the service.", show_default="the service on this machine"),
    ] = None,
) -> None:
    """Exit with 0 if a service is ready, else with 1.

    If it is not ready, print the reason. An address that is not an http(s) URL is an error (exit code 2).
    """
    from service.healthcheck import check

    raise typer.Exit(check(url))


@store_app.command(cls=FilesCommand, epilog=examples("python -m service store put models/*.onnx"))
def put(files: Files) -> None:
    """Put each file into BentoML's model store.

    Print its tag, NAME:DIGEST.
    """
    with plain_errors():
        for path in files:
            say(_store().put(path))


@store_app.command(cls=FilesCommand, epilog=examples("python -m service store build models/mnist-dcgan.onnx"))
def build(files: Files) -> None:
    """Build a bento that serves the files, and print its tag.

    The files are put into the model store first.
    """
    with plain_errors():
        say(_store().build(files))


def _store() -> ModuleType:
    import logging

    from service.models import bento_store

    logging.getLogger("bentoml").setLevel(logging.ERROR)
    return bento_store


def main() -> None:
    """Run the command line."""
    app(prog_name="python -m service")
