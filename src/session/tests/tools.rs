//! An agent that uses tools, and leaves.

use std::slice;

use super::*;

fn wants(id: &str) -> Input {
    Input::ToolCalled(tool_call(id))
}

fn tool_call(id: &str) -> ToolCall {
    ToolCall {
        id: id.to_owned(),
        tool: "find_slot".to_owned(),
        arguments: Some("{}".to_owned()),
    }
}

fn result(id: &str) -> ToolResult {
    ToolResult {
        id: id.to_owned(),
        text: "{}".to_owned(),
    }
}

#[test]
fn the_agent_goes_on_once_with_all_results_and_after_its_answer() {
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    for id in ["a", "b"] {
        assert_eq!(
            play(&mut session, 1, wants(id)),
            [Output::UseTool(tool_call(id))]
        );
    }
    assert_eq!(play(&mut session, 1, wants("a")), [], "it says so twice");
    let told = play(&mut session, 2, Input::ToolAnswered(result("a")));
    assert_eq!(told, [Output::TellAgentResult(result("a"))]);
    assert_eq!(play(&mut session, 2, Input::ToolAnswered(result("a"))), []);
    assert_eq!(
        play(&mut session, 3, Input::AgentAnswered(Answered::Fully)),
        []
    );
    let told = play(&mut session, 4, Input::ToolAnswered(result("b")));
    assert_eq!(told, [Output::TellAgentResult(result("b")), Output::Answer]);
    assert_eq!(play(&mut session, 5, Input::AgentAnswering), []);
    assert_eq!(
        play(&mut session, 6, Input::AgentAnswered(Answered::Fully)),
        []
    );
}

#[test]
fn a_result_asks_for_no_answer_while_another_is_on_its_way() {
    for on_its_way in [Input::AgentInterrupted, Input::AgentWillAnswer] {
        let mut session = talking();
        play(&mut session, 0, Input::AgentAnswering);
        play(&mut session, 1, wants("a"));
        play(&mut session, 2, Input::AgentAnswered(Answered::Fully));
        play(&mut session, 3, on_its_way.clone());
        let told = play(&mut session, 4, Input::ToolAnswered(result("a")));
        assert_eq!(
            told,
            [Output::TellAgentResult(result("a"))],
            "{on_its_way:?}"
        );
        play(&mut session, 5, Input::AgentAnswering);
        let done = play(&mut session, 6, Input::AgentAnswered(Answered::Fully));
        assert_eq!(done, [], "that answer knew of it");
    }
    // A result that comes in the middle of an answer is not in it.
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    play(&mut session, 1, wants("a"));
    play(&mut session, 2, Input::ToolAnswered(result("a")));
    let done = play(&mut session, 3, Input::AgentAnswered(Answered::Fully));
    assert_eq!(done, [Output::Answer]);
}

#[test]
fn a_caller_who_only_coughs_does_not_keep_a_result_for_ever() {
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    play(&mut session, 1, wants("a"));
    play(&mut session, 2, Input::AgentAnswered(Answered::Fully));
    play(&mut session, 3, Input::AgentInterrupted);
    play(&mut session, 4, Input::ToolAnswered(result("a")));
    play(&mut session, 7_000, heard(0));
    assert_eq!(session.deadline(), MS(8_000), "silence is filled first");
    play(&mut session, 8_002, heard(8_000));
    assert_eq!(play(&mut session, 8_003, Input::Tick), [Output::Answer]);
}

#[test]
fn an_agent_that_waits_for_a_tool_owes_nothing() {
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    play(&mut session, 1, wants("a"));
    for second in 1..=20 {
        play(&mut session, second * 1_000, heard(second * 1_000));
        let outputs = play(&mut session, second * 1_000, Input::Tick);
        assert!(
            !outputs.iter().any(|it| matches!(it, Output::End(_))),
            "{second} s"
        );
    }
    play(&mut session, 20_001, Input::ToolAnswered(result("a")));
    play(&mut session, 28_500, heard(28_500));
    let outputs = play(&mut session, 28_500, Input::Tick);
    assert_eq!(outputs.last(), Some(&Output::End(EndReason::AgentStalled)));
}

#[test]
fn tools_are_bounded_at_once_in_an_answer_and_in_a_call() {
    let refused = |outputs: &[Output]| matches!(outputs, [Output::RefuseTool(_)]);
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    for id in ["a", "b", "c", "d"] {
        assert!(!refused(&play(&mut session, 1, wants(id))), "{id}");
    }
    assert!(
        refused(&play(&mut session, 1, wants("e"))),
        "five in one answer"
    );
    for id in ["a", "e"] {
        play(&mut session, 2, Input::ToolAnswered(result(id)));
    }
    play(&mut session, 3, Input::AgentAnswered(Answered::Fully));
    play(&mut session, 4, Input::AgentAnswering);
    assert!(!refused(&play(&mut session, 5, wants("f"))));
    assert!(refused(&play(&mut session, 5, wants("g"))), "five at once");
    for id in ["b", "c", "d", "f", "g"] {
        play(&mut session, 6, Input::ToolAnswered(result(id)));
    }
    for used in 7..63 {
        let id = used.to_string();
        play(&mut session, 7, Input::AgentAnswering);
        assert!(!refused(&play(&mut session, 8, wants(&id))), "{used}");
        play(&mut session, 9, Input::ToolAnswered(result(&id)));
        play(&mut session, 9, Input::AgentAnswered(Answered::Fully));
    }
    play(&mut session, 10, Input::AgentAnswering);
    assert!(!refused(&play(&mut session, 11, wants("the 64th"))));
    assert!(refused(&play(&mut session, 12, wants("the 65th"))));
    assert_eq!(play(&mut session, 13, wants("the 66th")), [], "it was told");
}

#[test]
fn an_agent_that_hangs_up_is_heard_to_the_end_but_not_for_ever() {
    let end = Output::End(EndReason::AgentHungUp);
    // By marks: once the carrier has played the last of it.
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    let outputs = play(&mut session, 0, spoken("a", 9));
    let outputs = [
        outputs,
        play(&mut session, 1, Input::AgentFinished(item("a"))),
    ]
    .concat();
    let mark = mark_of(&outputs).unwrap();
    assert_eq!(
        play(&mut session, 2, Input::Leave(EndReason::AgentHungUp)),
        []
    );
    assert_eq!(
        play(&mut session, 3, Input::AgentAnswered(Answered::Fully)),
        []
    );
    assert_eq!(
        play(&mut session, 200, Input::CallerHeard(mark)),
        slice::from_ref(&end)
    );
    // By the clock, with what may be on its way.
    let mut session = Session::new(
        Duration::ZERO,
        Terms {
            follows: Follows::Clock,
            ..session_terms()
        },
    );
    play(&mut session, 0, Input::AgentReady);
    play(&mut session, 0, spoken("a", 9));
    play(&mut session, 1, Input::Leave(EndReason::AgentHungUp));
    assert_eq!(session.deadline(), MS(480));
    assert_eq!(play(&mut session, 480, Input::Tick), slice::from_ref(&end));
    // An agent that goes on and on has its eight seconds.
    let mut session = talking();
    play(&mut session, 0, Input::AgentAnswering);
    play(&mut session, 1, Input::Leave(EndReason::AgentHungUp));
    for second in 1..8 {
        play(&mut session, second * 1_000, heard(second * 1_000));
        play(&mut session, second * 1_000, spoken("a", 50));
    }
    assert_eq!(play(&mut session, 8_001, Input::Tick).last(), Some(&end));
    // One that has nothing to say is gone at once, and no tool is used any more.
    let mut session = talking();
    assert_eq!(
        play(&mut session, 1, Input::Leave(EndReason::AgentHungUp)),
        [end]
    );
}
