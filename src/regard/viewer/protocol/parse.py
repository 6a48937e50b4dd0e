"""Requests of the viewer, checked: from the JSON that came to one of the classes in __init__.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from math import isfinite
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from regard.viewer.protocol import MESSAGES, CompareRequest, Request
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.limits import COMPARED_TEXTS, TEXT_LIMIT

HINTS = {request: get_type_hints(request, include_extras=True) for request, _ in MESSAGES.values()}


def parse(message: object) -> Request:
    """The request in a message. Raises RequestError, which names the field, for anything else."""
    if not isinstance(message, dict):
        raise RequestError("Expected a JSON object with “type” in it.")
    kind = message.get("type")
    if not isinstance(kind, str) or kind not in MESSAGES:
        raise RequestError(f"type: expected one of {', '.join(MESSAGES)}.")
    return _request(MESSAGES[kind][0], message)


def within(name: str, value: int, size: int) -> int:
    """The value, where it is below `size`. Raises RequestError, which names the field, otherwise."""
    if value >= size:
        raise RequestError(f"{name}: expected a whole number from 0 to {size - 1}. Got {value}.")
    return value


def _request(request: type[Request], values: Mapping[str, Any]) -> Request:
    checked: dict[str, Any] = {}
    for field in fields(request):
        value = values.get(field.name)
        if field.name not in values or (value is None and field.default is None):
            if field.default is MISSING:
                raise RequestError(f"{field.name}: missing.")
        else:
            checked[field.name] = _checked(field.name, value, HINTS[request][field.name])
    return request(**checked)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value of a field, as its annotation wants it."""
    if NoneType in get_args(hint):
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    shown = repr(str(value)[:40])
    if get_origin(hint) is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise RequestError(f"{name}: expected one of {', '.join(get_args(hint))}. Got {shown}.")
    elif hint is bool:
        if not isinstance(value, bool):
            raise RequestError(f"{name}: expected one of true, false. Got {shown}.")
    elif hint is int:
        if type(value) is not int or value < 0:
            raise RequestError(f"{name}: expected a whole number from 0. Got {shown}.")
    elif hint is float:
        if type(value) not in (int, float) or not isfinite(value) or value < 0:
            raise RequestError(f"{name}: expected a number from 0. Got {shown}.")
    elif get_origin(hint) is Annotated:
        _check_text(name, value)
    elif hint is str:
        if not isinstance(value, str):
            raise RequestError(f"{name}: expected a string. Got {shown}.")
    elif get_origin(hint) is list:
        if not isinstance(value, list) or not 1 <= len(value) <= COMPARED_TEXTS:
            raise RequestError(f"{name}: expected 1 to {COMPARED_TEXTS} texts.")
        for text in value:
            _check_text("text", text)
    elif hint is CompareRequest:
        if not isinstance(value, dict):
            raise RequestError(f"{name}: expected an object with word and texts.")
        return _request(CompareRequest, value)
    return value


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{name}: there is no text.")
    if len(value) > TEXT_LIMIT:
        raise RequestError(f"{name}: it has {len(value):,} characters, and the limit is {TEXT_LIMIT:,}.", 413)
