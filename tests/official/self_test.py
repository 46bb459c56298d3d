"""Shows that check.py can fail: a check that cannot is worth nothing."""

import contextlib
import io
import os
import tempfile

import carrier_samples
import check

UPDATE = (
    '{"type":"session.update","session":{"type":"realtime","output_modalities":["audio"],'
    '"audio":{"input":{"format":{"type":"audio/pcmu"},"turn_detection":'
    '{"type":"server_vad","threshold":0.5}},"output":{"format":{"type":"audio/pcmu"},"voice":"marin"}}}}'
)
FLAT = (
    '{"type":"session.update","session":{"modalities":["text","audio"],"input_audio_format":"g711_ulaw",'
    '"input_audio_sampling_rate":8000,"output_audio_format":"g711_ulaw","voice":{"type":"azure-standard",'
    '"name":"he-IL-HilaNeural"},"turn_detection":{"type":"azure_semantic_vad","threshold":0.5},'
    '"input_audio_transcription":{"model":"azure-speech","language":"he-IL"}}}'
)
CASES = [
    # side, text, expected exit, what has to be named
    ("client", UPDATE, 0, "1 session.update"),
    ("client", '{"type":"input_audio_buffer.append","audio":"////"}', 0, "1 input"),
    ("client", '{"type":"response.create"}\n\n{"type":"response.cancel"}', 0, "2 legal"),
    ("client", '{"type":"conversation.item.truncate","item_id":"i","content_index":0,"audio_end_ms":100}', 0, ""),
    ("client", "", 1, "empty"),
    ("client", "\n \n", 1, "empty"),
    ("client", None, 1, "nothing to check"),
    ("client", "{", 1, ":1: the line: not JSON"),
    ("client", "[]", 1, ":1: type: no event"),
    ("client", '{"type":"session.updat"}', 1, "'session.updat'"),
    ("client", '{"type":"response.create"}\n{"type":"response.cancel","x":1}', 1, ":2: x: "),
    ("client", '{"type":"input_audio_buffer.append"}', 1, ":1: audio: "),
    ("client", '{"type":"input_audio_buffer.append","audio":"a b"}', 1, "not base64"),
    ("client", '{"type":"conversation.item.truncate","item_id":"i","content_index":0,"audio_end_ms":"100"}', 1, "audio_end_ms"),
    ("client", UPDATE.replace('"type":"audio/pcmu"', '"type":"audio/pcmu","rate":8000', 1), 1, "rate"),
    ("client", UPDATE.replace('"type":"realtime"', '"type":"realtime","voice":"marin"'), 1, "voice"),
    ("server", '{"type":"input_audio_buffer.speech_started","event_id":"e","item_id":"i","audio_start_ms":1}', 0, "1 legal server"),
    ("server", '{"type":"input_audio_buffer.speech_started","event_id":"e","item_id":"i","audio_start_ms":"1"}', 1, "audio_start_ms"),
    ("server", '{"type":"response.output_audio.delta","event_id":"e"}', 1, "response_id"),
    ("server", "", 1, "empty"),
    ("voice-live-client", FLAT, 0, "1 session.update"),
    ("voice-live-client", '{"type":"response.create","response":{"instructions":"Greet."}}', 0, "1 legal"),
    ("voice-live-client", UPDATE, 1, ":1: session.audio: no such key"),
    ("voice-live-client", FLAT.replace('"azure-standard"', '"azure-usual"'), 1, "session.voice"),
    ("voice-live-client", FLAT.replace('"azure_semantic_vad"', '"semantic"'), 1, "session.turn_detection.type"),
    ("voice-live-client", FLAT.replace("0.5", '"0.5"'), 1, "session.turn_detection.threshold"),
    ("voice-live-client", FLAT.replace("8000", "8000.5"), 1, "session.input_audio_sampling_rate"),
    ("voice-live-client", FLAT.replace('"output_audio_format":"g711_ulaw"', '"output_audio_format":"audio/pcmu"'), 1, "session.output_audio_format"),
    ("voice-live-client", FLAT.replace('"name"', '"called"'), 1, "session.voice.name: missing"),
    ("voice-live-client", '{"type":"input_audio_buffer.append","audio":"a b"}', 1, "not base64"),
    ("voice-live-client", '{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"5"}]}}', 0, "1 legal"),
    ("voice-live-client", '{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","texts":"5"}]}}', 1, "item.content.0.text"),
    ("voice-live-server", '{"type":"input_audio_buffer.speech_started","event_id":"e","item_id":"i","audio_start_ms":1}', 0, "1 legal voice-live-server"),
    ("voice-live-server", '{"type":"response.audio.delta","event_id":"e","response_id":"r"}', 1, "item_id: missing"),
    ("voice-live-server", '{"type":"response.output_audio.delta"}', 1, "no event"),
    *carrier_samples.CASES,
]


def outcome(side, text):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "events.jsonl")
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = check.main([side, path])
        return code, said.getvalue()


for side, text, expected, named in CASES:
    code, said = outcome(side, text)
    assert code == expected and named in said, f"{text!r}: exit {code}, said {said!r}"
print(f"check.py: {len(CASES)} good and bad samples are told apart")
