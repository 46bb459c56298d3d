use super::*;

fn decoded(message: &str) -> Result<Event, Garbled> {
    let message = Bytes::from(message.to_owned());
    decode(&message, Dialect::OpenAi, Encoding::Mulaw)
}

#[test]
fn audio_is_taken_out_of_its_message_without_a_copy() {
    let message = Bytes::from_static(
        br#"{"type":"response.output_audio.delta","event_id":"e12","response_id":"resp_1","item_id":"item_a1","output_index":0,"content_index":0,"delta":"//9/f39/"}"#,
    );
    let decoded = decode(&message, Dialect::OpenAi, Encoding::Mulaw);
    let Ok(Event::Input(Input::AgentAudio { item, chunk })) = decoded else {
        panic!("audio expected");
    };
    assert_eq!(item.as_bytes(), b"item_a1");
    assert_eq!(chunk.samples(), [0xFF, 0xFF, 0x7F, 0x7F, 0x7F, 0x7F]);
    assert!(message.as_ptr_range().contains(&chunk.text().as_ptr()));
}

#[test]
fn what_the_agent_reports_becomes_what_happened() {
    use Answered::{Cancelled, CutShort, Failed, Fully, TryAgain, Withheld};
    let done = |response: &str| {
        decoded(&format!(
            r#"{{"type":"response.done","response":{response}}}"#
        ))
    };
    for (response, expected) in [
        (r#"{"status":"completed"}"#, Fully),
        (
            r#"{"status":"cancelled","status_details":{"reason":"turn_detected"}}"#,
            Cancelled,
        ),
        (
            r#"{"status":"incomplete","status_details":{"reason":"max_output_tokens"}}"#,
            CutShort,
        ),
        (
            r#"{"status":"incomplete","status_details":{"reason":"content_filter"}}"#,
            Withheld,
        ),
        (r#"{"status":"failed"}"#, TryAgain(FAILURE_WAIT)),
        (
            r#"{"status":"failed","status_details":{"error":{"code":"rate_limit_exceeded","message":"try again in 1.2s"}}}"#,
            TryAgain(Duration::from_millis(1_200)),
        ),
        (
            r#"{"status":"failed","status_details":{"error":{"code":"rate_limit_exceeded"}}}"#,
            TryAgain(RATE_LIMIT_WAIT),
        ),
        (
            r#"{"status":"failed","status_details":{"error":{"type":"insufficient_quota"}}}"#,
            Failed,
        ),
    ] {
        assert_eq!(
            done(response),
            Ok(Event::Answered(expected, 0)),
            "{response}"
        );
    }
    for (message, expected) in [
        (
            r#"{"type":"input_audio_buffer.speech_started","audio_start_ms":1480}"#,
            Input::AgentInterrupted,
        ),
        (
            r#"{"type":"response.created","response":{"id":"resp_1"}}"#,
            Input::AgentAnswering,
        ),
        (r#"{"type":"something.new"}"#, Input::AgentAlive),
    ] {
        assert_eq!(decoded(message), Ok(Event::Input(expected)), "{message}");
    }
}

#[test]
fn a_session_fits_only_with_telephone_audio_both_ways() {
    let updated = |input: &str, output: &str| {
        decoded(&format!(
            r#"{{"type":"session.updated","session":{{"audio":{{"input":{{"format":{{"type":"{input}"}}}},"output":{{"format":{{"type":"{output}"}}}}}}}}}}"#
        ))
    };
    for (input, output, fits) in [
        ("audio/pcmu", "audio/pcmu", true),
        ("audio/pcm", "audio/pcmu", false),
        ("audio/pcmu", "audio/pcm", false),
    ] {
        assert_eq!(updated(input, output), Ok(Event::Updated { fits }));
    }
    let bare = decoded(r#"{"type":"session.updated","session":{}}"#);
    assert_eq!(bare, Ok(Event::Updated { fits: false }));
}

#[test]
fn rate_limits_are_told_by_what_they_count() {
    let updated = r#"{"type":"rate_limits.updated","rate_limits":[{"name":"tokens","limit":40000,"remaining":38650,"reset_seconds":2.02},{"name":"requests","limit":10,"remaining":-1},{"name":"new","remaining":1}]}"#;
    let limits = vec![(Limit::Tokens, 38_650), (Limit::Requests, 0)];
    assert_eq!(decoded(updated), Ok(Event::Limits(limits)));
}

#[test]
fn garbage_is_garbled() {
    for message in [
        "",
        "{",
        "[]",
        r#"{"type":7}"#,
        r#"{"type":"response.output_audio.delta","item_id":"i"}"#,
        r#"{"type":"response.output_audio.delta","item_id":"i","delta":"a\"b"}"#,
        r#"{"type":"response.output_audio.delta","item_id":"i","delta":"AAA"}"#,
        r#"{"type":"response.output_audio.delta","delta":"AAAA"}"#,
        r#"{"type":"response.done"}"#,
        r#"{"type":"error"}"#,
    ] {
        assert_eq!(decoded(message), Err(Garbled), "{message}");
    }
}

#[test]
fn complaints_are_told_apart() {
    let complaint = |error: &str| decoded(&format!(r#"{{"type":"error","error":{error}}}"#));
    for (error, expected) in [
        (r#"{"code":"session_expired"}"#, Complaint::Expired),
        (
            r#"{"type":"invalid_request_error","code":"invalid_api_key"}"#,
            Complaint::Fatal("invalid_api_key".into()),
        ),
        (
            r#"{"type":"insufficient_quota"}"#,
            Complaint::Fatal("insufficient_quota".into()),
        ),
        (
            r#"{"code":"response_cancel_not_active"}"#,
            Complaint::Harmless("response_cancel_not_active".into()),
        ),
    ] {
        assert_eq!(complaint(error), Ok(Event::Complaint(expected)), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn no_message_makes_us_panic(message in ".{0,200}") {
        let _ = decoded(&message);
    }
}

#[test]
fn an_answer_says_what_it_has_used_up_if_it_can_be_believed() {
    for (usage, tokens) in [
        (
            r#"{"total_tokens":412,"input_tokens":331,"output_tokens":81}"#,
            412,
        ),
        (r#"{"total_tokens":99999999999}"#, MOST_TOKENS),
        (r#"{"total_tokens":-5}"#, 0),
        (r#"{"total_tokens":"412"}"#, 0),
        (r#"{"seconds":3.5}"#, 0),
        ("[412]", 0),
        ("null", 0),
    ] {
        let message = format!(
            r#"{{"type":"response.done","response":{{"status":"completed","usage":{usage}}}}}"#
        );
        let answered = decode(&Bytes::from(message), Dialect::OpenAi, Encoding::Mulaw);
        assert_eq!(
            answered,
            Ok(Event::Answered(Answered::Fully, tokens)),
            "{usage}"
        );
    }
}

#[test]
fn a_tool_is_used_once_its_call_is_complete_and_within_bounds() {
    let done = |item: &str| {
        let message = format!(r#"{{"type":"response.output_item.done","item":{item}}}"#);
        decoded(&message)
    };
    let call = |id: &str, tool: &str, arguments: Option<&str>| {
        Ok(Event::Input(Input::ToolCalled(ToolCall {
            id: id.to_owned(),
            tool: tool.to_owned(),
            arguments: arguments.map(str::to_owned),
        })))
    };
    let item = r#"{"type":"function_call","status":"completed","call_id":"call_77","name":"find_slot","arguments":"{\"day\":\"tuesday\"}"}"#;
    assert_eq!(
        done(item),
        call("call_77", "find_slot", Some(r#"{"day":"tuesday"}"#))
    );
    let long = |length| {
        let arguments = "x".repeat(length);
        format!(
            r#"{{"type":"function_call","status":"completed","call_id":"c","name":"{}","arguments":"{arguments}"}}"#,
            "n".repeat(500)
        )
    };
    let name = "n".repeat(LONGEST_ID);
    let most = "x".repeat(LONGEST_ARGUMENTS);
    assert_eq!(
        done(&long(LONGEST_ARGUMENTS)),
        call("c", &name, Some(&most))
    );
    assert_eq!(done(&long(LONGEST_ARGUMENTS + 1)), call("c", &name, None));
    for cut_off in [
        r#"{"type":"function_call","status":"incomplete","call_id":"c","name":"n","arguments":"{\"d"}"#,
        r#"{"type":"function_call","call_id":"c","name":"n","arguments":"{}"}"#,
        r#"{"type":"message","status":"completed","content":[]}"#,
    ] {
        assert_eq!(
            done(cut_off),
            Ok(Event::Input(Input::AgentAlive)),
            "{cut_off}"
        );
    }
    let endless = format!(
        r#"{{"type":"function_call","status":"completed","call_id":"{}","name":"n"}}"#,
        "c".repeat(LONGEST_ID + 1)
    );
    for bad in [
        "7",
        r#"{"type":"function_call","status":"completed","name":"n"}"#,
        r#"{"type":"function_call","status":"completed","call_id":"c"}"#,
        &endless,
    ] {
        assert_eq!(done(bad), Err(Garbled), "{bad}");
    }
    let told = "response.function_call_arguments.done";
    let told = format!(r#"{{"type":"{told}","call_id":"c","name":"n","arguments":"{{}}"}}"#);
    assert_eq!(
        decoded(&told),
        Ok(Event::Input(Input::AgentAlive)),
        "once is enough"
    );
}
