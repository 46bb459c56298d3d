//! What the caller has heard: paces the agent's audio and follows it to the caller's ear.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use crate::{chunk::Chunk, session::Output};

/// How far ahead of the caller's ear the carrier is fed: enough to bridge a stumbling network,
/// little enough that an interruption is exact.
pub const LEAD: Duration = Duration::from_secs(1);
/// How much may wait here before the agent's socket is not read any more.
pub const MOST_QUEUED: Duration = Duration::from_secs(30);
/// How many pieces of it may, however short they are.
const MOST_PIECES: usize = 4_096;
/// How much audio lies between two marks, and goes out in one piece at most: the error of an
/// interruption's position. Whole steps of a chunk, so that it is cut there.
const MARK_EVERY: Duration = Duration::from_millis(180);
/// How long the end of what was sent may be on its way to the caller's ear.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
/// What a carrier that returns no marks can make us remember.
const MOST_MARKS: usize = 512;
const MOST_ITEMS: usize = 64;
const MOST_DROPPED: usize = 32;

/// The agent's name for one piece of its speech.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemId(Bytes);

/// A place in the audio sent to the carrier, which returns it once everything before has been
/// played. Marks of an earlier generation were overtaken by a clear: those come back unplayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub generation: u32,
    pub number: u32,
}

/// What became of a piece of speech that the caller interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupted {
    /// The caller heard this much of it.
    Heard {
        item: ItemId,
        heard: Duration,
    },
    Unheard {
        item: ItemId,
    },
}

/// How it is known what the caller has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// The carrier returns marks.
    Marks,
    /// The carrier tells nothing: what was sent has been heard once it has had the time to play.
    Clock,
}

#[derive(Debug)]
pub struct Playback {
    follows: Follows,
    /// What waits because the carrier has enough; tones are no item of the agent's.
    queue: VecDeque<(Option<ItemId>, Chunk)>,
    queued: Duration,
    /// When the carrier will have played all it was given.
    ends_at: Duration,
    items: VecDeque<Item>,
    unmarked: Duration,
    generation: u32,
    marked: u32,
    marks: VecDeque<Marked>,
    dropped: VecDeque<ItemId>,
}

/// A place in an item that the caller has not heard yet.
#[derive(Debug)]
struct Marked {
    mark: Mark,
    item: ItemId,
    position: Duration,
    /// When it will have been played.
    at: Duration,
}

#[derive(Debug)]
struct Item {
    id: ItemId,
    received: Duration,
    sent: Duration,
    heard: Duration,
    complete: bool,
}

impl ItemId {
    /// Takes a part of a message as an item's name.
    pub fn new(id: Bytes) -> Self {
        Self(id)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns a name that does not keep its message in memory.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Playback {
    pub fn new(follows: Follows) -> Self {
        Self {
            follows,
            queue: VecDeque::new(),
            queued: Duration::ZERO,
            ends_at: Duration::ZERO,
            items: VecDeque::new(),
            unmarked: Duration::ZERO,
            generation: 0,
            marked: 0,
            marks: VecDeque::new(),
            dropped: VecDeque::new(),
        }
    }

    /// Takes the agent's audio, unless it belongs to what was interrupted.
    pub fn receive(&mut self, at: Duration, id: &ItemId, chunk: Chunk, out: &mut Vec<Output>) {
        if self.dropped.contains(id) || chunk.is_empty() {
            return;
        }
        if !self.items.iter().any(|item| item.id == *id) {
            if self.items.len() == MOST_ITEMS {
                self.items.pop_front();
            }
            self.items.push_back(Item {
                id: id.detached(),
                received: Duration::ZERO,
                sent: Duration::ZERO,
                heard: Duration::ZERO,
                complete: false,
            });
        }
        let item = self.items.iter_mut().find(|item| item.id == *id);
        let item = item.expect("it was there, or was just put there");
        item.received += chunk.duration();
        let id = item.id.clone();
        self.queued += chunk.duration();
        self.queue.push_back((Some(id), chunk));
        self.release(at, out);
    }

    /// Takes tones, which follow what the agent has said so far. They outlive an interruption as
    /// long as the carrier has not to drop anything for it.
    pub fn sound(&mut self, at: Duration, tones: Chunk, out: &mut Vec<Output>) {
        self.queued += tones.duration();
        self.queue.push_back((None, tones));
        self.release(at, out);
    }

    /// Notes that the agent has sent all of an item, so that its end gets a mark.
    pub fn complete(&mut self, id: &ItemId, out: &mut Vec<Output>) {
        let Some(item) = self.items.iter_mut().find(|item| item.id == *id) else {
            return;
        };
        item.complete = true;
        if item.sent == item.received && self.unmarked > Duration::ZERO {
            let (id, sent) = (item.id.clone(), item.sent);
            self.mark(id, sent, out);
        }
    }

    /// Gives the carrier what it may have by now.
    pub fn release(&mut self, at: Duration, out: &mut Vec<Output>) {
        self.follow_clock(at);
        while self.ends_at <= at + LEAD
            && let Some((id, mut chunk)) = self.queue.pop_front()
        {
            let piece = if chunk.duration() <= MARK_EVERY {
                chunk
            } else {
                let piece = chunk.split_off_front(MARK_EVERY);
                self.queue.push_front((id.clone(), chunk));
                piece
            };
            let duration = piece.duration();
            self.queued = self.queued.saturating_sub(duration);
            self.ends_at = self.ends_at.max(at) + duration;
            self.unmarked += duration;
            out.push(Output::PlayToCaller(piece));
            if let Some(id) = id
                && let Some(item) = self.items.iter_mut().find(|item| item.id == id)
            {
                item.sent += duration;
                let is_due = self.unmarked >= MARK_EVERY
                    || item.complete && item.sent == item.received
                    || self.follows == Follows::Clock; // A mark costs nothing there.
                if is_due {
                    let sent = item.sent;
                    self.mark(id, sent, out);
                }
            }
        }
    }

    /// Notes a mark that the carrier returned: what lies before it has been heard.
    pub fn heard(&mut self, mark: Mark) {
        if mark.generation != self.generation {
            return;
        }
        while let Some(passed) = self.marks.pop_front_if(|marked| marked.mark <= mark) {
            self.reach(&passed);
        }
        self.forget_heard();
    }

    /// Notes what the caller has heard by now, where only the clock tells.
    fn follow_clock(&mut self, at: Duration) {
        if self.follows == Follows::Marks {
            return;
        }
        while let Some(passed) = self.marks.pop_front_if(|marked| marked.at <= at) {
            self.reach(&passed);
        }
        if let Some(next) = self.marks.front()
            && let Some(item) = self.items.iter_mut().find(|item| item.id == next.item)
        {
            let heard = next.position.saturating_sub(next.at.saturating_sub(at));
            item.heard = item.heard.max(heard);
        }
        self.forget_heard();
    }

    fn reach(&mut self, passed: &Marked) {
        let item = self.items.iter().position(|item| item.id == passed.item);
        if let Some(index) = item {
            self.items[index].heard = passed.position;
            // Marks are passed in order: what was sent before has been heard to its end.
            self.items.drain(..index);
        }
    }

    fn forget_heard(&mut self) {
        if let Some(first) = self.items.front()
            && first.complete
            && first.heard == first.received
        {
            self.items.pop_front();
        }
    }

    /// Forgets what the caller has not heard. Returns it, oldest first; empty if the caller had
    /// heard everything, so that nothing needs to be cleared.
    pub fn interrupt(&mut self, at: Duration) -> Vec<Interrupted> {
        self.follow_clock(at);
        let cut = |item: Item| {
            if item.heard.is_zero() {
                Interrupted::Unheard { item: item.id }
            } else {
                Interrupted::Heard {
                    item: item.id,
                    heard: item.heard,
                }
            }
        };
        let unheard: Vec<Item> = self
            .items
            .drain(..)
            .filter(|item| item.heard < item.received)
            .collect();
        for item in &unheard {
            if self.dropped.len() == MOST_DROPPED {
                self.dropped.pop_front();
            }
            self.dropped.push_back(item.id.clone());
        }
        self.queue.retain(|(id, _)| id.is_none());
        self.queued = self.queue.iter().map(|(_, tones)| tones.duration()).sum();
        if !unheard.is_empty() {
            self.ends_at = at; // The carrier drops what it has.
        }
        self.unmarked = Duration::ZERO;
        self.marks.clear();
        self.generation += 1;
        unheard.into_iter().map(cut).collect()
    }

    /// Returns when more may be released, if anything waits.
    pub fn deadline(&self) -> Option<Duration> {
        (!self.queue.is_empty()).then(|| self.ends_at.saturating_sub(LEAD))
    }

    /// Returns when the caller will have heard everything; `None` where more is to come, or the
    /// carrier has yet to say so.
    pub fn over_at(&self) -> Option<Duration> {
        let is_sent = self.queue.is_empty();
        match self.follows {
            Follows::Marks => (is_sent && self.marks.is_empty()).then_some(self.ends_at),
            Follows::Clock => is_sent.then(|| self.ends_at + ON_ITS_WAY),
        }
    }

    /// Tells whether the carrier has been given anything of an item, and whether the caller has heard
    /// anything of it. What is not known any more has been heard.
    pub fn reached(&mut self, at: Duration, id: &ItemId) -> (bool, bool) {
        self.follow_clock(at);
        let item = self.items.iter().find(|item| item.id == *id);
        item.map_or((true, true), |item| {
            (!item.sent.is_zero(), !item.heard.is_zero())
        })
    }

    /// Tells whether the agent's socket should be read.
    pub fn has_room(&self) -> bool {
        self.queued < MOST_QUEUED && self.queue.len() < MOST_PIECES
    }

    fn mark(&mut self, id: ItemId, position: Duration, out: &mut Vec<Output>) {
        self.unmarked = Duration::ZERO;
        self.marked += 1;
        let mark = Mark {
            generation: self.generation,
            number: self.marked,
        };
        if self.marks.len() == MOST_MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(Marked {
            mark,
            item: id,
            position,
            at: self.ends_at,
        });
        if self.follows == Follows::Marks {
            out.push(Output::MarkPlayback(mark));
        }
    }
}
