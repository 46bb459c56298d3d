use super::*;

fn countries(names: &str) -> Countries {
    names.parse().unwrap()
}

#[test]
fn the_number_that_a_refusal_shows_may_be_called() {
    let refused = countries("IL").read("0502345678").unwrap_err().to_string();
    let (_, example) = refused.rsplit_once(' ').unwrap();
    assert!(countries("IL").read(example).is_ok(), "{refused}");
}

#[test]
fn ordinary_numbers_of_allowed_countries_are_called() {
    let allowed = countries("IL, us,GB,DE,IT,FR,TW,BD");
    for number in [
        "+972502345678", // mobile
        "+97221234567",  // Jerusalem
        "+972722234567", // over the Internet
        "+97237654321",
        "+12025550123",
        "+16502530000",
        "+442079460123",
        "+447400123456",
        "+493012345678",
        "+4915123456789",
        "+390236618300", // Milan keeps its zero
        "+393123456789",
        "+33612345678",
        "+33142685300",
        "+18002530000",  // free of charge
        "+886912345678", // Taiwan and Bangladesh begin as satellites do
        "+8801712345678",
    ] {
        let read = allowed.read(number);
        assert_eq!(read.map(|it| it.reveal().to_owned()).as_deref(), Ok(number));
    }
}

#[test]
fn dear_numbers_are_refused_whatever_countries_are_allowed() {
    let everywhere = countries("IL,US,CA,GB,DE,FR,IT,AU,ES,CH,JM,LV,AT,BE,NL,PL,SE,JP,KR,ZA,BR");
    let (premium, shared) = (Kind::Premium, Kind::SharedCost);
    for (number, kind) in [
        ("+9721900123456", premium),
        ("+9721902123456", premium),
        ("+19002345678", premium),
        ("+19765551234", premium),
        ("+449012345678", premium),
        ("+449098765432", premium),
        ("+448712345678", premium),
        ("+448431234567", premium),
        ("+449116123456", premium),
        ("+4990012345678", premium),
        ("+499001234567", premium),
        ("+49180123456", shared),
        ("+33891123456", premium),
        ("+33899123456", premium),
        ("+33810123456", shared),
        ("+39899123456", premium),
        ("+39892123", premium),
        ("+611900123456", premium),
        ("+34803123456", premium),
        ("+34806123456", premium),
        ("+34901123456", shared),
        ("+41900123456", premium),
        ("+41840123456", shared),
        ("+43900123456", premium),
        ("+3290012345", premium),
        ("+31900123456", premium),
        ("+48700123456", premium),
        ("+46900123456", premium),
        ("+37190012345", premium),
        ("+81990123456", premium),
        ("+27862345678", premium),
        ("+55900312345", premium),
        ("+447012345678", Kind::Personal),
        ("+447640123456", Kind::Pager),
    ] {
        let refused = everywhere.read(number).unwrap_err();
        let expected = NumberError::Kind(kind);
        // A plan may know a dear range as none at all: refused is what counts.
        assert!(
            refused == expected || refused == NumberError::Invalid,
            "{number}: {refused}"
        );
    }
}

#[test]
fn no_satellite_no_network_and_no_short_code_is_called() {
    let everywhere = countries("IL,US,GB");
    for number in [
        "+870773111632", // Inmarsat
        "+87012345678901",
        "+8816214151234", // Iridium
        "+881650123456",  // Globalstar
        "+88213300655",   // Thuraya's, and other networks'
        "+8835100012345",
        "+888123456789",
        "+979123456789", // international premium rate
        "+80812345678",  // international shared cost
        "+80012345678",  // international freephone
        "+878101234567890",
        "+999123456",
    ] {
        let refused = everywhere.read(number);
        assert_eq!(refused, Err(NumberError::International), "{number}");
    }
    for number in [
        "+972100",
        "+97212",
        "+1911",
        "+1411",
        "+44999",
        "+44112",
        "+112",
        "+972144",
        "+15",
        "+1",
        "+12345",
        "+11234567890",
        "+10002345678",
        "+15555",
        "+97250123456",
        "+9725012345678",
        "+440142685300",
        "+3300612345678",
        "+210123456789",
    ] {
        let refused = everywhere.read(number).unwrap_err();
        let expected = [NumberError::Invalid, NumberError::NotE164];
        assert!(expected.contains(&refused), "{number}: {refused}");
    }
}

#[test]
fn what_is_not_written_as_e164_is_no_number() {
    let allowed = countries("IL");
    for text in [
        "",
        "+",
        "972501234567",
        "050-1234567",
        "+972-50-123-4567",
        "+972 501234567",
        "+972501234567x5",
        "tel:+972501234567",
        "sip:a@b.c",
        "client:dana",
        "+97250123456٧",
        "+972501234567;ext=1",
        "whatsapp:+972501234567",
        "+9725012345678901",
    ] {
        assert_eq!(allowed.read(text), Err(NumberError::NotE164), "{text}");
    }
}

#[test]
fn other_countries_are_not_called_and_none_at_all_before_one_is_allowed() {
    let none = Countries::default();
    assert_eq!(none.read("+972502345678"), Err(NumberError::NoCountries));
    let (israel, states) = (countries("IL"), countries("US"));
    for (allowed, number, country) in [
        (&israel, "+12025550123", "US"),
        (&israel, "+442079460123", "GB"),
        // Countries that share a code are countries nevertheless.
        (&states, "+18762345678", "JM"),
        (&states, "+18092345678", "DO"),
        (&states, "+14412345678", "BM"),
        (&states, "+16137827274", "CA"),
    ] {
        let refused = Err(NumberError::Country(country.to_owned()));
        assert_eq!(allowed.read(number), refused, "{number}");
    }
    assert_eq!(
        "IL,XX".parse::<Countries>(),
        Err(NoCountry("XX".to_owned()))
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        let _ = countries("IL").read(&text);
    }

    #[test]
    fn any_digits_are_read_or_refused(digits in "[0-9]{1,16}") {
        let _ = countries("US").read(&format!("+{digits}"));
    }
}
