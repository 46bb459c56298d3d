//! Recordings of what we send, which `tests/official/check` holds against the vendors' own
//! packages.

use std::{
    fmt::Display,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

/// Returns an empty place for a recording, where the check looks for it.
pub fn recording(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/official");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(name);
    let _ = fs::remove_file(&file); // It may not be there.
    file
}

/// Records values that display as JSON, one a line.
pub fn record<T: Display>(name: &str, values: impl IntoIterator<Item = T>) {
    let mut file = File::create(recording(name)).unwrap();
    for value in values {
        writeln!(file, "{value}").unwrap();
    }
}
