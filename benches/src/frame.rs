//! WebSocket frames (RFC 6455, section 5), parsed in place and appended to a buffer.
//!
//! Invariant: a message is one frame. Whoever fragments, as no carrier and no agent here does,
//! breaks the connection.

use std::ops::Range;

/// The longest payload that is accepted, in bytes.
pub const LONGEST_PAYLOAD: usize = 65_536;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// Lengths that say in how many more bytes the length is.
const TWO_MORE: u8 = 0x7e;
const EIGHT_MORE: u8 = 0x7f;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// Why a connection's bytes are no frames of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a fragment of a message")]
    Fragment,
    #[error("a reserved bit or opcode in {0:#04x}")]
    Reserved(u8),
    #[error("a payload of {0} bytes")]
    TooLong(u64),
}

/// A whole frame, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: Opcode,
    pub payload: &'a [u8],
}

/// The whole frames at the front of some bytes, one after the other.
pub struct Frames<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the next frame, or `None` when what is left is not a whole one.
    ///
    /// # Errors
    /// After an error the rest of the connection means nothing.
    // Not an iterator: a frame borrows the bytes that it was unmasked in.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = &mut self.bytes[self.at..];
        let Some(head) = Head::parse(rest)? else {
            return Ok(None);
        };
        let Some(payload) = rest.get_mut(head.payload.clone()) else {
            return Ok(None);
        };
        if let Some(mask) = head.mask {
            apply(mask, payload);
        }
        self.at += head.payload.end;
        Ok(Some(Frame {
            opcode: head.opcode,
            payload,
        }))
    }

    /// Returns what no frame was made of yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

/// Appends a frame to `out`, its payload put together from `parts`. Clients give a mask.
pub fn append(out: &mut Vec<u8>, opcode: Opcode, mask: Option<[u8; 4]>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let masked = if mask.is_some() { MASKED } else { 0 };
    out.push(FIN | bits(opcode));
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..TWO_MORE), _) => out.push(masked | length),
        (_, Ok(length)) => {
            out.push(masked | TWO_MORE);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(masked | EIGHT_MORE);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask.unwrap_or_default()[..if mask.is_some() { 4 } else { 0 }]);
    let payload = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    if let Some(mask) = mask {
        apply(mask, &mut out[payload..]);
    }
}

/// A source of masks: quick and unpredictable enough on loopback, where no proxy can be fooled.
pub struct Masks(u32);

impl Default for Masks {
    fn default() -> Self {
        Self(0x9e37_79b9)
    }
}

impl Masks {
    /// Returns the next mask, by xorshift.
    pub fn next_mask(&mut self) -> [u8; 4] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0.to_ne_bytes()
    }
}

/// Where a frame's payload is, and what it is masked with.
struct Head {
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    payload: Range<usize>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        let opcode = match first & 0x0f {
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            0x0 => return Err(FrameError::Fragment),
            _ => return Err(FrameError::Reserved(first)),
        };
        if first & RESERVED != 0 {
            return Err(FrameError::Reserved(first));
        }
        if first & FIN == 0 {
            return Err(FrameError::Fragment);
        }
        let (length, size) = match second & !MASKED {
            TWO_MORE => match rest.first_chunk() {
                Some(&length) => (u64::from(u16::from_be_bytes(length)), 2),
                None => return Ok(None),
            },
            EIGHT_MORE => match rest.first_chunk() {
                Some(&length) => (u64::from_be_bytes(length), 8),
                None => return Ok(None),
            },
            length => (u64::from(length), 0),
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= LONGEST_PAYLOAD)
            .ok_or(FrameError::TooLong(length))?;
        let mut start = 2 + size;
        let mut mask = None;
        if second & MASKED != 0 {
            let Some(&four) = bytes.get(start..).and_then(<[u8]>::first_chunk) else {
                return Ok(None);
            };
            mask = Some(four);
            start += 4;
        }
        Ok(Some(Self {
            opcode,
            mask,
            payload: start..start + length,
        }))
    }
}

fn bits(opcode: Opcode) -> u8 {
    match opcode {
        Opcode::Text => 0x1,
        Opcode::Binary => 0x2,
        Opcode::Close => 0x8,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xa,
    }
}

/// Masks or unmasks, eight bytes at a time.
fn apply(mask: [u8; 4], payload: &mut [u8]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (eights, last) = payload.as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in last.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 9] = [0, 1, 7, 125, 126, 340, 65_535, 65_536, 8];

    #[test]
    fn what_is_appended_is_parsed_again() {
        for mask in [None, Some([0x12, 0x34, 0x56, 0x78])] {
            let mut bytes = Vec::new();
            for length in LENGTHS {
                let payload = payload(length);
                let (front, back) = payload.split_at(length / 3);
                append(&mut bytes, Opcode::Text, mask, &[front, back]);
            }
            let mut frames = Frames::new(&mut bytes);
            for length in LENGTHS {
                let frame = frames.next().unwrap().unwrap();
                assert_eq!(frame.opcode, Opcode::Text);
                assert_eq!(frame.payload, payload(length));
            }
            assert_eq!(frames.next(), Ok(None));
            assert!(frames.rest().is_empty());
        }
    }

    #[test]
    fn a_frame_cut_anywhere_waits_for_its_rest() {
        for length in [5, 125, 126, 65_536] {
            let mut whole = Vec::new();
            append(
                &mut whole,
                Opcode::Text,
                Some([1, 2, 3, 4]),
                &[&payload(length)],
            );
            let cuts = (0..whole.len().min(32)).chain([whole.len() - 1]);
            for cut in cuts {
                let mut part = whole[..cut].to_vec();
                let mut frames = Frames::new(&mut part);
                assert_eq!(frames.next(), Ok(None), "{cut} of {length}");
                assert_eq!(frames.rest(), &whole[..cut], "left as it came, masked");
            }
        }
    }

    #[test]
    fn the_examples_of_the_standard_are_understood() {
        // RFC 6455, 5.7.
        let mut bytes = vec![
            0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f, // "Hello"
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, // masked
            0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f, // a ping
            0x81, 0x7e, 0x01, // a frame of which more will come
        ];
        let mut frames = Frames::new(&mut bytes);
        for opcode in [Opcode::Text, Opcode::Text, Opcode::Ping] {
            let payload: &[u8] = b"Hello";
            assert_eq!(frames.next(), Ok(Some(Frame { opcode, payload })));
        }
        assert_eq!(frames.next(), Ok(None));
        assert_eq!(frames.rest(), [0x81, 0x7e, 0x01]);
    }

    #[test]
    fn what_is_no_frame_of_ours_is_an_error() {
        let too_long = [0x81, 0x7f, 0, 0, 0, 0, 0, 1, 0, 1];
        let cases: [(&[u8], FrameError); 5] = [
            (&[0x01, 0x00], FrameError::Fragment),
            (&[0x80, 0x00], FrameError::Fragment),
            (&[0x83, 0x00], FrameError::Reserved(0x83)),
            (&[0xc1, 0x00], FrameError::Reserved(0xc1)),
            (&too_long, FrameError::TooLong(65_537)),
        ];
        for (bytes, error) in cases {
            assert_eq!(Frames::new(&mut bytes.to_vec()).next(), Err(error));
        }
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }
}
