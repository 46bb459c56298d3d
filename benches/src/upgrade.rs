//! The HTTP request and response that turn a connection into a WebSocket (RFC 6455, section 4).

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// The key of every client here. It only tells a WebSocket server from another one, so it need not
/// be random where both ends are ours.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The longest head of a request or response, in bytes.
pub const LONGEST_HEAD: usize = 16 * 1024;

/// Returns the request for a WebSocket at `path` of `host`.
pub fn request(host: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").expect("a string takes any text");
    }
    request + "\r\n"
}

/// Returns the answer to a request, or `None` if it does not ask for a WebSocket.
pub fn response(request: &str) -> Option<String> {
    let accept = accept(header(request, "Sec-WebSocket-Key")?);
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

/// Tells whether `response` grants the [`request`].
pub fn is_granted(response: &str) -> bool {
    response.starts_with("HTTP/1.1 101 ")
        && header(response, "Sec-WebSocket-Accept") == Some(&accept(KEY))
}

/// Returns the head at the front of `bytes` once it is whole, with the empty line that ends it.
pub fn head(bytes: &[u8]) -> Option<&str> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    str::from_utf8(&bytes[..end]).ok()
}

/// Returns the value of a header, whose name may be in any case.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_as_the_standard_says() {
        // RFC 6455, 1.3.
        assert_eq!(accept(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_request_is_granted_by_its_response_only() {
        let request = request("localhost", "/media", &[("X-Twilio-Signature", "abc=")]);
        assert_eq!(head(request.as_bytes()), Some(request.as_str()));
        assert_eq!(head(&request.as_bytes()[..request.len() - 1]), None);
        assert_eq!(header(&request, "x-twilio-signature"), Some("abc="));

        let response = response(&request).unwrap();
        assert!(is_granted(&response));
        assert!(!is_granted(&response.replace("101", "403")));
        assert!(!is_granted(&response.replace("s3pPLM", "s3pPLN")));
    }
}
