//! What tenants are told, whatever comes first.

use super::*;

/// Another replica may have been told of them, and have written that first.
#[tokio::test]
async fn messages_are_told_of_also_if_they_are_written_before_whose_they_are() {
    on_both(async |kept| {
        let invited = || {
            let (message, result) = (None, "sent");
            Fact::Happened(What::Invited { message, result })
        };
        let orders = [
            vec![vec![message("1")], vec![invited()], vec![arrival(true)]],
            vec![vec![arrival(true)], vec![invited(), message("2")]],
            vec![vec![invited(), arrival(true), message("3")]],
        ];
        for (number, batches) in orders.into_iter().enumerate() {
            for batch in batches {
                for fact in batch {
                    kept.recorder.note(&call(&format!("CA{number}")), fact);
                }
                kept.written().await;
            }
        }
        let events = "SELECT carrier_call, kind FROM events NATURAL JOIN \
                      (SELECT call, carrier_call FROM calls) AS named ORDER BY carrier_call, kind";
        let told = (0..3).flat_map(|number| {
            ["call.refused", "voicemail.received", "whatsapp.status"]
                .map(|kind| format!("CA{number} {kind}"))
        });
        assert_eq!(kept.ask(events).await, told.collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn an_event_tells_as_much_of_what_was_said_as_it_may() {
    on_both(async |kept| {
        for (name, utterances) in [("CA1", 3), ("CA2", 30)] {
            kept.recorder.note(&call(name), arrival(false));
            for _ in 0..utterances {
                kept.recorder.note(&call(name), said(&"x".repeat(8_000)));
            }
            let ended = Fact::Happened(What::Ended(EndReason::CallerHungUp));
            kept.recorder.note(&call(name), ended);
        }
        kept.written().await;
        let bodies = "SELECT 'body', body FROM events WHERE kind = 'call.transcript'";
        let told = kept.ask(bodies).await.into_iter().map(|row| {
            let body = row.strip_prefix("body ").unwrap();
            let data = serde_json::from_str::<Value>(body).unwrap()["data"].clone();
            let utterances = data["transcript"].as_array().unwrap().len();
            (utterances, data["transcript_is_complete"] == true)
        });
        let mut told: Vec<_> = told.collect();
        told.sort_unstable();
        assert_eq!(told, [(3, true), (25, false)]);
    })
    .await;
}
