//! A Markdown table whose cells are right or wrong.

use std::fmt::Write as _;

use super::application::ROWS_VAR;
use crate::common::docs;

/// The text of a cell, and whether it is right.
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) is_right: bool,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, is_right: bool) -> Self {
        Self { text: text.into(), is_right }
    }
}

pub(crate) struct Table {
    text: String,
    columns: Vec<String>,
    wrong: Vec<String>,
}

impl Table {
    pub(crate) fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
        let text = format!("| {} |\n|{}\n", columns.join(" | "), " --- |".repeat(columns.len()));
        Self { text, columns, wrong: Vec::new() }
    }

    /// Adds a line that begins with `heads`. Wrong cells are bold.
    pub(crate) fn line(&mut self, heads: &[&str], cells: Vec<Cell>) {
        let mut line = heads.iter().map(|&head| head.to_owned()).collect::<Vec<_>>();
        for cell in cells {
            if cell.is_right {
                line.push(cell.text);
            } else {
                self.wrong.push(format!("{}, {}: {}", heads.join(", "), self.columns[line.len()], cell.text));
                line.push(format!("**{}**", cell.text));
            }
        }
        writeln!(self.text, "| {} |", line.join(" | ")).unwrap();
    }

    /// Prints the table, updates it in the documentation if it has a name, and panics if a cell is wrong.
    pub(crate) fn finish(self, name: Option<&str>) {
        println!("{}", self.text);
        if let Some(name) = name
            && std::env::var_os(ROWS_VAR).is_none()
        {
            docs::update(name, &self.text);
        }
        assert!(self.wrong.is_empty(), "wrong are:\n{}", self.wrong.join("\n"));
    }
}
