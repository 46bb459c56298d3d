//! The items of a conversation, as far as a client can refer to them.
//!
//! Invariant: at most [`MOST_ITEMS`] are known; older ones are forgotten.

use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};

use super::wire::{Problem, Wire};

const MOST_ITEMS: usize = 200;

#[derive(Debug, Default)]
pub struct Conversation {
    items: VecDeque<Item>,
}

#[derive(Debug)]
struct Item {
    id: String,
    /// How much audio of the agent it holds.
    audio: Duration,
}

impl Conversation {
    /// Adds an item and announces it.
    pub fn add(&mut self, item: &Value, wire: &mut Wire) {
        let previous = self.items.back().map(|last| last.id.clone());
        let announced = json!({ "previous_item_id": previous, "item": item });
        wire.event("conversation.item.added", announced);
        if self.items.len() == MOST_ITEMS {
            self.items.pop_front();
        }
        self.items.push_back(Item {
            id: item["id"].as_str().unwrap_or_default().to_owned(),
            audio: Duration::ZERO,
        });
    }

    /// Announces that an item added earlier is complete.
    pub fn finish(&self, item: &Value, wire: &mut Wire) {
        let place = self.place(item["id"].as_str().unwrap_or_default());
        let previous = place
            .and_then(|place| place.checked_sub(1))
            .map(|place| &self.items[place].id);
        let announced = json!({ "previous_item_id": previous, "item": item });
        wire.event("conversation.item.done", announced);
    }

    /// Takes an item from the client.
    pub fn create(&mut self, mut item: Value, wire: &mut Wire) -> Result<(), Problem> {
        if !item.is_object() {
            return Err(Problem::invalid("item", "an item is an object"));
        }
        let id = match item["id"].as_str() {
            Some(id) if 64 < id.len() => {
                return Err(Problem::invalid("item.id", "longer than 64 characters"));
            }
            Some(id) if self.place(id).is_some() => {
                let message = format!("there is an item {id} already");
                return Err(Problem::new("item_create_duplicate_item_id", message));
            }
            Some(id) => id.to_owned(),
            None => wire.id("item"),
        };
        item["id"] = id.into();
        item["object"] = "realtime.item".into();
        item["status"] = "completed".into();
        self.add(&item, wire);
        self.finish(&item, wire);
        Ok(())
    }

    /// Notes how much audio the item `id` holds.
    pub fn lengthen(&mut self, id: &str, audio: Duration) {
        if let Some(place) = self.place(id) {
            self.items[place].audio = audio;
        }
    }

    /// Cuts what the caller did not hear.
    pub fn truncate(&mut self, id: &str, end_ms: u64, wire: &mut Wire) -> Result<(), Problem> {
        let Some(place) = self.place(id) else {
            let message = format!("there is no item {id}");
            return Err(Problem::new("item_truncate_invalid_item_id", message));
        };
        let (audio, end) = (self.items[place].audio, Duration::from_millis(end_ms));
        if audio < end {
            let message = format!(
                "Audio content of {}ms is already shorter than {end_ms}ms",
                audio.as_millis()
            );
            return Err(Problem::invalid("audio_end_ms", message));
        }
        self.items[place].audio = end;
        let cut = json!({ "item_id": id, "content_index": 0, "audio_end_ms": end_ms });
        wire.event("conversation.item.truncated", cut);
        Ok(())
    }

    pub fn delete(&mut self, id: &str, wire: &mut Wire) -> Result<(), Problem> {
        let Some(place) = self.place(id) else {
            let message = format!("there is no item {id}");
            return Err(Problem::new("item_delete_invalid_item_id", message));
        };
        self.items.remove(place);
        wire.event("conversation.item.deleted", json!({ "item_id": id }));
        Ok(())
    }

    pub fn last(&self) -> Option<&str> {
        self.items.back().map(|item| item.id.as_str())
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    fn place(&self, id: &str) -> Option<usize> {
        self.items.iter().rposition(|item| item.id == id)
    }
}
