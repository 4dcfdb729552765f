//! Tables and fact sheets for people, in the way kubectl writes them: upper-case headers, no lines, three spaces between.

use chrono::{DateTime, Utc};
use comfy_table::{Attribute, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};

use crate::text::{clean, clean_lines};

/// Spaces between two columns.
const GAP: u16 = 3;

/// What a value means to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way, or waiting for somebody.
    Busy,
    /// Wrong.
    Bad,
    /// Of no interest any more.
    Faint,
}

/// A value in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Makes a value with a tone.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    /// Returns its text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A column of a resource's table.
pub struct Column<R> {
    header: &'static str,
    wide: bool,
    age: bool,
    cell: fn(&R, DateTime<Utc>) -> Cell,
}

impl<R> Column<R> {
    /// Makes a column.
    pub fn new(header: &'static str, cell: fn(&R, DateTime<Utc>) -> Cell) -> Self {
        Self { header, wide: false, age: false, cell }
    }

    /// Makes a column that wide tables alone show.
    pub fn wide(header: &'static str, cell: fn(&R, DateTime<Utc>) -> Cell) -> Self {
        Self { wide: true, ..Self::new(header, cell) }
    }

    /// Makes a column whose values change by the passing of time alone.
    pub fn age(header: &'static str, cell: fn(&R, DateTime<Utc>) -> Cell) -> Self {
        Self { age: true, ..Self::new(header, cell) }
    }

    /// Makes a column of ages that wide tables alone show.
    pub fn wide_age(header: &'static str, cell: fn(&R, DateTime<Utc>) -> Cell) -> Self {
        Self { wide: true, age: true, ..Self::new(header, cell) }
    }

    /// Tells whether a table shows it.
    pub fn shown(&self, wide: bool) -> bool {
        wide || !self.wide
    }

    /// Tells whether its values change by the passing of time alone.
    pub fn is_age(&self) -> bool {
        self.age
    }

    /// Returns the value for one resource.
    pub fn cell(&self, resource: &R, now: DateTime<Utc>) -> Cell {
        (self.cell)(resource, now)
    }

    /// Returns the header in sentence case, for fact sheets.
    pub fn title(&self) -> String {
        let lower = self.header.to_lowercase().replace('-', " ");
        let mut letters = lower.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    }
}

/// How wide the columns of a table became, so that rows that follow line up.
#[derive(Debug, Default)]
pub struct Widths(Vec<u16>);

impl Widths {
    /// Tells whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes a table, without an end of line after the last row.
pub(super) fn render<R: super::Resource>(
    resources: &[R],
    wide: bool,
    headers: bool,
    now: DateTime<Utc>,
    widths: &mut Widths,
) -> String {
    let columns: Vec<_> = R::columns().into_iter().filter(|column| column.shown(wide)).collect();
    let mut table = plain_table();
    if headers {
        table.set_header(columns.iter().map(|column| comfy_table::Cell::new(column.header)));
    }
    for resource in resources {
        table.add_row(columns.iter().map(|column| styled(&column.cell(resource, now))));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, GAP));
        if let Some(width) = widths.0.get(index) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width + GAP)));
        }
    }
    let now_widths = table.column_max_content_widths();
    let before = std::mem::take(&mut widths.0);
    widths.0 = now_widths
        .into_iter()
        .enumerate()
        .map(|(index, width)| width.max(before.get(index).copied().unwrap_or(0)))
        .collect();
    table.trim_fmt()
}

/// Writes one thing's facts, title and value on a line each; further lines of a value below the first.
pub(super) fn render_facts(facts: &[(&str, &Cell)]) -> String {
    let mut table = plain_table();
    for (title, cell) in facts {
        let mut lines = clean_lines(&cell.text);
        let first = lines.next().unwrap_or_default();
        table.add_row([
            comfy_table::Cell::new(format!("{}:", clean(title))).add_attribute(Attribute::Bold),
            styled(&Cell::toned(first, cell.tone)),
        ]);
        for line in lines {
            table.add_row([comfy_table::Cell::new(""), styled(&Cell::toned(line, cell.tone))]);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    format!("{}\n", table.trim_fmt())
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    // Always styled here; the stream that is written to strips what must not show.
    table.enforce_styling();
    table.style_text_only();
    table
}

fn styled(cell: &Cell) -> comfy_table::Cell {
    let text = if cell.text.is_empty() { "-" } else { &cell.text };
    let styled = comfy_table::Cell::new(clean(text));
    match cell.tone {
        Tone::Plain => styled,
        Tone::Good => styled.fg(Color::DarkGreen),
        Tone::Busy => styled.fg(Color::DarkYellow),
        Tone::Bad => styled.fg(Color::DarkRed),
        Tone::Faint => styled.fg(Color::DarkGrey),
    }
}
