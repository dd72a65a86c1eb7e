"""Quotes around the values of variables, which `docker run --env-file` and key files keep."""


def unquote(value: str) -> str:
    """Return a value without the quotes around it, if both ends have the same one, and without blanks around those.

    A list whose entries are quoted (`"a","b"`) is returned as it is: whoever splits it unquotes each entry.
    """
    stripped = value.strip()
    inner = stripped[1:-1]
    quoted = len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "\"'"
    return inner if quoted and stripped[0] not in inner else value
