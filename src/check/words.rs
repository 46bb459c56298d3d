//! What the check says of what it finds, and what to do about it.
//!
//! Invariant: no secret is in it: errors come without addresses, and addresses without queries.

use std::time::Duration;

use crate::{
    admission::StoreError,
    agent::AgentError,
    carrier::twilio::{CallError, hint},
    check::{
        clock,
        finding::{Credentials, Finding, Way},
        grace::AFTER_DRAIN,
    },
    guard::{GuardedUrl, Whereabouts},
};

const TWILIO_UNTRIED: &str = "not tried: set TWILIO_ACCOUNT_SID, with which Twilio can be asked \
     whether the token is its account's; calls of other accounts are refused then";
const GRACE_UNKNOWN: &str = "not compared: set TERMINATION_GRACE_SECONDS, or --grace, to the seconds \
     after which whoever stops this process kills it";

/// Returns what was found, and what to do about it unless it is as it should be.
pub fn what(finding: &Finding) -> String {
    match finding {
        Finding::SettingsFit => "every one is understood".to_owned(),
        Finding::NoCampaignFile => "none (CALLGATE_CONFIG): one campaign answers".to_owned(),
        Finding::TemplatesFit => "every text makes an answer".to_owned(),
        Finding::PromptsFit => "every one can be played".to_owned(),
        Finding::SettingOdd(told)
        | Finding::SettingWrong(told)
        | Finding::CampaignFileOdd(told)
        | Finding::CampaignFileWrong(told)
        | Finding::TemplateWrong(told)
        | Finding::PromptWrong(told) => told.clone(),
        Finding::CampaignFileFits(counts) => format!(
            "{} campaigns of {} tenants, {} numbers, {} agents beside the environment's",
            counts.campaigns, counts.tenants, counts.numbers, counts.agents
        ),
        Finding::ListenFree(listen) => format!("{listen} is free"),
        Finding::ListenServes(listen) => format!("a gateway serves on {listen} already"),
        Finding::ListenTaken(listen, error) => {
            format!("{listen} cannot be used: {error}; choose another address or port")
        }
        Finding::PublicUrlUnset(listen) => format!(
            "not set: carriers would have to reach http://{listen}; set it to the https address \
             that they use"
        ),
        Finding::PublicUrlPrivate(url) => {
            format!("{url} is nothing that a carrier can reach from outside")
        }
        Finding::PublicUrlPlain(url) => {
            format!("{url} is not https: what callers say would go in the open")
        }
        Finding::PublicUrlFits(url) => url.to_string(),
        Finding::Way(way) => of_way(way),
        Finding::TwilioOpen => "open".to_owned(),
        Finding::TwilioClosed => "closed: set TWILIO_AUTH_TOKEN to open it".to_owned(),
        Finding::TwilioUntried => TWILIO_UNTRIED.to_owned(),
        Finding::CredentialsFit(_) => "it takes our credentials".to_owned(),
        Finding::TwilioWrong(credentials, error) => of_twilio(*credentials, error),
        Finding::AcsWrong(error) => format!(
            "{}; is ACS_CONNECTION_STRING, or ACS_ENDPOINT and the application, of this resource, \
             and the machine's clock right?",
            chain(error)
        ),
        Finding::SlotsInMemory => "in memory: caps hold for one process".to_owned(),
        Finding::SlotsFlawed { flaw, .. } => flaw.to_string(),
        Finding::SlotsFit(server) => format!("{server} gives slots and takes them back"),
        Finding::SlotsFail(error) => of_store(error),
        Finding::ReplicasFit(live) => format!("{live} replicas live"),
        Finding::ReplicasMore { live, expected } => format!(
            "{live} replicas live, and it is {expected}: set it to the most there may be, or one that \
             is started while Redis is away admits too many"
        ),
        Finding::DatabaseNew(path) => format!("{} is made by the first start", path.display()),
        Finding::DatabaseNoPlace(path, error) => format!(
            "{} cannot be made: {error}; choose a folder that callgate may write to",
            path.display()
        ),
        Finding::DatabaseFits => "it is up to date, and takes rows".to_owned(),
        Finding::DatabasePending(pending) => {
            format!("{pending} migrations are pending: the next start makes them")
        }
        Finding::DatabaseForeign(versions) => format!(
            "its migrations {versions:?} are not ours or broke off: is this callgate's database? \
             See what the table _sqlx_migrations says"
        ),
        Finding::DatabaseReadOnly(error) => format!(
            "it does not let us write: {}; name the primary, and grant the user of DATABASE_URL \
             its tables and, for migrations, the schema",
            chain(error)
        ),
        Finding::DatabaseAway(error) => {
            format!(
                "{}; is DATABASE_URL right, and the server up?",
                chain(error)
            )
        }
        Finding::Endpoint {
            url, whereabouts, ..
        } => of_endpoint(url, *whereabouts),
        Finding::Certificates(error) => format!(
            "no certificates to trust them by: {error}; is AGENT_CA_FILE, if it is set, a PEM file that \
             callgate may read?"
        ),
        Finding::AgentWithin(_) => "the parrot within callgate".to_owned(),
        Finding::AgentReady(_, at) => format!("{at} is ready to talk"),
        Finding::AgentFails(_, at, error) => format!("{at} {}", of_agent(error)),
        Finding::ClockFits(_) => "it agrees with ours".to_owned(),
        Finding::ClockOff(_, ahead) => format!(
            "{} ours: {}",
            clock::apart(*ahead),
            "let a time service set both, or what is signed and leased is refused or lapses early"
        ),
        Finding::GraceFits(grace) => {
            format!("{} s of grace are enough to drain", grace.as_secs())
        }
        Finding::GraceUnknown => GRACE_UNKNOWN.to_owned(),
        Finding::GraceShort { grace, drain } => of_grace(*grace, *drain),
        Finding::Unfinished(_) => "it took too long; try it again".to_owned(),
    }
}

fn of_endpoint(url: &GuardedUrl, whereabouts: Whereabouts) -> String {
    match whereabouts {
        Whereabouts::Fit => format!("{url} may be told"),
        Whereabouts::Proxied => format!("{url} is looked up by EGRESS_PROXY"),
        Whereabouts::Blocked => {
            format!("{url} has no public address: nothing is sent there; name a public host")
        }
        Whereabouts::Unknown => format!("{url} has no address: is its name right?"),
    }
}

fn of_grace(grace: Duration, drain: Duration) -> String {
    let needed = (drain + AFTER_DRAIN).as_secs();
    let fits = grace.saturating_sub(AFTER_DRAIN).as_secs();
    format!(
        "{} s, and the platform kills after {} s: give it {needed} s, or set DRAIN_SECONDS to \
         {fits} at most",
        drain.as_secs(),
        grace.as_secs()
    )
}

fn of_way(way: &Way) -> String {
    match way {
        Way::Silent {
            error,
            serves: false,
        } => format!(
            "nobody answers at PUBLIC_URL: {}; try again beside a gateway that serves",
            chain(error)
        ),
        Way::Silent {
            error,
            serves: true,
        } => format!(
            "nobody answers at PUBLIC_URL, though a gateway serves here: {}; do its name, the \
             proxy and the firewall lead here?",
            chain(error)
        ),
        Way::Redirects { status, to } => {
            let to = to.as_ref().map_or("elsewhere".to_owned(), |to| {
                format!("to {}", to.origin().ascii_serialization())
            });
            format!(
                "PUBLIC_URL redirects {to} (status {status}), and a redirected webhook loses its \
                 form: set PUBLIC_URL to where it leads, or take the redirect away"
            )
        }
        Way::NobodyBehind { status } => format!(
            "a proxy answers at PUBLIC_URL (status {status}), and no gateway behind it yet; try again \
             beside one that serves"
        ),
        Way::Stranger { status } => format!(
            "whoever answers at PUBLIC_URL is no gateway (status {status} to /health/live): does \
             the proxy pass every path on as it is?"
        ),
        Way::Answers => "a gateway answers at PUBLIC_URL".to_owned(),
        Way::Unsigned => "not tried, nor is the way of media: both are signed by \
             TWILIO_AUTH_TOKEN, and there are TWILIO_SHARED_KEYS alone"
            .to_owned(),
        Way::SignatureFits => "a request that is signed for PUBLIC_URL is taken".to_owned(),
        Way::SignatureRefused => {
            "a request that is signed for PUBLIC_URL is refused: the gateway that answers has \
             another PUBLIC_URL, TWILIO_AUTH_TOKEN or TWILIO_ACCOUNT_SID, or the proxy changes the \
             path"
                .to_owned()
        }
        Way::WebhookLost { status } => format!(
            "a webhook gets status {status}: does the proxy pass POST /webhook/… on, and are the \
             replicas behind it up?"
        ),
        Way::WebhookBroken(error) => format!(
            "a webhook gets no answer: {}; are the replicas behind the proxy up, and does it pass \
             POST on to them?",
            chain(error)
        ),
        Way::UpgradeFits => "a WebSocket comes through".to_owned(),
        Way::UpgradeStripped { status } => format!(
            "a WebSocket arrives as a plain request (status {status}): let the proxy pass on the \
             headers Upgrade and Connection, as deploy/nginx.conf does"
        ),
        Way::UpgradeNoRoom => {
            "the gateway takes no media socket at present: it drains, or is full; try again when it \
             has ended or calls have, or raise MAX_CONNECTIONS"
                .to_owned()
        }
        Way::UpgradeRefused { status } => format!(
            "a WebSocket gets status {status}: does the proxy pass /twilio/media and /acs/ws/… on as \
             they are?"
        ),
        Way::UpgradeBroken(error) => format!(
            "a WebSocket gets no answer: {error}; does the proxy speak HTTP/1.1 to the replicas, and \
             let connections live?"
        ),
    }
}

fn of_twilio(credentials: Credentials, error: &CallError) -> String {
    let which = match credentials {
        Credentials::TwilioApi | Credentials::Acs => {
            "TWILIO_ACCOUNT_SID, and TWILIO_API_KEY_SID with its secret or TWILIO_AUTH_TOKEN"
        }
        Credentials::TwilioToken => "TWILIO_AUTH_TOKEN",
    };
    let told = chain(error);
    match error {
        CallError::Unauthorized { .. } => format!(
            "{told}{}; check {which}, and whether the key may list calls",
            error
                .code()
                .map_or(String::new(), |code| format!(" ({code}: {})", hint(code)))
        ),
        CallError::Refused { .. } => format!("{told}; check {which}"),
        CallError::Unreachable(_)
        | CallError::Throttled { .. }
        | CallError::Failed { .. }
        | CallError::TooSlow
        | CallError::BrokenOff(_)
        | CallError::Garbled => {
            format!("{told}; try again, and check TWILIO_API_BASE if it is set")
        }
    }
}

/// Says what the store has answered, and what to do about it.
fn of_store(error: &StoreError) -> String {
    let hint = match error.class() {
        "noauth" => "user and password belong into REDIS_URL",
        "noperm" => "the ACL rule that it takes is in docs/replicas.md",
        "readonly" => "name its primary",
        "oom" => "it is full: give it more memory, or clear it up",
        "cluster" => "is the cluster up, REDIS_CLUSTER=1 set, and REDIS_KEY_PREFIX in braces?",
        _ => "is REDIS_URL right, and the server up?",
    };
    format!("{error} ({hint})")
}

fn of_agent(error: &AgentError) -> String {
    match error {
        AgentError::Unreachable(_) | AgentError::TooSlow => {
            format!("cannot be reached: {}; is the address right?", chain(error))
        }
        AgentError::Refused(401 | 403) => {
            format!("does not take our credentials: {error}; is the key right, and of this server?")
        }
        AgentError::NoToken(_) => format!(
            "needs a token: {}; check VOICE_LIVE_TENANT_ID, VOICE_LIVE_CLIENT_ID and \
             VOICE_LIVE_CLIENT_SECRET",
            chain(error)
        ),
        AgentError::Refused(404) => {
            format!("knows nothing there: {error}; are the address and the model right?")
        }
        AgentError::Refused(_)
        | AgentError::Closed
        | AgentError::Garbled
        | AgentError::WrongFormat
        | AgentError::Failed(_)
        | AgentError::Resting
        | AgentError::Lost => format!(
            "is not ready to talk: {}; are the model and its settings right?",
            chain(error)
        ),
    }
}

/// Returns an error with its sources.
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    let told: Vec<_> = sources.map(ToString::to_string).collect();
    told.join(": ")
}
