"""What callgate sends to Azure Communication Services, by Microsoft's own Call Automation package.

Each REST request is held against the package's types, and against the request that the package's
own client makes when it is asked for the same, its transport replaced by one that keeps it. The
package has no types of media messages: those are held against what Microsoft's samples send.
"""

import base64
import binascii
import datetime
import enum
import json
import uuid
from typing import get_args, get_type_hints
from unittest import mock
from urllib.parse import urlsplit

from azure.communication.callautomation import (
    AudioFormat,
    CallAutomationClient,
    FileSource,
    MediaStreamingAudioChannelType,
    MediaStreamingContentType,
    MediaStreamingOptions,
    PhoneNumberIdentifier,
    StreamingTransportType,
)
from azure.communication.callautomation._generated import models
from azure.communication.callautomation._shared import policy
from azure.core.credentials import AzureKeyCredential
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.transport import HttpTransport

HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"
RATES = {16000: AudioFormat.PCM16_K_MONO, 24000: AudioFormat.PCM24_K_MONO}
# What the client writes out although ACS assumes it anyway.
WRITTEN_OUT = {
    "playTo": [],
    "playOptions": {"loop": False},
    "interruptCallMediaOperation": False,
}


class Kept(Exception):
    """Carries a request out of a client that would send it."""


class Keeper(HttpTransport):
    def send(self, request, **_):
        raise Kept(request)

    def open(self):
        pass

    def close(self):
        pass

    def __exit__(self, *_):
        pass


def answer(client, given):
    client.answer_call(
        given["context"],
        given["callback"],
        operation_context=given["operation_context"],
        media_streaming=media(given),
    )


def reject(client, given):
    client.reject_call(given["context"], call_reject_reason=given["reason"])


def redirect(client, given):
    client.redirect_call(given["context"], PhoneNumberIdentifier(given["to"]))


def hang_up(client, given):
    client.get_call_connection(given["call"]).hang_up(is_for_everyone=True)


def transfer(client, given):
    client.get_call_connection(given["call"]).transfer_call_to_participant(
        PhoneNumberIdentifier(given["to"]),
        source_caller_id_number=PhoneNumberIdentifier(given["from"]),
        operation_context=given["operation_context"],
    )


def send_tones(client, given):
    client.get_call_connection(given["call"]).send_dtmf_tones(
        given["tones"],
        PhoneNumberIdentifier(given["to"]),
        operation_context=given["operation_context"],
    )


def play(client, given):
    client.get_call_connection(given["call"]).play_media(
        FileSource(given["file"]), operation_context=given["operation_context"]
    )


def create_call(client, given):
    client.create_call(
        PhoneNumberIdentifier(given["to"]),
        given["callback"],
        source_caller_id_number=PhoneNumberIdentifier(given["from"]),
        operation_context=given["operation_context"],
        media_streaming=media(given),
    )


def media(given):
    if given["socket"] is None:
        return None
    return MediaStreamingOptions(
        transport_url=given["socket"],
        transport_type=StreamingTransportType.WEBSOCKET,
        content_type=MediaStreamingContentType.AUDIO,
        audio_channel_type=MediaStreamingAudioChannelType.MIXED,
        start_media_streaming=True,
        enable_bidirectional=True,
        audio_format=RATES[given["rate"]],
        enable_dtmf_tones=True,
    )


# How the client is asked for each request, and the type of its body.
REQUESTS = {
    "answer": (answer, models.AnswerCallRequest),
    "reject": (reject, models.RejectCallRequest),
    "redirect": (redirect, models.RedirectCallRequest),
    "hang_up": (hang_up, None),
    "transfer": (transfer, models.TransferToParticipantRequest),
    "send_tones": (send_tones, models.SendDtmfTonesRequest),
    "play": (play, models.PlayRequest),
    "create_call": (create_call, models.CreateCallRequest),
}


def request_types():
    return dict.fromkeys(REQUESTS, request_flaws)


def media_types():
    return {"AudioData": audio_flaws, "StopAudio": stop_flaws}


def request_flaws(line):
    """Yields what is wrong with one recorded request as (field, what)."""
    ask, model = REQUESTS[line["type"]]
    method, target = line["line"].split(" ", 1)
    headers = line["headers"]
    body = json.loads(line["body"]) if line["body"] else None
    if model is not None:
        yield from model_flaws(body, model, "")
    theirs = made_by_client(ask, line, target)
    url = urlsplit(theirs.url)
    if (method, target) != (theirs.method, f"{url.path}?{url.query}"):
        yield "line", f"the client sends {theirs.method} {url.path}?{url.query}"
    if headers.get("host") != url.netloc:
        yield "host", f"the client's is {url.netloc}"
    expected = json.loads(theirs.body) if theirs.body else None
    if model is models.PlayRequest:
        expected = {k: v for k, v in expected.items() if WRITTEN_OUT.get(k, ...) != v}
    if body != expected:
        yield "body", f"the client sends {json.dumps(expected, ensure_ascii=False)}"
    yield from header_flaws(headers, theirs, line)


def made_by_client(ask, line, target):
    """Returns the request that the package's client makes when it is asked for the same."""
    version = target.rpartition("api-version=")[2]
    credential = AzureKeyCredential(line["key"])
    client = CallAutomationClient(
        line["endpoint"], credential, api_version=version, transport=Keeper()
    )
    try:
        ask(client, line["given"])
    except Kept as kept:
        return kept.args[0]
    raise AssertionError("the client has sent nothing")


def header_flaws(headers, theirs, line):
    for name in ("accept", "content-type"):
        if headers.get(name) != theirs.headers.get(name):
            yield name, f"the client's is {theirs.headers.get(name)}"
    pair = ("repeatability-request-id", "repeatability-first-sent")
    if [name in headers for name in pair] != [name in theirs.headers for name in pair]:
        yield pair[0], "the client sends these where we do not, or the other way round"
    elif pair[0] in headers:
        yield from unreadable(pair[0], uuid.UUID, headers[pair[0]])
        yield from unreadable(pair[1], http_date, headers[pair[1]])
    # The same bytes at the same time, signed by the package.
    theirs.body = line["body"]
    signer = policy.HMACCredentialsPolicy(line["endpoint"], line["key"])
    date = headers.get("x-ms-date", "")
    yield from unreadable("x-ms-date", http_date, date)
    with mock.patch.object(policy, "get_current_utc_time", lambda: date):
        signer.on_request(PipelineRequest(theirs, None))
    for name in ("x-ms-content-sha256", "authorization"):
        if headers.get(name) != theirs.headers[name]:
            yield name, f"the client's is {theirs.headers[name]}"


def http_date(text):
    if datetime.datetime.strptime(text, HTTP_DATE).strftime(HTTP_DATE) != text:
        raise ValueError("not as HTTP writes it")


def unreadable(name, read, text):
    try:
        read(text)
    except ValueError as error:
        yield name, str(error)


def model_flaws(value, model, path):
    """Yields what is wrong with `value` by the package's description of `model`."""
    if not isinstance(value, dict):
        yield path, "not an object"
        return
    for attribute, names in getattr(model, "_subtype_map", {}).items():
        key = model._attribute_map[attribute]["key"]
        if value.get(key) not in names:
            yield f"{path}.{key}".lstrip("."), f"{value.get(key)!r} is no {model.__name__}"
            return
        model = getattr(models, names[value[key]])
    known = {entry["key"]: name for name, entry in model._attribute_map.items()}
    hints = get_type_hints(model.__init__, localns={"_models": models})
    for key, name in known.items():
        where = f"{path}.{key}".lstrip(".")
        if key in value:
            kind = model._attribute_map[name]["type"]
            yield from value_flaws(value[key], kind, hints.get(name), where)
        elif model._validation.get(name, {}).get("required"):
            yield where, "missing"
    for key in value.keys() - known.keys():
        yield f"{path}.{key}".lstrip("."), "no such key"


def value_flaws(value, kind, hint, path):
    plain = {"str": str, "bool": bool, "int": int}
    if kind[0] == "[":
        if not isinstance(value, list):
            yield path, "not a list"
            return
        for at, entry in enumerate(value):
            yield from value_flaws(entry, kind[1:-1], None, f"{path}.{at}")
    elif kind in plain:
        if type(value) is not plain[kind]:
            yield path, f"{value!r} is no {kind}"
            return
        for names in get_args(hint):
            if isinstance(names, type) and issubclass(names, enum.Enum):
                if value not in [member.value for member in names]:
                    yield path, f"{value!r} is no {names.__name__}"
    else:
        yield from model_flaws(value, getattr(models, kind), path)


def audio_flaws(message):
    yield from keys(message, "", {"kind", "audioData"})
    data = message.get("audioData")
    yield from keys(data, "audioData", {"data"})
    text = data.get("data") if isinstance(data, dict) else None
    try:
        samples = base64.b64decode(text or "", validate=True)
    except (binascii.Error, TypeError) as error:
        yield "audioData.data", f"not base64: {error}"
        return
    if not samples or len(samples) % 2:
        yield "audioData.data", f"{len(samples)} bytes are not samples of 16 bits"


def stop_flaws(message):
    yield from keys(message, "", {"kind", "stopAudio"})
    yield from keys(message.get("stopAudio"), "stopAudio", set())


def keys(value, path, expected):
    if not isinstance(value, dict):
        yield path, "not an object"
    elif value.keys() != expected:
        yield path, f"the keys are {sorted(value)}, not {sorted(expected)}"
