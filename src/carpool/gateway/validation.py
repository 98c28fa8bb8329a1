"""Bodies and query strings, checked against the msgspec structs that are also the documented schema."""

import re
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

import msgspec

from carpool.errors import InvalidRequest

Body = TypeVar("Body", bound=msgspec.Struct)

# msgspec tells what is wrong in words only. The tests hold these forms fast.
_AT = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MAX_QUOTED = 200


class Unsupported(InvalidRequest):
    """A field of the API that this server knows and cannot serve."""

    code = "unsupported"


class BodyReader(msgspec.Struct, frozen=True):
    """Reads bodies of one kind."""

    decoder: msgspec.json.Decoder[Any]

    def read(self, body: bytes) -> Any:
        """The request in a body. Raises `InvalidRequest` that names the field at fault."""
        try:
            return self.decoder.decode(body)
        except msgspec.ValidationError as error:
            _refuse(str(error))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"The body is not valid JSON: {error}") from None
        except RecursionError:
            raise InvalidRequest("The body is nested too deeply.") from None


class QueryReader(msgspec.Struct, frozen=True):
    """Reads query strings of one kind."""

    kind: type[msgspec.Struct]

    def read(self, query: bytes) -> Any:
        """The parameters of a query string. Raises `InvalidRequest` that names the parameter at fault."""
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            raise InvalidRequest("The query string is not UTF-8, percent-encoded.") from None
        given = dict(pairs)
        if len(given) < len(pairs):
            twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
            raise InvalidRequest(f"`{twice[:_MAX_QUOTED]}` is given twice.", param=twice[:_MAX_QUOTED])
        try:
            return msgspec.convert(given, self.kind, strict=False)
        except msgspec.ValidationError as error:
            _refuse(str(error))


def _refuse(reason: str) -> NoReturn:
    """Raise what msgspec found wrong, such as "Expected `float`, got `str` - at `$.temperature`"."""
    at = _AT.search(reason)
    path = at["path"] if at else ""
    reason = reason[: at.start()] if at else reason
    if unknown := _UNKNOWN.fullmatch(reason):
        path = f"{path}.{unknown['name']}".lstrip(".")[:_MAX_QUOTED]
        raise InvalidRequest(f"Unrecognized request argument supplied: {path}", param=path)
    if missing := _MISSING.fullmatch(reason):
        path = f"{path}.{missing['name']}".lstrip(".")
        raise InvalidRequest(f"Missing required parameter: `{path}`.", param=path)
    path, reason = path[:_MAX_QUOTED], reason[:_MAX_QUOTED]
    if not path:
        raise InvalidRequest(f"Invalid body: {reason}.")
    raise InvalidRequest(f"Invalid value for `{path}`: {reason}.", param=path)


def require_default(param: str, value: object, defaults: tuple[object, ...] = (None,)) -> None:
    """Raise `Unsupported` unless a field asks for no more than what the server does anyway."""
    if value not in defaults:
        raise Unsupported(f"`{param}` is not supported by this server.", param=param)


def is_deeper(value: object, levels: int) -> bool:
    """Whether objects and lists are nested more than so many levels deep."""
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deeper(item, levels - 1) for item in items)
