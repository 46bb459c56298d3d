"""Twilio's webhooks by Twilio's own package: its validator of signatures, and its TwiML classes."""

import functools
import inspect
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace
from urllib.parse import urlparse

from multidict import MultiDict
from twilio import request_validator
from twilio.request_validator import RequestValidator
from twilio.twiml import TwiML
from twilio.twiml.voice_response import VoiceResponse

ALGORITHMS = (request_validator.HMAC_SHA1, request_validator.HMAC_SHA256)


def signature_types():
    """Returns how our verdicts are checked: valid ones accepted, and no others."""
    check = functools.partial(signature_flaws, all_of_them=True)
    return dict.fromkeys(ALGORITHMS, check)


def simulator_types():
    """Returns how the simulator's signatures are checked."""
    check = functools.partial(signature_flaws, all_of_them=False)
    return {request_validator.HMAC_SHA1: check}


def document_types():
    return {"document": document_flaws}


def signature_flaws(line, all_of_them):
    validator = RequestValidator(line["token"])
    url, algorithm = line["url"], line["type"]
    fields = MultiDict(line["fields"])
    sent = fields if line["body"] is None else line["body"]

    def is_valid(signature):
        # Twilio may sign a socket with a slash at the end, which its page says and this does not know.
        spellings = [url, url + "/"] if is_socket(url) else [url]
        return any(validator.validate(each, sent, signature, algorithm) for each in spellings)

    for signature in line["accepted"]:
        if not is_valid(signature):
            yield "accepted", f"{signature!r} is not valid for {url}"
    for signature in line["refused"]:
        if is_valid(signature):
            yield "refused", f"{signature!r} is valid for {url}"
    if all_of_them:
        for spelling in spellings_of(url):
            made = validator.compute_signature(spelling, fields, algorithm)
            if is_valid(made) and made not in line["accepted"]:
                yield "accepted", f"{made!r}, by which Twilio signs {spelling}, is not among them"


def spellings_of(url):
    parsed = urlparse(url)
    yield request_validator.remove_port(parsed)
    # The package takes 80 for a secure socket's own port.
    if parsed.port or not is_socket(url):
        yield request_validator.add_port(parsed)


def is_socket(url):
    return url.startswith(("ws://", "wss://"))


def document_flaws(line):
    name = line["name"]
    try:
        root = ElementTree.fromstring(line["text"])
    except ElementTree.ParseError as error:
        yield name, f"not XML: {error}"
        return
    if root.tag != "Response":
        yield name, f"begins with {root.tag}"
        return
    for flaw in element_flaws(root, VoiceResponse(), root.tag):
        yield name, flaw


def element_flaws(element, verb, path):
    """Yields what is wrong with `element`; `verb` has all that the package knows of its kind."""
    for attribute in element.keys() - verb.attrs.keys():
        yield f"{path} has no attribute {attribute}"
    texts = [element.text, *(child.tail for child in element)]
    if verb.value is None and any(text and text.strip() for text in texts):
        yield f"{path} has no text"
    children = children_of(type(verb))
    for child in element:
        if child.tag in children:
            yield from element_flaws(child, children[child.tag], f"{path}/{child.tag}")
        else:
            yield f"{path} has no {child.tag} in it"


@functools.cache
def children_of(kind):
    """Returns what may be within a verb, by name, each with all of its attributes."""
    children = {}
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if name.startswith("_") or hasattr(TwiML, name):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        named = {p.name: "x" for p in parameters if p.kind is not p.VAR_KEYWORD}
        child = method(SimpleNamespace(nest=lambda verb: verb), **named)
        children.setdefault(child.name, child)
    return children
