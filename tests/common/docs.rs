//! The tables in `docs/faults.md`. Each is made by a test, and stands between two markers of its name.

use std::{env, fs, path::Path};

/// Replaces the table of that name, if `UPDATE_DOCS` is set.
pub(crate) fn update(name: &str, table: &str) {
    if env::var_os("UPDATE_DOCS").is_none() {
        return;
    }
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let file = folders.find_map(|folder| Some(folder.join("docs/faults.md")).filter(|file| file.exists())).unwrap();
    // Tests run in processes of their own, at the same time.
    let lock = fs::File::open(&file).unwrap();
    lock.lock().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let (begin, end) = (format!("<!-- table: {name} -->\n"), format!("<!-- end: {name} -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("docs/faults.md has no {begin:?}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/faults.md has no {end:?}"));
    fs::write(&file, format!("{before}{begin}\n{}\n\n{end}{after}", table.trim_end())).unwrap();
}
