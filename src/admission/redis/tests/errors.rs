use super::*;

/// Returns what redis-rs makes of a server's words.
fn said(line: &str) -> StoreError {
    let line = format!("-{line}\r\n");
    let value = redis::parse_redis_value(line.as_bytes()).and_then(Value::extract_error);
    StoreError::Failed(value.expect_err("it is an error"))
}

#[test]
fn each_failure_has_a_class_whichever_version_words_it() {
    let in_a_script = "ERR Error running script (call to f_0): @user_script:47: @user_script: 47: ";
    let table = [
        (
            "OOM command not allowed when used memory > 'maxmemory'. script: 0, on @user_script:47.",
            "oom",
        ),
        (
            &format!("{in_a_script}-OOM command not allowed when used memory > 'maxmemory'."),
            "oom",
        ),
        (
            "READONLY You can't write against a read only replica.",
            "readonly",
        ),
        (
            &format!("{in_a_script}-READONLY You can't write against a read only replica."),
            "readonly",
        ),
        (
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "noperm",
        ),
        (
            &format!(
                "{in_a_script}The user executing the script can't run this command or subcommand"
            ),
            "noperm",
        ),
        ("NOAUTH Authentication required.", "noauth"),
        (
            "WRONGPASS invalid username-password pair or user is disabled.",
            "noauth",
        ),
        ("LOADING Redis is loading the dataset in memory", "loading"),
        (
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL",
            "busy",
        ),
        (
            "MISCONF Redis is configured to save RDB snapshots",
            "misconf",
        ),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "masterdown",
        ),
        ("NOSCRIPT No matching script. Please use EVAL.", "noscript"),
        (
            "CROSSSLOT Keys in request don't hash to the same slot",
            "cluster",
        ),
        ("MOVED 3999 127.0.0.1:6381", "cluster"),
        ("CLUSTERDOWN The cluster is down", "cluster"),
        ("ERR unknown command 'EVALSHA'", "other"),
    ];
    for (line, class) in table {
        assert_eq!(said(line).class(), class, "{line}");
    }
    let ours = [
        (StoreError::Away, "away"),
        (StoreError::TooSlow(BUDGET), "timeout"),
        (StoreError::Garbled("a number"), "garbled"),
        (
            StoreError::Failed(std::io::Error::other("cut").into()),
            "io",
        ),
    ];
    for (error, class) in ours {
        assert_eq!(error.class(), class, "{error}");
    }
}
