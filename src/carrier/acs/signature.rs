//! How a request to ACS is signed with a resource's access key.
//!
//! Source: learn.microsoft.com/azure/communication-services/tutorials/hmac-header-tutorial.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};

/// A request, as it goes over the wire.
pub struct Signable<'a> {
    /// In upper case.
    pub method: &'a str,
    /// As encoded on the wire, with the query.
    pub path_and_query: &'a str,
    /// With the port where it is not the scheme's own.
    pub host: &'a str,
    /// The time of this attempt, such as `Tue, 06 Jan 2026 10:20:30 GMT`: one that is old is
    /// refused.
    pub date: &'a str,
    pub body: &'a [u8],
}

/// Returns the headers that prove a request, by name.
pub fn sign(key: &SecretSlice<u8>, request: &Signable<'_>) -> [(&'static str, String); 3] {
    let Signable {
        method,
        path_and_query,
        host,
        date,
        body,
    } = request;
    let content = STANDARD.encode(Sha256::digest(body));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret())
        .expect("HMAC takes a key of any length");
    mac.update(format!("{method}\n{path_and_query}\n{date};{host};{content}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let authorization = format!(
        "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
    );
    [
        ("x-ms-date", (*date).to_owned()),
        ("x-ms-content-sha256", content),
        ("authorization", authorization),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the vendor's own Python SDK with its clock stopped.
    #[test]
    fn the_vendors_own_signatures_are_made() {
        const CALL: &str = "/calling/callConnections/11112222-3333-4444-5555-666677778888";
        const EMPTY: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let key = SecretSlice::from((0..32).collect::<Vec<u8>>());
        for (method, path_and_query, second, body, content, signature) in [
            (
                "POST",
                "/calling/callConnections:answer?api-version=2025-05-15".to_owned(),
                30,
                r#"{"incomingCallContext":"ctx-1","callbackUri":"https://gw.example.com/acs/callbacks/c1"}"#,
                "XrA0GRenpIsheHTOV5NKXDb5l4JcMzGzqOOfPGOR54o=",
                "B3D9eE/2PXJIOwGlAGgHHna+rC1cTzbuWHruhFa6/hw=",
            ),
            (
                "GET",
                format!("{CALL}?api-version=2025-05-15"),
                31,
                "",
                EMPTY,
                "epRtWPXR6HtfV3vVAsXwcnv+4kDj3rrIfgDW5Mx55XM=",
            ),
            (
                "GET",
                format!("{CALL}/participants/4%3A%2B14255550123?api-version=2025-05-15"),
                32,
                "",
                EMPTY,
                "2COFlyxIVc7+Co0m4zS/5E8O1YFL7wXIrDaRtsMdj3c=",
            ),
        ] {
            let date = format!("Tue, 06 Jan 2026 10:20:{second} GMT");
            let request = Signable {
                method,
                path_and_query: &path_and_query,
                host: "contoso-voice.unitedstates.communication.azure.com",
                date: &date,
                body: body.as_bytes(),
            };
            let authorization = format!(
                "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
            );
            let expected = [
                ("x-ms-date", date.clone()),
                ("x-ms-content-sha256", content.to_owned()),
                ("authorization", authorization),
            ];
            assert_eq!(sign(&key, &request), expected);
        }
    }
}
