use super::*;

#[test]
fn what_twilio_would_stumble_over_is_found_where_it_stands() {
    for (body, at, what) in [
        ("<Say>a</say>", 6, "</say> does not close <Say>"),
        ("<Say>a", 6, "</Response> does not close <Say>"),
        ("<say>a</say>", 0, "TwiML has no <say>; <Say> is written so"),
        (
            "<Message>a</Message>",
            0,
            "TwiML has no <Message> in <Response>",
        ),
        (
            "<Hangup>bye</Hangup>",
            8,
            "text in <Hangup>, where nobody hears it",
        ),
        (" hello", 1, "text in <Response>, where nobody hears it"),
        (
            "<Say>a & b</Say>",
            7,
            "entity or character reference not closed: `;` not found before end of input",
        ),
        ("<Say>&nbsp;</Say>", 5, "XML knows no `&nbsp;`"),
        ("<Say>&#1;</Say>", 5, "XML has no such character as `&#1;`"),
        (
            "<Say>a ]]> b</Say>",
            7,
            "`]]>` in a text has to be `]]&gt;`",
        ),
        (
            "<Say voice=a>a</Say>",
            11,
            "an attribute's value has no quotes",
        ),
        (
            "<Say a=\"1\" a=\"2\">a</Say>",
            11,
            "an attribute is given twice",
        ),
        (
            "<Say a=\"1\"b=\"2\">a</Say>",
            10,
            "a blank is missing before `b`",
        ),
        (
            "<Play loop=\"<\">a</Play>",
            6,
            "`<` in the value of `loop` has to be `&lt;`",
        ),
        (
            "<Play loop=\"a&b\">a</Play>",
            6,
            "an `&` in the value of `loop` has to be `&amp;`",
        ),
        (
            "<!-- a -- b -->",
            7,
            "forbidden string `--` was found in a comment",
        ),
        (
            "<![CDATA[a]]>",
            0,
            "CDATA is not escaped: a caller would hear `&amp;` in its values",
        ),
        ("<?php ?>", 0, "TwiML has no processing instructions"),
        ("<Say>\u{1}</Say>", 5, "XML has no character U+0001"),
        (
            "</Response><Say>a</Say>",
            11,
            "<Say> stands behind the end of <Response>",
        ),
    ] {
        let before = format!("{PROLOG}<Response>");
        let found = read(&format!("{before}{body}</Response>")).unwrap_err();
        assert_eq!(found, flaw(before.len() + at, what), "{body}");
    }
}

#[test]
fn a_document_begins_with_its_prolog_and_is_one_response() {
    for (document, what) in [
        (
            "",
            "the first bytes have to be <?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        ),
        (
            "\u{FEFF}<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>",
            "the first bytes have to be <?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        ),
        (PROLOG, "the document has no <Response>"),
        (&format!("{PROLOG}<Response>"), "<Response> is never closed"),
        (
            &format!("{PROLOG}<html/>"),
            "the document is a <html>; it has to be a <Response>",
        ),
        (
            &format!("{PROLOG}<!DOCTYPE a><Response/>"),
            "TwiML has no document type",
        ),
        (
            &format!("{PROLOG}<Response/>{PROLOG}"),
            "a second XML declaration",
        ),
        (
            &format!("{PROLOG}<Response/>bye"),
            "text outside <Response>",
        ),
    ] {
        assert_eq!(read(document).unwrap_err().what, what, "{document}");
    }
}

#[test]
fn a_voice_is_not_asked_for_more_than_it_can_say() {
    for (voice, letter, most) in [
        ("Polly.Joanna", "a", 3000),
        ("Google.he-IL-Wavenet-A", "ש", 750),
        ("Google.en-US-Wavenet-A", "a", 4500),
        ("alice", "a", 4096),
    ] {
        let say = |letters: usize| {
            let text = letter.repeat(letters);
            format!(r#"{PROLOG}<Response><Say voice="{voice}">{text}</Say></Response>"#)
        };
        assert!(read(&say(most)).is_ok(), "{voice}");
        assert!(read(&say(most + 1)).is_err(), "{voice}");
    }
}

#[test]
fn a_document_or_parameter_over_twilios_limit_is_found() {
    let document = format!(
        "{PROLOG}<Response>{}</Response>",
        " ".repeat(LARGEST_DOCUMENT)
    );
    assert!(
        read(&document)
            .unwrap_err()
            .what
            .ends_with("more than Twilio reads")
    );
    let ticket = "t".repeat(494);
    let document = format!(
        r#"{PROLOG}<Response><Connect><Stream><Parameter name="ticket" value="{ticket}"/></Stream></Connect></Response>"#
    );
    assert!(
        read(&document)
            .unwrap_err()
            .what
            .contains("<Parameter> of 500 bytes")
    );
}

#[test]
fn an_elements_text_is_what_is_said_in_it() {
    let document =
        format!("{PROLOG}<Response><Say>a<break/> <prosody>&lt;b&#10;</prosody>c</Say></Response>");
    let elements = read(&document).unwrap();
    assert_eq!(elements[1].text, "a <b\nc");
    let outline: Vec<_> = elements
        .iter()
        .map(|e| (e.depth, e.name.as_str()))
        .collect();
    assert_eq!(
        outline,
        [(0, "Response"), (1, "Say"), (2, "break"), (2, "prosody")]
    );
}
