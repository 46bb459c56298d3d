//! A database that is slow, and a replica that is cut off from it alone.

use sqlx::Connection;

use super::*;

#[tokio::test]
async fn a_replica_that_is_cut_off_from_the_database_alone_keeps_its_calls() {
    on_both(async |kept| {
        let (lives, lost) = (call("CA1"), call("CA2"));
        for call in [&lives, &lost] {
            kept.recorder.note(call, arrival(false));
        }
        kept.written().await;
        let states = "SELECT carrier_call, state FROM calls ORDER BY 1";
        let is_carried = |call| std::future::ready(call == lives);
        let lookout = kept.lookout("r2");
        lookout.close_calls_of("r1", &is_carried).await.unwrap();
        assert_eq!(
            kept.ask(states).await,
            ["CA1 admitted", "CA2 instance_lost"]
        );
        // Once nobody has it any more, it is lost.
        let nobody = |_| std::future::ready(false);
        lookout.close_calls_of("r1", &nobody).await.unwrap();
        assert_eq!(
            kept.ask(states).await,
            ["CA1 instance_lost", "CA2 instance_lost"]
        );
    })
    .await;
}

/// What a database takes too long for, it takes less long for half of it.
#[tokio::test]
async fn what_a_slow_database_does_not_do_in_time_is_written_in_halves() {
    let server = PostgresServer::start();
    let url = server.database("records");
    let settings = settings(&url);
    let database = Database::open(&settings).unwrap();
    database.migrate().await.unwrap();
    let slow = "CREATE FUNCTION slow() RETURNS trigger AS \
        $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$ LANGUAGE plpgsql; \
        CREATE TRIGGER slow BEFORE INSERT ON calls FOR EACH ROW EXECUTE FUNCTION slow()";
    let mut its_own = sqlx::postgres::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(slow).execute(&mut its_own).await.unwrap();
    // 64 calls take 3.2 s at once.
    let hurried = database.clone().within(Duration::from_secs(1));
    let (recorder, writer) = recorder(&hurried, &settings, "r1");
    for number in 0..64 {
        recorder.note(&call(&format!("CA{number}")), arrival(true));
    }
    let stop = CancellationToken::new();
    database.spawn(writer.run(stop.clone()));
    while recorder.standing().failing.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while recorder.standing().waiting > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let standing = recorder.standing();
    assert_eq!((standing.refused, standing.failing), (0, None));
    let count = sqlx::query("SELECT COUNT(*) FROM calls").fetch_one(&mut its_own);
    assert_eq!(count.await.unwrap().get::<i64, _>(0), 64);
    stop.cancel();
    database.close().await;
}
