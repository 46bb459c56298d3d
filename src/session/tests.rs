#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one thing and lets the rest pass"
)]

mod any_call;
mod tools;

use bytes::Bytes;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn frames(count: usize) -> Chunk {
    Chunk::encode(&vec![0x7F; 160 * count], Encoding::Mulaw)
}

fn heard(at: u64) -> Input {
    Input::CallerAudio {
        chunk: frames(1),
        starts_at: MS(at),
    }
}

fn item(name: &'static str) -> ItemId {
    ItemId::new(Bytes::from_static(name.as_bytes()))
}

fn spoken(name: &'static str, count: usize) -> Input {
    Input::AgentAudio {
        item: item(name),
        chunk: frames(count),
    }
}

fn session() -> Session {
    Session::new(
        Duration::ZERO,
        Terms {
            encoding: Encoding::Mulaw,
            follows: Follows::Marks,
            greets: false,
            longest_call: Duration::from_secs(600),
        },
    )
}

fn talking() -> Session {
    let mut session = session();
    play(&mut session, 0, Input::AgentReady);
    session
}

fn play(session: &mut Session, at: u64, input: Input) -> Vec<Output> {
    session.handle(MS(at), input).collect()
}

/// Returns the last mark among `outputs`.
fn mark_of(outputs: &[Output]) -> Option<Mark> {
    outputs.iter().rev().find_map(|output| match output {
        Output::MarkPlayback(mark) => Some(*mark),
        _ => None,
    })
}

fn total(outputs: &[Output]) -> Duration {
    let durations = outputs.iter().map(|output| match output {
        Output::PlayToCaller(chunk) => chunk.duration(),
        _ => Duration::ZERO,
    });
    durations.sum()
}

/// Returns the turns among `outputs`.
fn turns(outputs: &[Output]) -> Vec<Turn> {
    let turns = outputs.iter().filter_map(|output| match output {
        Output::Turn(turn) => Some(*turn),
        _ => None,
    });
    turns.collect()
}

#[test]
fn a_turn_is_split_into_what_the_caller_the_agent_and_the_way_have_taken() {
    let mut session = talking();
    play(&mut session, 100, Input::AgentInterrupted);
    assert_eq!(turns(&play(&mut session, 700, Input::AgentWillAnswer)), []);
    let outputs = play(&mut session, 1_000, spoken("answer", 9));
    assert_eq!(turns(&outputs), [], "nobody has heard it yet");
    let mark = mark_of(&outputs).unwrap();
    let outputs = play(&mut session, 1_250, Input::CallerHeard(mark));
    let turn = Turn {
        spoke: Some(MS(600)),
        answer: Some(MS(300)),
        sent: Some(MS(0)),
        played: Some(MS(250)),
        interrupted: false,
    };
    assert_eq!(turns(&outputs), [turn]);
    assert_eq!(
        turns(&play(&mut session, 1_300, spoken("answer", 9))),
        [],
        "once"
    );
}

#[test]
fn a_turn_that_nobody_hears_ends_with_what_is_known() {
    let mut session = talking();
    play(&mut session, 0, Input::AgentWillAnswer);
    play(&mut session, 400, spoken("one", 90));
    let outputs = play(&mut session, 500, Input::AgentInterrupted);
    let turn = Turn {
        answer: Some(MS(400)),
        sent: Some(MS(0)),
        interrupted: true,
        ..Turn::default()
    };
    assert_eq!(turns(&outputs), [turn]);
    play(&mut session, 900, Input::AgentWillAnswer);
    let outputs = play(&mut session, 1_000, Input::CallerHungUp);
    let unanswered = Turn {
        spoke: Some(MS(400)),
        ..Turn::default()
    };
    assert_eq!(turns(&outputs), [unanswered]);
    assert!(matches!(outputs.last(), Some(Output::End(_))));
}

#[test]
fn first_words_wait_for_the_agent_and_go_out_in_order() {
    let mut session = session();
    for frame in 0..3_u8 {
        let input = Input::CallerAudio {
            chunk: Chunk::encode(&[frame; 160], Encoding::Mulaw),
            starts_at: MS(u64::from(frame) * 20),
        };
        assert_eq!(play(&mut session, u64::from(frame) * 20, input), []);
    }
    let sent = play(&mut session, 60, Input::AgentReady);
    let expected =
        [0, 1, 2].map(|frame| Output::SendToAgent(Chunk::encode(&[frame; 160], Encoding::Mulaw)));
    assert_eq!(sent, expected);
    assert_eq!(
        play(&mut session, 60, heard(60)),
        [Output::SendToAgent(frames(1))]
    );
}

#[test]
fn only_so_much_of_the_first_words_is_kept() {
    let mut session = session();
    for frame in 0..1_000 {
        play(&mut session, frame, heard(frame * 20));
    }
    let sent = play(&mut session, 1_000, Input::AgentReady);
    assert_eq!(sent.len(), 250, "five seconds of frames");
}

#[test]
fn an_agent_is_asked_to_greet_once_it_is_there() {
    let mut session = Session::new(
        Duration::ZERO,
        Terms {
            encoding: Encoding::Mulaw,
            follows: Follows::Marks,
            greets: true,
            longest_call: Duration::from_secs(600),
        },
    );
    assert_eq!(play(&mut session, 5, Input::AgentReady), [Output::Greet]);
    assert_eq!(play(&mut session, 9, Input::AgentReady), []);
}

#[test]
fn every_wait_ends() {
    let ends = |mut session: Session, inputs: Vec<(u64, Input)>, reason: EndReason| {
        for (at, input) in inputs {
            assert_eq!(
                play(&mut session, at, input)
                    .iter()
                    .find(|it| matches!(it, Output::End(_))),
                None
            );
        }
        let due = session.deadline();
        let outputs: Vec<Output> = session.handle(due, Input::Tick).collect();
        assert_eq!(outputs.last(), Some(&Output::End(reason)), "at {due:?}");
    };
    ends(session(), vec![], EndReason::AgentTooSlow);
    ends(talking(), vec![], EndReason::MediaStalled);
    let keep_talking = |until: u64| (0..until / 20).map(|n| (n * 20, heard(n * 20)));
    let owed = keep_talking(100)
        .chain([(100, Input::AgentAnswering)])
        .chain([(8_099, heard(8_080))]);
    ends(talking(), owed.collect(), EndReason::AgentStalled);
    let mut short = Session::new(
        Duration::ZERO,
        Terms {
            encoding: Encoding::Mulaw,
            follows: Follows::Marks,
            greets: false,
            longest_call: MS(1_000),
        },
    );
    play(&mut short, 0, Input::AgentReady);
    ends(short, vec![(999, heard(0))], EndReason::TooLong);
}

#[test]
fn natural_silence_of_the_agent_is_no_stall() {
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    play(&mut session, 100, Input::AgentAnswered(Answered::Fully));
    for n in 0..3_000 {
        play(&mut session, 100 + n * 20, heard(n * 20));
        let outputs = play(&mut session, 100 + n * 20, Input::Tick);
        assert_eq!(outputs, [], "at {}", n * 20);
    }
}

#[test]
fn a_burst_of_speech_is_fed_to_the_carrier_as_it_is_played() {
    let mut session = talking();
    let outputs = play(&mut session, 0, spoken("a", 500)); // Ten seconds at once.
    let mut sent = total(&outputs);
    assert!(sent <= MS(2_100), "{sent:?} at once");
    let mut now = Duration::ZERO;
    while sent < MS(10_000) {
        let due = session.deadline();
        assert!(due > now, "a deadline that passed must move");
        now = due;
        play(
            &mut session,
            u64::try_from(now.as_millis()).unwrap(),
            heard(0),
        );
        let outputs: Vec<Output> = session.handle(now, Input::Tick).collect();
        sent += total(&outputs);
        assert!(sent <= now + MS(2_100), "{sent:?} by {now:?}");
    }
    assert_eq!(sent, MS(10_000));
}

#[test]
fn too_much_speech_stops_the_reading_of_the_agent() {
    let mut session = talking();
    assert!(session.wants_agent());
    play(&mut session, 0, spoken("a", 50 * 40));
    assert!(!session.wants_agent());
}

#[test]
fn an_interruption_clears_first_and_truncates_at_what_was_heard() {
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    let mut first_mark = None;
    for _ in 0..50 {
        let outputs = play(&mut session, 0, spoken("a", 1));
        first_mark = first_mark.or(mark_of(&outputs));
    }
    play(&mut session, 210, Input::CallerHeard(first_mark.unwrap()));
    let outputs = play(&mut session, 300, Input::AgentInterrupted);
    let heard = Interrupted::Heard {
        item: item("a"),
        heard: MS(180),
    };
    assert_eq!(outputs, [Output::ClearPlayback, Output::Truncate(heard)]);
    // What was under way is not heard any more, nor are the marks that the clear returned.
    assert_eq!(play(&mut session, 310, spoken("a", 1)), []);
    assert_eq!(play(&mut session, 310, spoken("b", 1)), []);
    play(&mut session, 320, Input::AgentAnswered(Answered::Cancelled));
    play(&mut session, 320, Input::CallerHeard(first_mark.unwrap()));
    play(&mut session, 900, Input::AgentAnswering);
    assert_eq!(total(&play(&mut session, 900, spoken("c", 1))), MS(20));
}

#[test]
fn what_was_not_heard_at_all_is_forgotten() {
    let mut session = talking();
    play(&mut session, 0, spoken("a", 10));
    play(&mut session, 0, spoken("b", 10));
    let outputs = play(&mut session, 10, Input::AgentInterrupted);
    let unheard = |name| Output::Truncate(Interrupted::Unheard { item: item(name) });
    assert_eq!(outputs, [Output::ClearPlayback, unheard("a"), unheard("b")]);
}

#[test]
fn an_answer_that_was_heard_to_its_end_is_not_truncated() {
    let mut session = talking();
    let outputs = play(&mut session, 0, spoken("a", 5));
    assert_eq!(mark_of(&outputs), None, "less than a mark's distance");
    let outputs = play(&mut session, 0, Input::AgentFinished(item("a")));
    let last = mark_of(&outputs).expect("the end of an item has a mark");
    play(&mut session, 100, Input::CallerHeard(last));
    assert_eq!(play(&mut session, 200, Input::AgentInterrupted), []);
}

#[test]
fn the_flush_does_not_depend_on_whether_the_agent_still_generates() {
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    play(&mut session, 0, spoken("a", 200));
    play(&mut session, 5, Input::AgentFinished(item("a")));
    play(&mut session, 5, Input::AgentAnswered(Answered::Fully));
    let outputs = play(&mut session, 1_000, Input::AgentInterrupted);
    assert_eq!(outputs.first(), Some(&Output::ClearPlayback));
    assert!(
        session.playback.deadline().is_none(),
        "nothing waits any more"
    );
}

#[test]
fn an_answer_that_fails_for_the_moment_is_asked_for_again() {
    let mut session = talking();
    let again = Input::AgentAnswered(Answered::TryAgain(MS(700)));
    for at in [0, 1_000] {
        assert_eq!(play(&mut session, at, again.clone()), []);
        play(&mut session, at + 600, heard(at));
        assert_eq!(play(&mut session, at + 700, Input::Tick), [Output::Answer]);
    }
    let end = [Output::End(EndReason::AgentFailed)];
    assert_eq!(play(&mut session, 2_000, again), end);
    let mut session = talking();
    assert_eq!(
        play(&mut session, 0, Input::AgentAnswered(Answered::Failed)),
        end
    );
    let mut session = talking();
    let cut = Input::AgentAnswered(Answered::CutShort);
    assert_eq!(play(&mut session, 0, cut), [Output::Answer]);
}

#[test]
fn a_hole_in_the_callers_audio_is_filled_with_silence() {
    let mut session = talking();
    play(&mut session, 0, heard(100));
    let outputs = play(&mut session, 20, heard(420));
    assert_eq!(outputs[1], Output::Filled(MS(300)));
    assert_eq!(
        outputs[0],
        Output::SendToAgent(Chunk::silence(MS(300), Encoding::Mulaw))
    );
    assert_eq!(outputs[2], Output::SendToAgent(frames(1)));
    // A carrier that sends nothing at all: silence goes out while it lasts, once.
    assert_eq!(session.deadline(), MS(1_020));
    let outputs = play(&mut session, 1_020, Input::Tick);
    assert_eq!(outputs.last(), Some(&Output::Filled(MS(1_000))));
    assert_eq!(
        play(&mut session, 1_030, heard(1_440)),
        [Output::SendToAgent(frames(1))]
    );
}

#[test]
fn keys_are_told_to_the_agent() {
    let mut session = talking();
    let told = play(&mut session, 0, Input::CallerPressed('5'));
    assert_eq!(told, [Output::TellAgentPressed('5'), Output::Answer]);
    play(&mut session, 0, Input::AgentAnswering);
    let told = play(&mut session, 0, Input::CallerPressed('#'));
    assert_eq!(told, [Output::TellAgentPressed('#')]);
}

#[test]
fn without_marks_the_clock_tells_what_was_heard() {
    let mut session = Session::new(
        Duration::ZERO,
        Terms {
            encoding: Encoding::Mulaw,
            follows: Follows::Clock,
            greets: false,
            longest_call: Duration::from_secs(600),
        },
    );
    play(&mut session, 0, Input::AgentReady);
    play(&mut session, 0, Input::AgentAnswering);
    let sent = play(&mut session, 1_000, spoken("a", 100));
    assert!(mark_of(&sent).is_none());
    play(&mut session, 1_000, Input::AgentFinished(item("a")));
    // Two seconds, of which 730 ms have been played: an interruption is exact within a piece.
    let cut = play(&mut session, 1_730, Input::AgentInterrupted);
    let heard = Output::Truncate(Interrupted::Heard {
        item: item("a"),
        heard: MS(730),
    });
    assert_eq!(cut, [Output::ClearPlayback, heard]);
    // What has been heard to its end is not cut.
    play(&mut session, 2_000, Input::AgentAnswering);
    play(&mut session, 2_000, spoken("b", 10));
    play(&mut session, 2_000, Input::AgentFinished(item("b")));
    let cut = play(&mut session, 2_201, Input::AgentInterrupted);
    assert_eq!(cut, []);
}

#[test]
fn tones_follow_what_is_said_and_outlive_a_caller_who_speaks() {
    let mut session = talking();
    let tones = Chunk::encode(&vec![0x11; 160 * 200], Encoding::Mulaw);
    let begun = play(&mut session, 0, Input::ToneReady(tones));
    assert!(
        total(&begun) > LEAD_MS && total(&begun) < MS(1_400),
        "{:?}",
        total(&begun)
    );
    assert_eq!(mark_of(&begun), None, "nobody asks what was heard of them");
    assert_eq!(play(&mut session, 100, Input::AgentInterrupted), []);
    let mut rest = total(&begun);
    for at in 1..8 {
        rest += total(&play(&mut session, at * 500, Input::Tick));
    }
    assert_eq!(rest, MS(4_000));
}

const LEAD_MS: Duration = Duration::from_secs(1);

fn session_terms() -> Terms {
    Terms {
        encoding: Encoding::Mulaw,
        follows: Follows::Marks,
        greets: false,
        longest_call: Duration::from_secs(600),
    }
}
