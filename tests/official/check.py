"""Checks recordings, one JSON object a line, against the vendors' own packages.

    check.py SIDE FILE [SIDE FILE]...

client              what callgate wrote to an agent: no key that OpenAI's types do not know
server              what the built-in agent wrote: the types know its keys, more are fine
voice-live-client   the same for Azure Voice Live
voice-live-server
acs-requests        what callgate asked of Azure Communication Services
acs-media           what it wrote to a media socket of theirs
twilio-signatures   which of Twilio's signatures callgate accepted, and which it refused
twilio-simulator    what the simulator signed as Twilio
twilio-documents    the TwiML that callgate answers

Exits 1 and names line and field if anything is wrong, or if there is nothing to check.
"""

import base64
import binascii
import json
import sys
from collections import Counter
from typing import Annotated, get_args, get_type_hints

from openai.types.realtime import RealtimeServerEvent
from openai.types.realtime.realtime_client_event_param import RealtimeClientEventParam
from pydantic import ConfigDict, Discriminator, TypeAdapter, ValidationError

import acs
import twilio_webhooks
import voice_live

AUDIO_KEYS = {
    "input_audio_buffer.append": "audio",
    "response.output_audio.delta": "delta",
}


def client_types():
    """Returns the types of client events, closed at every depth, and a validator of them all.

    Telling them apart by `type` keeps a failing message from being held against every one.
    """
    union = Annotated[RealtimeClientEventParam, Discriminator("type")]
    adapter = TypeAdapter(union, config=ConfigDict(extra="forbid"))
    members = get_args(RealtimeClientEventParam)
    names = {get_args(get_type_hints(member)["type"])[0] for member in members}
    return dict.fromkeys(names, validating(adapter))


def server_types():
    union = get_args(RealtimeServerEvent)[0]  # The union is annotated with its discriminator.
    return {
        get_args(member.model_fields["type"].annotation)[0]: validating(TypeAdapter(member))
        for member in get_args(union)
    }


def validating(adapter):
    def flaws(message):
        kind = message["type"]
        try:
            # Without strict, "100" would pass for 100.
            adapter.validate_python(message, strict=True)
        except ValidationError as error:
            for detail in of_the_types_meant(error.errors()):
                steps = [str(step) for step in detail["loc"] if step != kind]
                yield ".".join(steps), detail["msg"]

    return flaws


SIDES = {
    "client": client_types,
    "server": server_types,
    "voice-live-client": voice_live.client_types,
    "voice-live-server": voice_live.server_types,
    "acs-requests": acs.request_types,
    "acs-media": acs.media_types,
    "twilio-signatures": twilio_webhooks.signature_types,
    "twilio-simulator": twilio_webhooks.simulator_types,
    "twilio-documents": twilio_webhooks.document_types,
}
# What a message is called by, where it is not by its `type`.
KIND_KEYS = {"acs-media": "kind"}
# Sides whose recordings have something of each kind.
COMPLETE = {"acs-requests", "acs-media", "twilio-signatures"}


def flaws(text, types, kind_key):
    """Yields what is wrong with one message as (field, what)."""
    try:
        message = json.loads(text)
    except json.JSONDecodeError as error:
        yield "", f"not JSON: {error}"
        return
    kind = message.get(kind_key) if isinstance(message, dict) else None
    if kind not in types:
        yield kind_key, f"no event is called {kind!r}"
        return
    yield from types[kind](message)
    audio = message.get(AUDIO_KEYS.get(kind))
    if isinstance(audio, str):
        try:
            base64.b64decode(audio, validate=True)
        except binascii.Error as error:
            yield AUDIO_KEYS[kind], f"not base64: {error}"


def of_the_types_meant(errors):
    """Leaves out the errors against members of inner unions that another `type` rules out."""
    others = [
        error["loc"][:-1]
        for error in errors
        if error["type"] == "literal_error" and error["loc"][-1] == "type"
    ]
    meant = [
        error
        for error in errors
        if not any(error["loc"][: len(other)] == other for other in others)
    ]
    return meant or errors


def main(arguments):
    sides, paths = arguments[::2], arguments[1::2]
    if not sides or len(sides) != len(paths) or not SIDES.keys() >= set(sides):
        print(__doc__, file=sys.stderr)
        return 2
    # Each is checked, whatever became of those before.
    return max([check(side, path) for side, path in zip(sides, paths)])


def check(side, path):
    """Prints how many messages are legal, or what is wrong. Returns the exit code."""
    types = SIDES[side]()
    kind_key = KIND_KEYS.get(side, "type")
    try:
        with open(path, encoding="utf-8") as file:
            lines = [(number, line) for number, line in enumerate(file, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        print(f"{path}: {error}: there is nothing to check", file=sys.stderr)
        return 1
    if not lines:
        print(f"{path}: empty: there is nothing to check", file=sys.stderr)
        return 1
    failed = False
    for number, line in lines:
        for field, what in flaws(line, types, kind_key):
            failed = True
            print(f"{path}:{number}: {field or 'the line'}: {what}", file=sys.stderr)
    if failed:
        return 1
    kinds = Counter(json.loads(line)[kind_key] for _, line in lines)
    missing = types.keys() - kinds.keys() if side in COMPLETE else ()
    if missing:
        print(f"{path}: not recorded: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{path}: {len(lines)} legal {side} events: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
