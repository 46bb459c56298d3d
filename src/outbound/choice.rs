//! Who places a call.

use crate::{
    call::OutboundCarrier,
    campaign::Campaign,
    config::{ApiSettings, Unset},
    gateway::Gateway,
    outbound::{MachineDetection, Refused, Request, request::invalid},
};

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
