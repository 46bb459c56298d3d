//! How Twilio signs what it sends, and how we check it.
//!
//! Source: twilio.com/docs/usage/security, and the request validators of Twilio's own SDKs.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use url::Url;

/// What a request was signed with: an account's auth token, or a key shared for webhooks.
pub enum Key<'a> {
    /// HMAC-SHA1 with the account's auth token.
    AuthToken(&'a SecretString),
    /// HMAC-SHA256 with a shared key (public beta in 2026).
    Shared(&'a SecretString),
}

/// Returns the signature that Twilio would send for a form posted to `url`, or, without fields,
/// for a WebSocket upgrade.
pub fn sign(token: &SecretString, url: &str, fields: &[(String, String)]) -> String {
    let mac: Hmac<Sha1> = mac(token, url, fields);
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Tells whether `signature` is Twilio's for a form posted to `url`. The comparison takes the
/// same time wherever the first difference is.
pub fn is_valid(key: &Key<'_>, url: &Url, fields: &[(String, String)], signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else {
        return false;
    };
    spellings(url).iter().any(|url| match key {
        Key::AuthToken(key) => verify(mac::<Hmac<Sha1>>(key, url, fields), &signature),
        Key::Shared(key) => verify(mac::<Hmac<Sha256>>(key, url, fields), &signature),
    })
}

/// Tells whether the signed `url` vouches for `body`: where it carries a `bodySHA256`, as Twilio
/// adds for JSON, the body must have it.
pub fn covers_body(url: &Url, body: &[u8]) -> bool {
    let promised = url.query_pairs().find(|(name, _)| name == "bodySHA256");
    promised.is_none_or(|(_, promised)| {
        let found = Sha256::digest(body);
        found
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
            == *promised
    })
}

fn verify(mac: impl Mac, signature: &[u8]) -> bool {
    mac.verify_slice(signature).is_ok()
}

fn mac<M: Mac + KeyInit>(key: &SecretString, url: &str, fields: &[(String, String)]) -> M {
    let key = key.expose_secret().as_bytes();
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(url.as_bytes());
    // Repeated names: each value once, in order, as the SDKs do it.
    let mut sorted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in fields {
        sorted.entry(name).or_default().insert(value);
    }
    for (name, values) in sorted {
        for value in values {
            mac.update(name.as_bytes());
            mac.update(value.as_bytes());
        }
    }
    mac
}

/// Returns how Twilio's back ends may spell `url`: without a port, with the scheme's own, with
/// the one it has; and for a socket, with a slash at the end too.
fn spellings(url: &Url) -> Vec<String> {
    let own = match url.scheme() {
        "https" | "wss" => 443,
        _ => 80,
    };
    let host = url.host_str().unwrap_or_default();
    let after = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let scheme = url.scheme();
    let mut all = vec![
        format!("{scheme}://{host}{after}"),
        format!("{scheme}://{host}:{}{after}", url.port().unwrap_or(own)),
    ];
    if matches!(scheme, "ws" | "wss") {
        all.extend(all.clone().into_iter().map(|url| url + "/"));
    }
    all
}

#[cfg(test)]
mod judged;
#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(owned).collect()
    }

    fn accepts(token: &str, url: &str, form: &[(&str, &str)], signature: &str) -> bool {
        let (token, url) = (SecretString::from(token), Url::parse(url).unwrap());
        is_valid(&Key::AuthToken(&token), &url, &fields(form), signature)
    }

    const RINGING: &[(&str, &str)] = &[
        ("CallSid", "CA00000000000000000000000000000001"),
        ("AccountSid", "AC00000000000000000000000000000001"),
        ("From", "+972501234567"),
        ("To", "+972721234567"),
        ("CallStatus", "ringing"),
        ("ApiVersion", "2010-04-01"),
        ("Direction", "inbound"),
        ("CallerName", ""),
        ("FromCity", "TEL AVIV"),
    ];

    #[test]
    fn a_posted_form_is_known_by_its_url_and_fields() {
        let url = "https://voice.example.com/twilio/voice?tenant=acme";
        let signature = "23KWQiRfonZvSwqMmJglfz51m/s=";
        assert!(accepts(TOKEN, url, RINGING, signature));
        let with_port = "https://voice.example.com:443/twilio/voice?tenant=acme";
        assert!(accepts(TOKEN, with_port, RINGING, signature));
        let without_tls = "http://voice.example.com/twilio/voice?tenant=acme";
        assert!(!accepts(TOKEN, without_tls, RINGING, signature));
        let other_token = "fedcba9876543210fedcba9876543210";
        assert!(!accepts(other_token, url, RINGING, signature));
        assert!(accepts(
            other_token,
            url,
            RINGING,
            "38GPvZp8zja92hZWfuAWN/cpheg="
        ));
        assert_eq!(sign(&TOKEN.into(), url, &fields(RINGING)), signature);
    }

    #[test]
    fn a_shared_key_signs_with_sha256() {
        let url = Url::parse("https://voice.example.com/twilio/voice?tenant=acme").unwrap();
        let (key, form) = (SecretString::from(TOKEN), fields(RINGING));
        let signature = "51jq/txF081NWa+1KGeWstqP37hWhb9bBD4rdGiqhTk=";
        assert!(is_valid(&Key::Shared(&key), &url, &form, signature));
        assert!(!is_valid(&Key::AuthToken(&key), &url, &form, signature));
    }

    #[test]
    fn the_query_is_signed_as_it_was_sent() {
        let url = "https://voice.example.com/twilio/voice?tenant=acme\
                   &CallSid=CA00000000000000000000000000000001\
                   &From=%2B972501234567&To=%2B972721234567";
        let signature = "UH+TEfloP1HMtpavD6sGBjieeKU=";
        assert!(accepts(TOKEN, url, &[], signature));
        assert!(!accepts(TOKEN, &url.replace("%2B", "+"), &[], signature));
    }

    #[test]
    fn a_socket_is_known_with_and_without_a_slash_at_the_end() {
        let url = "wss://voice.example.com/twilio/media";
        assert!(accepts(TOKEN, url, &[], "3Wv0T80qzAY3OCARW9y1gnUJZtE="));
        assert!(accepts(TOKEN, url, &[], "emydRDSHhLvuug6wCkjTHD/G0T0="));
        assert!(!accepts(TOKEN, url, &[], "3T4ShCTJZ08o+v3LKmVwwJswU58="));
    }

    #[test]
    fn a_json_body_is_known_by_its_hash() {
        let url = "https://voice.example.com/twilio/events\
                   ?bodySHA256=d1b4a5b25283d431757665ba0daa1b8f8ab7b451b1f2d874bf1d60258b50d159";
        assert!(accepts(TOKEN, url, &[], "wWOSZev7jZagaBXLewo4yEe/+0o="));
        let url = Url::parse(url).unwrap();
        let body = br#"{"CallSid":"CA00000000000000000000000000000001","Status":"ok"}"#;
        assert!(covers_body(&url, body));
        assert!(!covers_body(&url, &[body.as_slice(), b" "].concat()));
    }

    #[test]
    fn a_port_may_be_signed_or_dropped() {
        let url = "https://voice.example.com:8443/twilio/voice";
        let form = [
            ("CallSid", "CA00000000000000000000000000000001"),
            ("Digits", "1234#"),
            ("Body", "שלום עולם"),
        ];
        assert!(accepts(TOKEN, url, &form, "Wyq0+8786riCAyb5XBjToYv1NTU="));
        assert!(accepts(TOKEN, url, &form, "hrXe+3GcZYcV8BXJUbTJfNv5owU="));
    }

    #[test]
    fn a_repeated_field_counts_once_a_value() {
        let form = [
            ("CallSid", "CA00000000000000000000000000000001"),
            ("StatusCallbackEvent", "ringing"),
            ("StatusCallbackEvent", "answered"),
            ("StatusCallbackEvent", "ringing"),
        ];
        let url = "https://voice.example.com/twilio/status";
        assert!(accepts(TOKEN, url, &form, "kakC53Wzw2Wp70ITAscSpOC3v/Q="));
    }

    #[test]
    fn the_example_of_twilios_own_page_holds() {
        let form = [
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675310"),
            ("Digits", "1234"),
            ("From", "+14158675310"),
            ("To", "+18005551212"),
        ];
        let url = "https://example.com/myapp.php?foo=1&bar=2";
        assert!(accepts("12345", url, &form, "L/OH5YylLD5NRKLltdqwSvS0BnU="));
    }

    proptest::proptest! {
        #[test]
        fn any_changed_bit_of_url_field_or_signature_is_noticed(
            place in 0..3_usize, at in 0..64_usize, bit in 0..7_u32,
        ) {
            let url = "https://voice.example.com/twilio/voice?tenant=acme";
            let mut form = fields(RINGING);
            let mut signature = STANDARD.decode("23KWQiRfonZvSwqMmJglfz51m/s=").unwrap();
            let flip = |text: &str| {
                let mut bytes = text.as_bytes().to_vec();
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
                String::from_utf8(bytes).unwrap()
            };
            let mut signed = url.to_owned();
            match place {
                0 => signed = format!("https://voice.example.com/{}", flip("twilio/voice")),
                1 => form[2].1 = flip("+972501234567"),
                _ => { let at = at % signature.len(); signature[at] ^= 1 << bit; }
            }
            let (token, parsed) = (SecretString::from(TOKEN), Url::parse(&signed).unwrap());
            let key = Key::AuthToken(&token);
            proptest::prop_assert!(!is_valid(&key, &parsed, &form, &STANDARD.encode(signature)));
        }
    }
}
