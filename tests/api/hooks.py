"""What schemathesis cannot know by itself: which calls there are, who can be called, and what
strangers are told."""

import os
import re

import schemathesis

# What the document says of an `Idempotency-Key`.
KEY = re.compile("[!-~]{1,255}")

# Ids of calls that the gateway has, with blanks between them.
CALLS = os.environ.get("KNOWN_CALLS", "").split()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Asks for a call that there is as often as for one that there is not."""
    named = (path_parameters or {}).get("call")
    if CALLS and isinstance(named, str) and len(named) == 36 and sum(named.encode()) % 2:
        path_parameters["call"] = CALLS[sum(named.encode()) % len(CALLS)]
    return path_parameters


@schemathesis.hook
def before_call(context, case, kwargs):
    """Calls somebody who may be called, as often as whoever the document would allow. What is against
    the document stays so: nothing but good texts are replaced, by others or by nothing."""
    body = case.body
    if case.operation.label != "POST /v1/calls" or not isinstance(body, dict) or not is_name(body.get("to")):
        return
    chance = sum(str(body).encode())
    if chance % 2:
        return
    case.body = body = dict(body, to=f"+97250234{5600 + chance // 2 % 40:04}")
    for optional in ("from", "campaign"):
        if is_name(body.get(optional)):
            del body[optional]
    # Sometimes a key that has come with another body.
    if chance % 8 == 0 and "Idempotency-Key" in (case.headers or {}):
        if KEY.fullmatch(case.headers["Idempotency-Key"]):
            case.headers["Idempotency-Key"] = "again"


def is_name(text):
    return isinstance(text, str) and 1 <= len(text) <= 64


@schemathesis.check
def strangers_are_refused(context, response, case):
    """Without a good key there is 401, and 429 for whoever comes too often."""
    if os.environ.get("IS_STRANGER"):
        assert response.status_code in (401, 429), f"{response.status_code} without a key"
