//! Whose a call is, who calls, and who places it.

use std::sync::Arc;

use crate::{
    call::{CallerId, OutboundCarrier, PhoneNumber},
    campaign::{Campaign, Name},
    config::{ApiSettings, Unset},
    gateway::Gateway,
    outbound::{MachineDetection, Refused, Request, request::invalid},
};

/// Returns whose call it is: the named campaign of the tenant's, or its own or only one.
///
/// # Errors
/// If the tenant has none of that name, or has to name one.
pub fn campaign_of(
    gateway: &Gateway,
    tenant: &Name,
    request: &Request,
) -> Result<Arc<Campaign>, Refused> {
    let campaigns = gateway.campaigns.current();
    let named = if let Some(name) = &request.campaign {
        campaigns.named(name)
    } else {
        let default = campaigns.default_campaign();
        let mut of_tenant = campaigns.all().filter(|it| it.tenant == *tenant);
        let first = of_tenant.next();
        let only = first.filter(|_| of_tenant.next().is_none());
        let own = (default.tenant == *tenant).then_some(default);
        own.or(only).cloned()
    };
    let own = named.filter(|campaign| campaign.tenant == *tenant);
    own.ok_or_else(|| invalid("campaign", "one of the tenant's campaigns"))
}

/// Returns who calls: what the request says, as long as it is the campaign's or the operator's.
///
/// # Errors
/// If it is neither, or there is none.
pub fn caller_id(
    gateway: &Gateway,
    request: &Request,
    campaign: &Campaign,
) -> Result<PhoneNumber, Refused> {
    let settings = &gateway.outbound.settings;
    let Some(from) = &request.from else {
        let missing = || invalid("from", "not given, and there is no OUTBOUND_FROM");
        return settings.from.clone().ok_or_else(missing);
    };
    let from: PhoneNumber = from
        .parse()
        .map_err(|_| invalid("from", "a number in E.164, such as +972722234567"))?;
    let answering = gateway.campaigns.current();
    let answering = answering.answering(&CallerId::Number(from.clone()));
    if settings.from.as_ref() == Some(&from) || answering.is_some_and(|it| it.id == campaign.id) {
        Ok(from)
    } else {
        Err(invalid(
            "from",
            "one of the campaign's numbers, or OUTBOUND_FROM",
        ))
    }
}

/// Returns who places a campaign's call: whom the campaign names, else the environment, else the
/// carrier that is open.
///
/// # Errors
/// If nobody can, with what has to be set; or if that carrier does not do what is asked for.
pub fn carrier_of(
    gateway: &Gateway,
    campaign: &Campaign,
    request: &Request,
) -> Result<OutboundCarrier, Refused> {
    let settings = &gateway.outbound.settings;
    let wanted = campaign.outbound_carrier.or(settings.carrier);
    let carrier = choose(wanted, &settings.twilio, gateway.acs.is_some());
    let carrier = carrier.map_err(Refused::Closed)?;
    let listens = request.terms.detection != MachineDetection::Off;
    match carrier {
        OutboundCarrier::Acs if listens => {
            let rule = "off: the call is placed by ACS, which does not listen for machines";
            Err(invalid("machine_detection", rule))
        }
        OutboundCarrier::Twilio | OutboundCarrier::Acs => Ok(carrier),
    }
}

fn choose(
    wanted: Option<OutboundCarrier>,
    twilio: &Result<ApiSettings, Unset>,
    acs_is_open: bool,
) -> Result<OutboundCarrier, String> {
    const ACS: &str = "ACS_CONNECTION_STRING and EVENTGRID_SECRET";
    match (wanted, twilio, acs_is_open) {
        (Some(OutboundCarrier::Twilio) | None, Ok(_), _) => Ok(OutboundCarrier::Twilio),
        (Some(OutboundCarrier::Acs) | None, _, true) => Ok(OutboundCarrier::Acs),
        (Some(OutboundCarrier::Twilio), Err(unset), _) => Err(unset.to_string()),
        (Some(OutboundCarrier::Acs), _, false) => Err(ACS.to_owned()),
        (None, Err(unset), false) => Err(format!("{unset}; or else {ACS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    /// Reads how Twilio would be asked for a call.
    fn twilio(is_set: bool) -> Result<ApiSettings, Unset> {
        let config = Config::load(|name| match name {
            "TWILIO_ACCOUNT_SID" if is_set => Some(format!("AC{}", "0".repeat(32))),
            "TWILIO_AUTH_TOKEN" if is_set => Some("0".repeat(32)),
            _ => None,
        });
        config.unwrap().outbound.twilio
    }

    #[test]
    fn who_is_named_places_the_call_and_else_whoever_is_open() {
        use OutboundCarrier::{Acs, Twilio};
        for (wanted, has_twilio, has_acs, chosen) in [
            (None, true, true, Ok(Twilio)),
            (None, true, false, Ok(Twilio)),
            (None, false, true, Ok(Acs)),
            (None, false, false, Err(["TWILIO_ACCOUNT_SID", "ACS_"])),
            (Some(Acs), true, true, Ok(Acs)),
            (Some(Twilio), true, true, Ok(Twilio)),
            (Some(Acs), true, false, Err(["ACS_", "EVENTGRID_SECRET"])),
            (Some(Twilio), false, true, Err(["TWILIO_", "ACCOUNT_SID"])),
        ] {
            let told = choose(wanted, &twilio(has_twilio), has_acs);
            match (told, chosen) {
                (Ok(told), Ok(chosen)) => assert_eq!(told, chosen),
                (Err(told), Err(names)) => {
                    assert!(names.iter().all(|name| told.contains(name)), "{told}");
                }
                (told, chosen) => panic!("{told:?} is not {chosen:?}"),
            }
        }
    }
}
