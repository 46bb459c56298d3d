//! The way that carriers' requests take: `PUBLIC_URL`, the proxy behind it, and a gateway.

use reqwest::{Client, Response, header::LOCATION};
use secrecy::SecretString;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    client_async_tls,
    tungstenite::{self, ClientRequestBuilder},
};
use url::Url;

use crate::{
    bridge::call::acs::REFUSED,
    check::{
        PATIENCE,
        finding::{Finding, Way},
    },
    config::Config,
    webhook::twilio::signature::sign,
};

/// A call that there is not, and a status that changes nothing: that it rings.
const NO_CALL: &str = "CA00000000000000000000000000000000";
/// The longest answer that is read of whoever answers, in bytes.
const LONGEST_ANSWER: usize = 4 << 10;

/// Sends what carriers send, as far as it changes nothing; `serves` tells whether a gateway serves
/// on this machine.
pub async fn probe(config: &Config, http: &Client, serves: bool) -> Vec<Finding> {
    let Some(url) = &config.public_url else {
        return Vec::new();
    };
    let root = url.as_str().trim_end_matches('/');
    if let Err(astray) = alive(http, root, serves).await {
        return vec![Finding::Way(astray)];
    }
    let Some(token) = config.twilio.auth_tokens.first() else {
        // There is nothing to sign with.
        let mut found = vec![Finding::Way(Way::Answers)];
        if config.twilio.is_open() {
            found.push(Finding::Way(Way::Unsigned));
        }
        if config.acs.is_open() {
            found.push(Finding::Way(media_of_acs(root).await));
        }
        return found;
    };
    let account = config.twilio.account.as_deref();
    let webhook = webhook(http, root, token, account).await;
    let mut media = media(root, token).await;
    if matches!(media, Way::UpgradeFits) && config.acs.is_open() {
        media = media_of_acs(root).await;
    }
    vec![Finding::Way(webhook), Finding::Way(media)]
}

/// Asks whoever answers whether it is a gateway.
async fn alive(http: &Client, root: &str, serves: bool) -> Result<(), Way> {
    let answer = http.get(format!("{root}/health/live")).send().await;
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let error = error.without_url();
            return Err(Way::Silent { error, serves });
        }
    };
    let status = answer.status().as_u16();
    if answer.status().is_redirection() {
        return Err(redirects(&answer));
    }
    let mut body = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        body.extend_from_slice(&part);
        if body.len() > LONGEST_ANSWER {
            break;
        }
    }
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == 200 && said["status"] == "alive" {
        Ok(())
    } else if !serves && matches!(status, 502..=504) {
        Err(Way::NobodyBehind { status })
    } else {
        Err(Way::Stranger { status })
    }
}

/// Tells of a call that there is not that it rings, as Twilio would.
async fn webhook(http: &Client, root: &str, token: &SecretString, account: Option<&str>) -> Way {
    let url = format!("{root}/webhook/call_status");
    let fields = [("CallSid", NO_CALL), ("CallStatus", "ringing")];
    let fields = fields
        .into_iter()
        .chain(account.map(|it| ("AccountSid", it)));
    let fields: Vec<_> = fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let signature = sign(token, &url, &fields);
    let request = http.post(url).header("X-Twilio-Signature", signature);
    match request.form(&fields).send().await {
        Ok(answer) if answer.status().is_redirection() => redirects(&answer),
        Ok(answer) => match answer.status().as_u16() {
            204 => Way::SignatureFits,
            403 => Way::SignatureRefused,
            status => Way::WebhookLost { status },
        },
        Err(error) => Way::WebhookBroken(error.without_url()),
    }
}

/// Opens a media socket as Twilio would, and closes it before it brings a call.
async fn media(root: &str, token: &SecretString) -> Way {
    let url = socket(root, "/twilio/media");
    let signature = sign(token, &url, &[]);
    upgrade(&url, &[("X-Twilio-Signature", &signature)]).await
}

/// Asks for a media socket as ACS would, by a ticket that there is not: a gateway that sees that a
/// WebSocket is asked for says that it has refused it.
async fn media_of_acs(root: &str) -> Way {
    upgrade(&socket(root, "/acs/ws/check"), &[]).await
}

/// Returns a socket's address: https becomes wss, and http ws.
fn socket(root: &str, path: &str) -> String {
    format!("ws{}{path}", root.trim_start_matches("http"))
}

async fn upgrade(url: &str, headers: &[(&str, &str)]) -> Way {
    match timeout(PATIENCE, open(url, headers)).await {
        Ok(Ok(())) => Way::UpgradeFits,
        Ok(Err(tungstenite::Error::Http(answer))) if is_ours(&answer) => Way::UpgradeFits,
        Ok(Err(tungstenite::Error::Http(answer))) => match answer.status().as_u16() {
            // What a gateway says to a request that asks for no WebSocket.
            status @ (400 | 426) => Way::UpgradeStripped { status },
            503 => Way::UpgradeNoRoom,
            status => Way::UpgradeRefused { status },
        },
        Ok(Err(error)) => Way::UpgradeBroken(error.to_string()),
        Err(_) => Way::UpgradeBroken(format!("nothing came within {PATIENCE:?}")),
    }
}

/// Tells whether a gateway has refused a socket that came through.
fn is_ours<B>(answer: &tungstenite::http::Response<B>) -> bool {
    let (name, value) = REFUSED;
    answer.headers().get(name).is_some_and(|it| it == value)
}

async fn open(url: &str, headers: &[(&str, &str)]) -> Result<(), tungstenite::Error> {
    let parsed: Url = url.parse().expect("a base and a path make a URL");
    let host = parsed.host_str().unwrap_or_default();
    let port = parsed.port_or_known_default().unwrap_or(443);
    let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let uri = url.parse().expect("a URL with a host is a URI");
    let request = headers
        .iter()
        .fold(ClientRequestBuilder::new(uri), |request, (name, value)| {
            request.with_header(*name, *value)
        });
    let (mut socket, _) = client_async_tls(request, tcp).await?;
    let _ = socket.close(None).await; // It has been opened, whatever becomes of it.
    Ok(())
}

fn redirects(answer: &Response) -> Way {
    let to = answer.headers().get(LOCATION);
    let to = to.and_then(|to| to.to_str().ok());
    Way::Redirects {
        status: answer.status().as_u16(),
        to: to.and_then(|to| answer.url().join(to).ok()),
    }
}
