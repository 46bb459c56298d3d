//! Who brings a call, and in which words its audio comes and goes.

use base64::{Engine, engine::general_purpose::STANDARD};
use callgate_benches::acs::{self, Format};
use callgate_benches::frame::Opcode;
use callgate_benches::message::{CarrierSide, FromCarrier, MEDIA_SUFFIX, Reader};

use crate::audio::{Audio, LONGEST_FRAME, Stamp};
use crate::candidate::Candidate;

/// By how many samples of the lower rate a gateway's resamplers delay audio, there and back.
const RESAMPLED_LATE: usize = 2 * 25;

/// Who brings a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Twilio,
    Acs {
        format: Format,
        /// Whether audio is resampled on its way, since the agent has another rate.
        resampled: bool,
    },
    /// A browser, whose audio comes as it is, in binary messages.
    Web,
}

/// What a caller says first, and what comes around its audio.
pub enum Voice {
    Twilio(CarrierSide),
    Acs,
    Web,
}

/// What a gateway tells a caller that matters.
pub enum Told<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Mark(&'a str),
}

impl Line {
    pub fn name(self) -> &'static str {
        match self {
            Self::Twilio => "twilio",
            Self::Acs { .. } => "acs",
            Self::Web => "web",
        }
    }

    pub fn audio(self) -> Audio {
        match self {
            Self::Twilio => Audio::Mulaw,
            Self::Acs { format, resampled } => Audio::Pcm {
                format,
                late: if resampled { RESAMPLED_LATE } else { 0 },
            },
            Self::Web => Audio::Pcm {
                format: Format::Pcm24k,
                late: 0,
            },
        }
    }

    /// Returns what it is through a candidate: the floor resamples nothing.
    pub fn through(self, candidate: Candidate) -> Self {
        match (self, candidate) {
            (Self::Acs { format, .. }, Candidate::Floor) => Self::Acs {
                format,
                resampled: false,
            },
            (line, _) => line,
        }
    }

    /// Understands what a caller is told.
    pub fn read<'a>(self, reader: &Reader, opcode: Opcode, payload: &'a [u8]) -> Option<Told<'a>> {
        match (self, opcode) {
            (Self::Twilio, Opcode::Text) => match reader.carrier(payload)? {
                FromCarrier::Media(audio) => Some(Told::Text(audio)),
                FromCarrier::Mark(name) => Some(Told::Mark(name)),
                FromCarrier::Start { .. } => None,
            },
            (Self::Acs { .. }, Opcode::Text) => reader.acs(payload).map(Told::Text),
            (Self::Web, Opcode::Binary) => Some(Told::Bytes(payload)),
            (Self::Web, _) | (_, Opcode::Binary) => None, // How the call stands, for people.
            (_, Opcode::Close | Opcode::Ping | Opcode::Pong) => None,
        }
    }
}

impl Voice {
    /// Returns the message that says one frame, its parts kept in `text` and `frame`.
    pub fn say<'a>(
        &self,
        audio: Audio,
        stamp: Stamp,
        sequence: u32,
        text: &'a mut String,
        frame: &'a mut [u8; LONGEST_FRAME],
    ) -> (Opcode, [&'a [u8]; 2]) {
        text.clear();
        let frame = stamp.write(audio, frame);
        let tail = match self {
            Self::Twilio(side) => {
                side.media_head(sequence, stamp.number + 1, text);
                MEDIA_SUFFIX
            }
            Self::Acs => {
                acs::media_head(stamp.number, text);
                acs::MEDIA_TAIL
            }
            Self::Web => return (Opcode::Binary, [frame, &[]]),
        };
        STANDARD.encode_string(frame, text);
        (Opcode::Text, [text.as_bytes(), tail.as_bytes()])
    }
}
