"""The page of every setting: the service's environment, and the fields of a training config."""

from __future__ import annotations

import json

from schema_words import words
from tables import table

from service import __main__ as service

# read by their names in code, which a test looks for
OTHERS = {
    "DATA_ROOT": "Folder of the downloaded image sets: `--data-root` of `trainer` and `evaluation`",
    "PORT": "Of `python -m service serve`, 3000 if not set",
    "ATELIER_CACHE": "Decoded image sets and reference statistics; `~/.cache/gan-atelier` if not set",
    "ATELIER_WEIGHTS": "Inception's downloaded weights; `~/.cache/gan-atelier/weights` if not set",
    "ATELIER_OFFLINE": "`1`: nothing is downloaded, neither image sets nor weights",
    "ATELIER_API_KEY": "The key that `evaluation` sends to a service which asks for one",
    "TRAINER_TIMEOUT_S": "Seconds until a process that does not answer ends a training of several; 600 if not set",
}

PAGE = """# Settings

Made from the code.

## The service

`python -m service settings` lists them with the values that they have there.
[How they are read](../operations.md#settings).

{service}
## Other variables of the environment

{others}
## A training's config

`trainer train --set section.field=value`, as often as needed; `--dry-run` prints the config that results. A value
that is out of range, unknown, or at odds with another is refused before anything starts. Defaults are those of a field
that a preset leaves out.

{config}"""


def page() -> str:
    others = table(("environment", ""), [(f"`{name}`", does) for name, does in OTHERS.items()])
    return PAGE.format(service=service.markdown(), others=others, config=_sections())


def _sections() -> str:
    """A heading and a table for each section of a config."""
    from trainer.config.schema import Config

    schema = Config.model_json_schema(mode="serialization")
    parts = []
    for section, told in schema["properties"].items():
        if "$ref" not in told:
            continue
        fields = schema["$defs"][told["$ref"].rpartition("/")[2]]
        rows = [
            (
                f"`{section}.{name}`",
                words(field),
                "" if field.get("default") is None else f"`{json.dumps(field['default'])}`",
                field.get("description", ""),
            )
            for name, field in fields["properties"].items()
        ]
        parts.append(f"### {section}\n\n{fields['description']}\n\n{table(('field', 'value', 'default', ''), rows)}")
    return "\n".join(parts)
