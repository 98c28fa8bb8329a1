"""Request bodies: JSON checked against a msgspec struct, whose annotations are also the documented schema."""

import re
from typing import Any, NoReturn, TypeVar

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
