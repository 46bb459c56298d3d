//! Everything that can be asked for with GET, from the router's own table.

use super::settings::Secrets;

/// What says which routes there are.
const ROUTES: &str = include_str!("../../../../../src/routes.rs");
/// What is put for a parameter that is not a call's.
const PARAMETERS: [(&str, &str); 3] = [
    ("{action}", "hang-up"),
    ("{language}", "he-IL"),
    ("{name}", "busy"),
];
/// Pages that show numbers whole where that is asked for.
const WITH_NUMBERS: [&str; 3] = ["/stats", "/calls/{call}", "/calls/{call}.json"];
/// Where a key that may read all is shown more than another one.
const WITH_MORE: [&str; 3] = ["/v1/calls", "/v1/calls/{call}", "/v1/calls/{call}/timeline"];

/// Keys of /v1.
#[derive(Debug, Clone)]
pub struct Keys {
    /// One that may read neither numbers nor words.
    pub plain: String,
    pub reads_all: String,
}

/// One page to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its path as the router has it, and what is asked of it: the place where hits are.
    pub place: String,
    pub path: String,
    /// Who asks.
    pub bearer: Option<String>,
    /// Whether it has to be there: sockets are not, for who does not want one.
    pub is_shown: bool,
}

/// Lists the pages, those of single calls for each of `calls`.
///
/// # Errors
/// If the table has a parameter that nobody knows a value of.
pub fn all(secrets: &Secrets, keys: &Keys, calls: &[String]) -> anyhow::Result<Vec<Page>> {
    let mut pages = Vec::new();
    for (pattern, door) in routes() {
        let mut paths = vec![pattern.to_owned()];
        if pattern.contains("{call}") {
            let path = |call: &String| pattern.replace("{call}", call);
            paths = calls.iter().map(path).collect();
        }
        for path in paths {
            let put = |path: String, (name, value): (&str, &str)| path.replace(name, value);
            let path = PARAMETERS.into_iter().fold(path, put);
            for (what, query, bearer) in asked(pattern, door, secrets, keys) {
                pages.push(Page {
                    place: format!("{pattern}{what}"),
                    path: format!("{path}{query}"),
                    bearer: bearer.map(str::to_owned),
                    is_shown: !matches!(door, "Carrier" | "Browser"),
                });
            }
        }
    }
    let strange = pages.iter().find(|it| it.is_shown && it.path.contains('{'));
    anyhow::ensure!(strange.is_none(), "what is put for {strange:?}?");
    Ok(pages)
}

/// Returns how often a page is asked for: what is asked beside its path, by which query, and by whom.
fn asked<'a>(
    pattern: &str,
    door: &str,
    secrets: &'a Secrets,
    keys: &'a Keys,
) -> Vec<(&'static str, &'static str, Option<&'a str>)> {
    let operator = Some(secrets.operator.as_str());
    let by_all = (" by who reads all", "", Some(keys.reads_all.as_str()));
    let mut asked = match door {
        "Operator" => vec![("", "", operator)],
        "Key(TranscriptsRead)" => vec![by_all],
        _ if door.starts_with("Key") => vec![("", "", Some(keys.plain.as_str()))],
        _ => vec![("", "", None)],
    };
    if WITH_NUMBERS.contains(&pattern) {
        asked.push(("?numbers=whole", "?numbers=whole", operator));
    }
    if WITH_MORE.contains(&pattern) {
        asked.push(by_all);
    }
    asked
}

/// Lists the routes that are asked with GET: their patterns and doors.
fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.lines().filter_map(|line| {
        let entry = line.trim_start().strip_prefix("get(\"")?;
        let (pattern, rest) = entry.split_once("\", ")?;
        Some((pattern, rest.split(',').next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_their_doors_are_read_where_they_are_put_in_place() {
        let routes: Vec<_> = routes().collect();
        for route in [
            ("/metrics/summary", "Operator"),
            ("/dashboard/events", "Operator"),
            ("/v1/calls/{call}/transcript", "Key(TranscriptsRead)"),
            ("/health", "Public"),
            ("/twilio/media", "Carrier"),
        ] {
            assert!(routes.contains(&route), "{route:?} in {routes:?}");
        }
        let others = ["/v1/records", "/webhook/voicemail"];
        assert!(!routes.iter().any(|(path, _)| others.contains(path)));
    }
}
