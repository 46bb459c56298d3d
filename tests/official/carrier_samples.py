"""Good and bad recordings of what carriers are sent, for self_test.py."""

import json

BODY = (
    '{"incomingCallContext":"ctx","callbackUri":"https://gw.example.com/cb","operationContext":"o",'
    '"mediaStreamingOptions":{"transportType":"websocket","audioChannelType":"mixed",'
    '"transportUrl":"wss://gw.example.com/ws","contentType":"audio","startMediaStreaming":true,'
    '"enableBidirectional":true,"audioFormat":"pcm24KMono","enableDtmfTones":true}}'
)
GIVEN = {
    "context": "ctx",
    "callback": "https://gw.example.com/cb",
    "operation_context": "o",
    "socket": "wss://gw.example.com/ws",
    "rate": 24000,
}
HEADERS = {
    "accept": "application/json",
    "authorization": "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature=D8lXk5IoAwFMn7l8azpEYZuDsiIFBiM3wIrH1zNiA20=",
    "content-type": "application/json",
    "host": "127.0.0.1:5050",
    "repeatability-first-sent": "Tue, 06 Jan 2026 10:20:30 GMT",
    "repeatability-request-id": "f8963e08-2570-4cce-88a9-cd4cf2eeee3d",
    "x-ms-content-sha256": "txSECVBGhBZyG8gyUiQGnZ4s+U/ZJbqeTfDQE8X9gNc=",
    "x-ms-date": "Tue, 06 Jan 2026 10:20:30 GMT",
}
LINE = "POST /calling/callConnections:answer?api-version=2026-03-12"


def answer(old="", new="", line=LINE, **headers):
    """Returns a recorded answer, with `new` for `old` in its body, and with other headers."""
    replaced = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in (HEADERS | replaced).items() if value is not None}
    body = BODY.replace(old, new)
    request = {"type": "answer", "given": GIVEN, "endpoint": "http://127.0.0.1:5050"}
    request |= {"key": "YSBrZXk=", "line": line, "headers": kept, "body": body}
    return json.dumps(request)


def signed(accepted, refused=(), fields=(("Digits", "2"), ("Digits", "1")), algorithm="HMAC_SHA1"):
    url = "https://voice.example.com/twilio/voice?tenant=acme"
    line = {"type": algorithm, "token": "0123456789abcdef", "url": url, "fields": fields}
    return json.dumps(line | {"body": None, "accepted": accepted, "refused": refused})


def document(within):
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Response>{within}</Response>'
    return json.dumps({"type": "document", "name": "busy.xml", "text": text})


PLAIN, WITH_PORT = "bdSIAHZCdhahoVX16cEZQovhZeU=", "q+gtXuLNmnGppPvSHSMTLaCy2Qc="
AUDIO = '{"kind":"AudioData","audioData":{"data":"AAAA////"}}'
STOP = '{"kind":"StopAudio","stopAudio":{}}'
STREAM = '<Connect action="/a" method="POST"><Stream url="wss://e"><Parameter name="n" value="v"/></Stream></Connect>'
# side, text, expected exit, what has to be named
CASES = [
    # Nothing is wrong in it: it is only not all.
    ("acs-requests", answer(), 1, "jsonl: not recorded: create_call, hang_up, play,"),
    ("acs-requests", answer(',"operationContext":"o"', ',"operationContexts":"o"'), 1, ":1: operationContexts: no such key"),
    ("acs-requests", answer('"callbackUri":"https://gw.example.com/cb",'), 1, ":1: callbackUri: missing"),
    ("acs-requests", answer("pcm24KMono", "pcm24kmono"), 1, "audioFormat: 'pcm24kmono' is no AudioFormat"),
    ("acs-requests", answer('"websocket"', '"socket"'), 1, "mediaStreamingOptions.transportType: 'socket'"),
    ("acs-requests", answer('Tones":true', 'Tones":"true"'), 1, "enableDtmfTones: 'true' is no bool"),
    ("acs-requests", answer('"enableBidirectional":true,'), 1, ":1: body: the client sends"),
    ("acs-requests", answer(line=LINE.replace(":answer", "/answer")), 1, ":1: line: the client sends POST"),
    ("acs-requests", answer(line=LINE.replace("POST", "PUT")), 1, ":1: line: the client sends POST"),
    ("acs-requests", answer(host="127.0.0.1"), 1, ":1: host: the client's is 127.0.0.1:5050"),
    ("acs-requests", answer(content_type=None), 1, ":1: content-type: "),
    ("acs-requests", answer(repeatability_request_id="1"), 1, ":1: repeatability-request-id: "),
    ("acs-requests", answer(repeatability_first_sent=None), 1, ":1: repeatability-request-id: "),
    ("acs-requests", answer(x_ms_date="Tue, 06 Jan 2026 10:20:31 GMT"), 1, ":1: authorization: "),
    ("acs-requests", answer(x_ms_date="2026-01-06T10:20:30Z"), 1, ":1: x-ms-date: "),
    ("acs-requests", answer(x_ms_content_sha256="AAAA"), 1, ":1: x-ms-content-sha256: "),
    ("acs-media", f"{AUDIO}\n{STOP}", 0, "2 legal acs-media"),
    ("acs-media", AUDIO, 1, "not recorded: StopAudio"),
    ("acs-media", AUDIO.replace("AAAA////", "AAAA"), 1, "3 bytes"),
    ("acs-media", AUDIO.replace("AAAA////", "a b"), 1, ":1: audioData.data: not base64"),
    ("acs-media", AUDIO.replace('"AAAA////"', "7"), 1, ":1: audioData.data: not base64"),
    ("acs-media", AUDIO.replace('"data"', '"Data"'), 1, ":1: audioData: the keys are"),
    ("acs-media", '{"kind":"StopAudio","stopAudio":null}', 1, ":1: stopAudio: not an object"),
    ("acs-media", '{"kind":"stopAudio","stopAudio":{}}', 1, ":1: kind: no event"),
    ("twilio-signatures", signed([PLAIN, WITH_PORT], ["x"]), 1, "jsonl: not recorded: HMAC_SHA256"),
    ("twilio-signatures", signed([PLAIN]), 1, "by which Twilio signs https://voice.example.com:443/"),
    ("twilio-signatures", signed([PLAIN, WITH_PORT, "x"]), 1, ":1: accepted: 'x' is not valid"),
    ("twilio-signatures", signed([WITH_PORT], [PLAIN]), 1, f":1: refused: '{PLAIN}' is valid"),
    ("twilio-signatures", signed([PLAIN, WITH_PORT], algorithm="HMAC_SHA256"), 1, f":1: accepted: '{PLAIN}' is not"),
    ("twilio-simulator", signed([PLAIN]), 0, "1 legal twilio-simulator"),
    ("twilio-simulator", signed([PLAIN], fields=[("Digits", "2")]), 1, ":1: accepted: "),
    ("twilio-documents", document(f'{STREAM}<Say language="he-IL">a</Say>'), 0, "1 legal twilio-documents"),
    ("twilio-documents", document(STREAM.replace("url", "uri")), 1, "busy.xml: Response/Connect/Stream has no attribute uri"),
    ("twilio-documents", document(STREAM.replace("Stream", "Streams")), 1, "busy.xml: Response/Connect has no Streams in it"),
    ("twilio-documents", document('<Hangup reason="busy"/>'), 1, "busy.xml: Response/Hangup has no attribute reason"),
    ("twilio-documents", document("<Hangup>now</Hangup>"), 1, "busy.xml: Response/Hangup has no text"),
    ("twilio-documents", document("bye"), 1, "busy.xml: Response has no text"),
    ("twilio-documents", document("<Say>a"), 1, "busy.xml: not XML"),
    ("twilio-documents", document("").replace("Response", "Answer"), 1, "busy.xml: begins with Answer"),
]
