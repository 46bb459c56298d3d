//! The tools that the parrot uses: whichever the caller chooses by a key.

use serde_json::{Value, json};

use super::{
    conversation::Conversation,
    speech::{self, Outcome},
    wire::{Problem, Wire},
};

/// How many uses are remembered, to know their results.
const MOST_CALLS: usize = 100;

/// A tool that the parrot uses, and with which arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRequest {
    pub name: String,
    /// JSON, or whatever a test wants a gateway to hear.
    pub arguments: String,
}

/// Which tool is to be used next, and whose results are still to come.
#[derive(Debug, Default)]
pub struct Tools {
    chosen: Option<usize>,
    open: Vec<String>,
}

/// Reads `name=arguments`.
///
/// # Errors
/// If there is no `=`.
pub fn request(text: &str) -> Result<ToolRequest, String> {
    let (name, arguments) = text.split_once('=').ok_or("not name=arguments")?;
    Ok(ToolRequest {
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    })
}

impl Tools {
    /// Takes note of an item of the client's: a key of the caller's chooses a tool, and a result
    /// has to be one of a use that was wanted.
    pub fn notice(&mut self, item: &Value) -> Result<(), Problem> {
        if item["type"] == "function_call_output" {
            let id = item["call_id"].as_str().unwrap_or_default();
            let place = self.open.iter().position(|open| open == id);
            let place = place.ok_or_else(|| {
                Problem::invalid("item.call_id", "there is no such function call")
            })?;
            if !item["output"].is_string() {
                return Err(Problem::invalid("item.output", "an output is a text"));
            }
            self.open.swap_remove(place);
            return Ok(());
        }
        let text = item["content"][0]["text"].as_str().unwrap_or_default();
        let key = text.strip_prefix("The caller pressed ");
        let digit = key.and_then(|key| key.chars().next()?.to_digit(10));
        if let Some(digit) = digit {
            self.chosen = usize::try_from(digit)
                .ok()
                .and_then(|digit| digit.checked_sub(1));
        }
        Ok(())
    }

    /// Wants to use the tool that was chosen, if there is one: a response of its own.
    pub fn use_chosen(
        &mut self,
        requests: &[ToolRequest],
        conversation: &mut Conversation,
        wire: &mut Wire,
    ) -> bool {
        let chosen = self.chosen.take();
        let Some(request) = chosen.and_then(|chosen| requests.get(chosen)) else {
            return false;
        };
        let (response, call) = (wire.id("resp"), wire.id("call"));
        speech::create(&response, wire);
        let mut item = json!({
            "id": wire.id("item"),
            "object": "realtime.item",
            "type": "function_call",
            "status": "in_progress",
            "call_id": call,
            "name": request.name,
            "arguments": "",
        });
        let of = |item: &Value| json!({"response_id": response, "output_index": 0, "item": item});
        wire.event("response.output_item.added", of(&item));
        conversation.add(&item, wire);
        let said = json!({
            "response_id": response,
            "item_id": item["id"],
            "output_index": 0,
            "call_id": call,
        });
        let mut delta = said.clone();
        delta["delta"] = request.arguments.as_str().into();
        wire.event("response.function_call_arguments.delta", delta);
        let mut done = said;
        done["name"] = request.name.as_str().into();
        done["arguments"] = request.arguments.as_str().into();
        wire.event("response.function_call_arguments.done", done);
        item["status"] = "completed".into();
        item["arguments"] = request.arguments.as_str().into();
        wire.event("response.output_item.done", of(&item));
        conversation.finish(&item, wire);
        speech::done_without_audio(&response, Outcome::Completed, &json!([item]), wire);
        if self.open.len() == MOST_CALLS {
            self.open.remove(0);
        }
        self.open.push(call);
        true
    }
}
