"""Azure Voice Live's events by the types of Microsoft's own package.

The package describes its types and checks nothing, so its descriptions are read here: which keys
there are, which must be there, and what each of them may hold.
"""

import base64
import binascii
import datetime
import enum
import functools
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from azure.ai.voicelive import _unions, models
from azure.ai.voicelive._utils.model_base import Model

NAMES = {"_models": models, "_unions": _unions}
# A caller's audio is described as a client sends it, also in items that the service tells of: those
# never carry it.
NOT_SENT_BACK = (models.RequestAudioContentPart, "audio")


def client_types():
    """Returns how each client event is checked: no key that the types do not know."""
    return _types(models.ClientEvent, closed=True)


def server_types():
    return _types(models.ServerEvent, closed=False)


def _types(base, closed):
    check = functools.partial(_flaws, hint=base, path="", closed=closed)
    return dict.fromkeys(base.__mapping__, check)


def _flaws(value, hint, path, closed):
    """Yields what is wrong with `value` as (field, what)."""
    origin = get_origin(hint)
    if hint is Any:
        return
    if origin in (Union, types.UnionType):
        yield from _union_flaws(value, get_args(hint), path, closed)
    elif origin is Literal:
        if value not in get_args(hint):
            yield path, f"{value!r} is not one of {[str(arg) for arg in get_args(hint)]}"
    elif origin is list:
        if not isinstance(value, list):
            yield path, "not a list"
            return
        for at, entry in enumerate(value):
            yield from _flaws(entry, get_args(hint)[0], f"{path}.{at}", closed)
    elif origin is dict:
        if not isinstance(value, dict):
            yield path, "not an object"
            return
        for key, entry in value.items():
            yield from _flaws(entry, get_args(hint)[1], f"{path}.{key}", closed)
    elif issubclass(hint, Model):
        yield from _model_flaws(value, hint, path, closed)
    elif issubclass(hint, enum.Enum):
        if value not in [member.value for member in hint]:
            yield path, f"{value!r} is no {hint.__name__}"
    else:
        yield from _plain_flaws(value, hint, path)


def _union_flaws(value, members, path, closed):
    if value is None and type(None) in members:
        return
    members = [member for member in members if member is not type(None)]
    # A text beside names stands for names that are yet to come: only those of today will do.
    names = [m for m in members if isinstance(m, type) and issubclass(m, enum.Enum)]
    if names and str in members:
        members.remove(str)
    if isinstance(value, dict):
        members = [m for m in members if isinstance(m, type) and issubclass(m, Model)] or members
    found = [list(_flaws(value, member, path, closed)) for member in members]
    if all(found):
        # The member that is meant has the right `type`.
        yield from min(found, key=lambda flaws: any(field.endswith(".type") for field, _ in flaws))


def _model_flaws(value, model, path, closed):
    if not isinstance(value, dict):
        yield path, "not an object"
        return
    known = type(model._deserialize(value, []))
    if known is model and model.__dict__.get("__mapping__"):
        yield f"{path}.type".lstrip("."), f"{value.get('type')!r} is no {model.__name__}"
        return
    fields = known(value)._attr_to_rest_field
    hints = get_type_hints(known, localns=NAMES)
    hints = {field._rest_name: hints[name] for name, field in fields.items()}
    for key, hint in hints.items():
        where = f"{path}.{key}".lstrip(".")
        if key in value:
            yield from _flaws(value[key], hint, where, closed)
        elif type(None) not in get_args(hint) and (closed or (known, key) != NOT_SENT_BACK):
            yield where, "missing"
    for key in value.keys() - hints.keys() if closed else ():
        yield f"{path}.{key}".lstrip("."), "no such key"


def _plain_flaws(value, hint, path):
    kinds = {
        bool: bool,
        bytes: str,
        datetime.datetime: (int, float),
        float: (int, float),
        int: int,
        str: str,
    }
    if not isinstance(value, kinds[hint]) or (hint is not bool and isinstance(value, bool)):
        yield path, f"{value!r} is no {hint.__name__}"
    elif hint is bytes:
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error as error:
            yield path, f"not base64: {error}"
