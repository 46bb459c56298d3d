//! Secrets of a campaign file: in it, or in files that it names.

use std::path::{Path, PathBuf};

use crate::config::{
    agent::LONGEST_TEXT,
    file::{
        agents::LONGEST_NAME,
        read as read_file,
        table::{Entry, Table},
    },
};

/// The longest file that a secret stands in, in bytes.
const LONGEST_FILE: u64 = 16 << 10;

/// Where the files are that a campaign file names, and which there have been.
pub struct Beside<'a> {
    pub folder: &'a Path,
    pub files: &'a mut Vec<PathBuf>,
}

impl Beside<'_> {
    /// Returns the secret that stands under `key`, or in the file that `file_key` names, and the
    /// entry that any mistake in it is told of.
    pub fn secret<'t>(
        &mut self,
        table: &Table<'t>,
        key: &'static str,
        file_key: &'static str,
    ) -> Option<(Entry<'t>, String)> {
        match (table.secret(key), table.secret(file_key)) {
            (Some(_), Some(file)) => {
                file.remark(&format!("there is {key} too: leave one of them out"));
                None
            }
            (Some(inline), None) => {
                let text = inline.text(LONGEST_TEXT)?.to_owned();
                Some((inline, text))
            }
            (None, Some(file)) => {
                let path = self.folder.join(file.text(LONGEST_NAME)?);
                let text = read_file(&path, LONGEST_FILE).map(String::from_utf8);
                self.files.push(path);
                match text {
                    Ok(Ok(text)) => Some((file, text.trim().to_owned())),
                    Ok(Err(_)) => {
                        file.remark("the file is no text");
                        None
                    }
                    Err(error) => {
                        file.remark(&format!("a readable file: {error}"));
                        None
                    }
                }
            }
            (None, None) => None,
        }
    }
}
