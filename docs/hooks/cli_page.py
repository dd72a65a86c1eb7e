"""The page of the command line, made of the commands themselves: Typer's apps and argparse's parsers."""

from __future__ import annotations

import argparse
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from tables import table

from service import __main__ as service
from service.models import bento_store

INTRODUCTION = """# Command line

Made from the commands' own code. `--help` says the same in the terminal. `trainer` and `evaluation` are on the path
once the project is installed; `python -m trainer` and `python -m evaluation` are the same. Exit codes: 0 done, 1 a
threshold or check failed, 2 a mistake (one line on stderr says which), 130 interrupted.
"""
WORDS = {str: "text", int: "integer", float: "number", Path: "path"}


def page() -> str:
    """The whole page as Markdown: a heading for each command, `trainer-train` its anchor."""
    from evaluation.cli import app as evaluation
    from trainer.cli import app as trainer

    parts = [INTRODUCTION]
    for name, app in (("trainer", trainer), ("evaluation", evaluation)):
        group = typer.main.get_command(app)
        parts.append(f"## {name}\n\n{group.help}\n")
        parts += [_command(path, command) for path, command in leaves(group, name)]
    parts.append("## python -m service\n\nThe service, its settings, and BentoML's store.\n")
    for name, parser in (
        ("python -m service", service.parser()),
        ("python -m service.models.bento_store", bento_store.parser()),
    ):
        parts += [_parser(path, *told) for path, *told in sub_parsers(parser, name)]
    return "\n".join(parts)


def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(`evaluation extractor classifier`, command) of each that can be run, in the order of --help."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
    for name, part in (below or {}).items():
        yield from leaves(part, f"{path} {name}")


def sub_parsers(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """(`python -m service serve`, its help, its parser) of each; the parser alone where it has none below it."""
    below = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
    if below is None:
        yield path, parser.description or "", parser
        return
    helps = {action.dest: action.help or "" for action in below._choices_actions}
    for name, part in below.choices.items():
        yield f"{path} {name}", helps.get(name, ""), part


def _command(path: str, command: Any) -> str:
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    rows, words = [], [path]
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        kind, bounds = _kind(hints[parameter.name])
        if parameter.param_type_name == "argument":
            names = [parameter.metavar or parameter.name.upper()]
            words.append(names[0] + ("" if parameter.nargs == 1 else " …"))
        else:
            names = [*parameter.opts, *parameter.secondary_opts]
            words += [f"{names[0]} {parameter.metavar or kind.upper()}"] if parameter.required else []
            kind = "" if kind == "flag" else f"`{parameter.metavar}`" if parameter.metavar else kind
        told = [parameter.help or ""]
        told += [f"Environment: `{parameter.envvar}`."] if parameter.envvar else []
        rows.append((names, f"{kind}{bounds}", _default(parameter), " ".join(told)))
    words.append("[OPTIONS]")
    return f"### {path}\n\n{inspect.cleandoc(command.help)}\n\n```\n{' '.join(words)}\n```\n\n{_table(rows)}"


def _parser(path: str, told: str, parser: argparse.ArgumentParser) -> str:
    rows, words = [], [path]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = list(action.option_strings) or [str(action.metavar or action.dest.upper())]
        words += [] if action.option_strings else [names[0] + (" …" if action.nargs == "+" else "")]
        kind = " or ".join(f"`{choice}`" for choice in action.choices or ())
        default = "" if action.default in (None, False) else f"`{action.default}`"
        rows.append((names, kind, "required" if action.required else default, action.help or ""))
    words += ["[OPTIONS]"] if any(row[0][0].startswith("-") for row in rows) else []
    sentence = f"{told[:1].upper()}{told[1:]}".rstrip(".") + "."
    return f"### {path}\n\n{sentence}\n\n```\n{' '.join(words)}\n```\n\n{_table(rows)}"


def _kind(hint: Any) -> tuple[str, str]:
    """What a value is, in a word, and its bounds: ("integer", ", at least 2")."""
    annotation, *facts = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    low, high = next(((fact.min, fact.max) for fact in facts if hasattr(fact, "max")), (None, None))
    bounds = "" if low is None else f", {low} to {high}" if high is not None else f", at least {low}"
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is list:
        return f"{_kind(get_args(annotation)[0])[0]}, repeated", bounds
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation)), bounds
    return ("flag" if annotation is bool else WORDS.get(annotation, annotation.__name__)), bounds


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(value, bool):
        return f"`{parameter.opts[0]}`" if value else ""
    return "" if value is None else f"`{value}`"


def _table(rows: list[tuple[list[str], str, str, str]]) -> str:
    if not rows:
        return "It takes no options.\n"
    shown = [(", ".join(f"`{name}`" for name in names), *cells) for names, *cells in rows]
    return table(("option", "value", "default", ""), shown)
