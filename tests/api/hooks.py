"""What schemathesis cannot know by itself: which calls there are, and what strangers are told."""

import os

import schemathesis

# Ids of calls that the gateway has, with blanks between them.
CALLS = os.environ.get("KNOWN_CALLS", "").split()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Asks for a call that there is as often as for one that there is not."""
    named = (path_parameters or {}).get("call")
    if CALLS and isinstance(named, str) and len(named) == 36 and sum(named.encode()) % 2:
        path_parameters["call"] = CALLS[sum(named.encode()) % len(CALLS)]
    return path_parameters


@schemathesis.check
def strangers_are_refused(context, response, case):
    """Without a good key there is 401, and 429 for whoever comes too often."""
    if os.environ.get("IS_STRANGER"):
        assert response.status_code in (401, 429), f"{response.status_code} without a key"
