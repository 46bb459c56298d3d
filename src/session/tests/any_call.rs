//! What holds of every call, whatever happens in it.

use proptest::{collection::vec as vec_of, prelude::*};

use super::*;

fn any_input() -> impl Strategy<Value = Input> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let answered = prop_oneof![
        Just(Answered::Fully),
        Just(Answered::Cancelled),
        Just(Answered::CutShort),
        Just(Answered::Withheld),
        Just(Answered::TryAgain(MS(200))),
    ];
    prop_oneof![
        8 => (0..60_000_u64).prop_map(heard),
        8 => (name.clone(), 1..80_usize).prop_map(|(name, count)| spoken(name, count)),
        6 => (0..4_u32, 0..40_u32)
            .prop_map(|(generation, number)| Input::CallerHeard(Mark { generation, number })),
        3 => Just(Input::AgentReady),
        3 => Just(Input::AgentInterrupted),
        3 => Just(Input::AgentAnswering),
        2 => answered.prop_map(Input::AgentAnswered),
        2 => name.prop_map(|name| Input::AgentFinished(item(name))),
        1 => Just(Input::AgentWillAnswer),
        1 => Just(Input::AgentAlive),
        1 => Just(Input::CallerPressed('1')),
        4 => Just(Input::Tick),
    ]
}

/// Each input with the time that passes before it.
fn any_inputs() -> impl Strategy<Value = Vec<(u64, Input)>> {
    vec_of((0..400_u64, any_input()), 0..80)
}

proptest! {
    #[test]
    fn every_call_ends_once_and_then_stays_silent(inputs in any_inputs()) {
        let mut session = session();
        let mut at = 0;
        let mut outputs = Vec::new();
        for (pause, input) in inputs.iter().cloned() {
            at += pause;
            outputs.extend(play(&mut session, at, input));
        }
        outputs.extend(play(&mut session, at, Input::CallerHungUp));
        for (pause, input) in inputs {
            at += pause;
            outputs.extend(play(&mut session, at, input));
        }
        let is_end = |output: &Output| matches!(output, Output::End(_));
        prop_assert_eq!(outputs.iter().position(is_end), Some(outputs.len() - 1));
    }

    #[test]
    fn what_was_held_is_sent_in_order_and_before_what_comes_later(count in 1..200_usize, ready in 0..200_usize) {
        let mut session = session();
        let mut sent = Vec::new();
        for n in 0..count {
            if n == ready.min(count - 1) {
                sent.extend(play(&mut session, n as u64 * 20, Input::AgentReady));
            }
            let numbered = u8::try_from(n).unwrap();
            let input = Input::CallerAudio {
                chunk: Chunk::encode(&[numbered; 160], Encoding::Mulaw),
                starts_at: MS(n as u64 * 20),
            };
            sent.extend(play(&mut session, n as u64 * 20, input));
        }
        let order: Vec<u8> = sent.iter().filter_map(|output| match output {
            Output::SendToAgent(chunk) => Some(chunk.samples()[0]),
            _ => None,
        }).collect();
        let expected: Vec<u8> = (0..count).map(|n| u8::try_from(n).unwrap()).collect();
        prop_assert_eq!(order, expected);
    }

    /// A carrier plays in real time and returns marks as they pass; the session must never
    /// claim that more was heard than that carrier has played.
    #[test]
    fn nothing_is_truncated_beyond_what_was_played(
        steps in vec_of((0..300_u64, prop_oneof![
            4 => (prop_oneof![Just("a"), Just("b"), Just("c")], 1..60_usize)
                .prop_map(|(name, count)| spoken(name, count)),
            1 => Just(Input::AgentInterrupted),
            1 => Just(Input::AgentAnswering),
            1 => Just(Input::AgentAnswered(Answered::Cancelled)),
            2 => Just(Input::Tick),
        ]), 0..60),
    ) {
        let mut session = talking();
        let mut carrier = Loudspeaker::default();
        let mut at = 0;
        for (pause, input) in steps {
            at += pause;
            for mark in carrier.play_until(MS(at)) {
                prop_assert!(session.handle(MS(at), Input::CallerHeard(mark)).next().is_none());
            }
            for output in play(&mut session, at, input) {
                match output {
                    Output::PlayToCaller(chunk) => carrier.queue.push_back(Queued::Audio(chunk.duration())),
                    Output::MarkPlayback(mark) => carrier.queue.push_back(Queued::Mark(mark)),
                    Output::ClearPlayback => carrier.queue.clear(),
                    Output::Truncate(Interrupted::Heard { heard, .. }) => {
                        prop_assert!(heard <= carrier.played, "{heard:?} of {:?}", carrier.played);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A carrier's queue, played in real time.
#[derive(Default)]
struct Loudspeaker {
    queue: VecDeque<Queued>,
    now: Duration,
    /// All that was ever played.
    played: Duration,
}

enum Queued {
    Audio(Duration),
    Mark(Mark),
}

impl Loudspeaker {
    fn play_until(&mut self, at: Duration) -> Vec<Mark> {
        let mut marks = Vec::new();
        while let Some(next) = self.queue.front_mut() {
            match next {
                Queued::Mark(mark) => {
                    marks.push(*mark);
                    self.queue.pop_front();
                }
                Queued::Audio(left) => {
                    let playable = (*left).min(at.saturating_sub(self.now));
                    self.now += playable;
                    self.played += playable;
                    *left -= playable;
                    if !left.is_zero() {
                        break;
                    }
                    self.queue.pop_front();
                }
            }
        }
        self.now = at;
        marks
    }
}
