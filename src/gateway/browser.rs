//! Calls from browsers: whose they are, and how many one address may have.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::StatusCode, http::header, web};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::{Host, Url};

use crate::{
    api::{Action, Change},
    call::{CallId, CarrierCallId},
    campaign::Campaign,
    gateway::Gateway,
    operator::{By, Denied, Operator, note_or_log},
};

/// How long a token may be kept before its call.
const TOKEN_KEPT_SECONDS: i64 = 60;
/// What tokens are sealed for.
const PURPOSE: &str = "web call";

/// The right to one browser call.
pub struct WebPass {
    pub call: CarrierCallId,
    pub campaign: Arc<Campaign>,
}

/// How many browser calls each address has.
#[derive(Debug, Default)]
pub struct WebSeats(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One address's place among the browser calls; dropping it makes room.
pub struct WebSeat {
    seats: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

/// Why a browser may not call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBrowser {
    #[error("browser calls are closed here (WEB_CALLS)")]
    Closed,
    #[error("the page is from another origin")]
    OtherOrigin,
    #[error("without tokens this is called by PUBLIC_URL's host or by loopback only")]
    OtherHost,
    #[error("this address has too many browser calls")]
    TooMany,
    #[error("there is no campaign of this name")]
    NoCampaign,
}

/// Why a browser's call is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPass {
    #[error("the token is missing, used or expired")]
    Token,
    #[error("there is no campaign of this name")]
    Campaign,
}

/// What a token says: its call, and so that it is good once.
#[derive(Serialize, Deserialize)]
struct Token {
    call: String,
    campaign: String,
    /// Unix seconds.
    until: i64,
}

/// `POST /web/tokens`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    #[serde(default)]
    campaign: Option<String>,
}

/// `POST /web/tokens`: an operator makes a token for one browser call.
pub async fn make_token(
    operator: Operator,
    order: web::Json<Order>,
    gateway: web::Data<Gateway>,
) -> Result<HttpResponse, actix_web::Error> {
    if !operator.may_change() {
        return Err(Denied::ReadOnly.into());
    }
    // A browser's login comes along with whatever its pages ask for, and this is no form of ours.
    if matches!(operator.by(), By::Login(_)) {
        return Err(Denied::NoToken.into());
    }
    let campaign = gateway.web_campaign(order.campaign.as_deref());
    let campaign = campaign.ok_or(NoBrowser::NoCampaign)?;
    let call = CarrierCallId::of_browser();
    let target = CallId::of(&call).to_string();
    let change = Change::by_actor(operator.by().actor(), Action::MakeWebToken, &target);
    let change = change.of(&campaign.tenant);
    note_or_log(
        &gateway,
        change.became(json!({"campaign": campaign.id.as_str()})),
    )
    .await;
    let token = Token {
        call: call.as_str().to_owned(),
        campaign: campaign.id.to_string(),
        until: Timestamp::now().as_second() + TOKEN_KEPT_SECONDS,
    };
    Ok(HttpResponse::Created().json(json!({
        "token": gateway.seal.close(PURPOSE, &token),
        "expires_in": TOKEN_KEPT_SECONDS,
        "campaign": token.campaign,
    })))
}

impl Gateway {
    /// Lets a page of ours in, and no other: any site could open a socket to us otherwise.
    ///
    /// # Errors
    /// If browser calls are closed, or the page is another site's.
    pub(crate) fn check_browser(&self, request: &HttpRequest) -> Result<(), NoBrowser> {
        if !self.web.open {
            return Err(NoBrowser::Closed);
        }
        let header = |name| request.headers().get(name).and_then(|it| it.to_str().ok());
        if !self.knows_host(header(header::HOST)) {
            return Err(NoBrowser::OtherHost);
        }
        let Some(origin) = header(header::ORIGIN) else {
            // No browser leaves it out; what is none needs no protection from other sites.
            return Ok(());
        };
        let ours = self.public.origin();
        let same_host = || {
            let host = origin.split_once("://").map(|(_, host)| host);
            !self.web.needs_token && host.is_some() && host == header(header::HOST)
        };
        if origin == ours || same_host() {
            Ok(())
        } else {
            Err(NoBrowser::OtherOrigin)
        }
    }

    /// Tells whether a browser may call us by this host. Where a call takes no token, a site could
    /// have its own name lead to us, and its page be of the same origin then.
    pub(crate) fn knows_host(&self, host: Option<&str>) -> bool {
        if self.web.needs_token {
            return true;
        }
        let url = host.and_then(|host| Url::parse(&format!("http://{host}")).ok());
        match url.as_ref().and_then(Url::host) {
            Some(Host::Ipv4(address)) if address.is_loopback() => true,
            Some(Host::Ipv6(address)) if address.is_loopback() => true,
            Some(Host::Domain("localhost")) => true,
            host => host.is_some() && host == self.public.base.host(),
        }
    }

    /// Returns the call that a token is for, or, where none is needed, a new one.
    ///
    /// # Errors
    /// If the token is missing or not good, or nothing has the campaign's name.
    pub(crate) fn web_pass(
        &self,
        token: Option<&str>,
        campaign: Option<&str>,
    ) -> Result<WebPass, NoPass> {
        let (call, campaign) = match token {
            Some(token) => {
                let token: Option<Token> = self.seal.open(PURPOSE, token);
                let now = Timestamp::now().as_second();
                let token = token.filter(|token| now <= token.until);
                let token = token.ok_or(NoPass::Token)?;
                let call = CarrierCallId::try_from(token.call).map_err(|_| NoPass::Token)?;
                (call, self.web_campaign(Some(&token.campaign)))
            }
            None if self.web.needs_token => return Err(NoPass::Token),
            None => (CarrierCallId::of_browser(), self.web_campaign(campaign)),
        };
        let campaign = campaign.ok_or(NoPass::Campaign)?;
        Ok(WebPass { call, campaign })
    }

    fn web_campaign(&self, name: Option<&str>) -> Option<Arc<Campaign>> {
        let campaigns = self.campaigns.current();
        match name {
            Some(name) => campaigns.named(name),
            None => Some(Arc::clone(campaigns.default_campaign())),
        }
    }

    /// Takes a place among the browser calls of the address that a request comes from.
    ///
    /// # Errors
    /// If the address has too many already.
    pub(crate) fn web_seat(&self, request: &HttpRequest) -> Result<WebSeat, NoBrowser> {
        let address = address_of(request).ok_or(NoBrowser::TooMany)?;
        let seats = Arc::clone(&self.web_seats.0);
        let mut taken = seats.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.entry(address).or_default();
        if *of_address >= self.web.per_address {
            return Err(NoBrowser::TooMany);
        }
        *of_address += 1;
        drop(taken);
        Ok(WebSeat { seats, address })
    }
}

/// Returns who a request comes from. A proxy within the house tells; whoever comes from outside
/// could say anything.
pub fn address_of(request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let is_inside = match peer {
        IpAddr::V4(peer) => peer.is_loopback() || peer.is_private(),
        IpAddr::V6(peer) => peer.is_loopback() || peer.is_unique_local(),
    };
    let forwarded = request.headers().get("x-forwarded-for");
    // The nearest proxy adds the last one, and is the one that can be believed.
    let last = forwarded.and_then(|it| it.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    Some(household(last.filter(|_| is_inside).unwrap_or(peer)))
}

/// Returns whose an address is: who has one of IPv6 has all that share its first 64 bits.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
    }
}

impl Drop for WebSeat {
    fn drop(&mut self) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.address) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.address);
            }
        }
    }
}

impl ResponseError for NoBrowser {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Closed | Self::OtherOrigin | Self::OtherHost => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NoCampaign => StatusCode::NOT_FOUND,
        }
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code())
            .content_type("text/plain; charset=utf-8")
            .body(self.to_string())
    }
}
