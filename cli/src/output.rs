//! Standard output: the data a command was asked for, in the form that was asked for.
//!
//! Messages for people go to standard error through [`crate::messages`], never here, so that pipes carry data alone.

mod json;
mod table;

use std::io::{self, Write};

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde::Serialize;

pub use json::{Document, List};
pub use table::{Cell, Column, Tone, Widths};

use crate::error::Failure;

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One JSON document with the API's field names.
    Json,
    /// The same as YAML.
    Yaml,
    /// Resource names alone, one a line.
    Name,
    /// One JSON object a line.
    Jsonl,
}

/// A thing that can be shown.
pub trait Resource: Sized + 'static {
    /// What the list of them is called in JSON, as in the API's own list answers.
    const PLURAL: &'static str;

    /// Its resource name.
    fn name(&self) -> &str;

    /// Its form for programs.
    fn document(&self) -> Document;

    /// The columns of its table. The first is the resource's own id.
    fn columns() -> Vec<Column<Self>>;

    /// What there is to say about it alone, line by line. The wide columns when nothing else is given.
    fn facts(&self, now: DateTime<Utc>) -> Vec<Fact> {
        let columns = Self::columns();
        columns.iter().map(|column| Fact::new(column.title(), column.cell(self, now))).collect()
    }
}

/// One line of what there is to say about a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    title: String,
    cell: Cell,
}

impl Fact {
    /// Makes a line. A value of several lines is shown below one another.
    pub fn new(title: impl Into<String>, cell: impl Into<Cell>) -> Self {
        Self { title: title.into(), cell: cell.into() }
    }
}

/// Writes data in the chosen form.
pub struct Printer {
    format: Format,
    headers: bool,
    clock: fn() -> DateTime<Utc>,
    out: Box<dyn Write>,
}

impl Printer {
    /// Makes a printer. `clock` is asked for the moment that ages are counted from.
    pub fn new(format: Format, headers: bool, clock: fn() -> DateTime<Utc>, out: Box<dyn Write>) -> Self {
        Self { format, headers, clock, out }
    }

    /// Returns the form in use.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Writes one thing with all there is to say about it.
    pub fn one<R: Resource>(&mut self, resource: &R) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.facts(&resource.facts((self.clock)())),
            Format::Name => self.line(resource.name()),
            Format::Json => self.json(&resource.document()),
            Format::Jsonl => self.json_line(&resource.document()),
            Format::Yaml => self.yaml(&resource.document()),
        }
    }

    /// Writes that something was done to a thing: `devices/… approved`. The thing itself in the forms for programs.
    pub fn done<R: Resource>(&mut self, resource: &R, participle: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.line(&format!("{} {participle}", resource.name())),
            Format::Name | Format::Json | Format::Jsonl | Format::Yaml => self.one(resource),
        }
    }

    /// Writes that a thing is gone, of which only the name is left.
    pub fn gone(&mut self, name: &str, participle: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.line(&format!("{name} {participle}")),
            Format::Name => self.line(name),
            Format::Json | Format::Jsonl => self.json_line(&serde_json::json!({ "name": name })),
            Format::Yaml => self.yaml(&serde_json::json!({ "name": name })),
        }
    }

    /// Writes a list. An empty one is an empty document, or no line at all.
    pub fn list<R: Resource>(&mut self, resources: &[R]) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide if resources.is_empty() => Ok(()),
            Format::Table | Format::Wide => self.rows(resources, &mut Widths::default(), self.headers),
            Format::Json => self.json(&List::new(resources)),
            Format::Yaml => self.yaml(&List::new(resources)),
            Format::Name | Format::Jsonl => resources.iter().try_for_each(|resource| self.one(resource)),
        }
    }

    /// Writes things as they come, one after the other. `widths` lines them up with what was written before.
    pub fn stream<R: Resource>(&mut self, resources: &[R], widths: &mut Widths) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide if resources.is_empty() => {}
            Format::Table | Format::Wide => {
                let headers = self.headers && widths.is_empty();
                self.rows(resources, widths, headers)?;
            }
            Format::Yaml => {
                for resource in resources {
                    self.line("---")?;
                    self.one(resource)?;
                }
            }
            Format::Name | Format::Json | Format::Jsonl => {
                resources.iter().try_for_each(|resource| self.one(resource))?;
            }
        }
        self.out.flush().map_err(Failure::output)
    }

    /// Writes an answer that is no resource: a message in the forms for programs, `facts` for people, and `name`.
    pub fn answer(&mut self, message: &Document, name: &str, facts: &[Fact]) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.facts(facts),
            Format::Name => self.line(name),
            Format::Json => self.json(message),
            Format::Jsonl => self.json_line(message),
            Format::Yaml => self.yaml(message),
        }
    }

    /// Writes a secret that is shown this once: alone for people, so that a script can keep it; in its answer for
    /// programs.
    pub fn secret(&mut self, secret: &str, answer: &Document, name: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.line(secret),
            Format::Json | Format::Jsonl | Format::Yaml | Format::Name => self.answer(answer, name, &[]),
        }
    }

    /// Writes a line as it is.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{}", crate::text::clean(text)).map_err(Failure::output)
    }

    /// Writes bytes as they are, such as a completion script.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(Failure::output)
    }

    /// Hands everything over to the reader.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::output)
    }

    /// Tells what of a thing's row changes other than by the passing of time, to notice changes worth showing.
    pub fn fingerprint<R: Resource>(&self, resource: &R) -> Vec<u8> {
        match self.format {
            Format::Table | Format::Wide => {
                let wide = self.format == Format::Wide;
                let now = (self.clock)();
                let columns = R::columns();
                let steady = columns.iter().filter(|column| column.shown(wide) && !column.is_age());
                steady.flat_map(|column| [column.cell(resource, now).text().as_bytes(), &[0]].concat()).collect()
            }
            Format::Name => resource.name().as_bytes().to_vec(),
            Format::Json | Format::Jsonl | Format::Yaml => resource.document().to_line().into_bytes(),
        }
    }

    fn rows<R: Resource>(&mut self, resources: &[R], widths: &mut Widths, headers: bool) -> Result<(), Failure> {
        let wide = self.format == Format::Wide;
        let text = table::render(resources, wide, headers, (self.clock)(), widths);
        writeln!(self.out, "{text}").map_err(Failure::output)
    }

    fn facts(&mut self, facts: &[Fact]) -> Result<(), Failure> {
        if facts.is_empty() {
            return Ok(());
        }
        let pairs: Vec<_> = facts.iter().map(|fact| (fact.title.as_str(), &fact.cell)).collect();
        self.out.write_all(table::render_facts(&pairs).as_bytes()).map_err(Failure::output)
    }

    fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.out, value).map_err(|error| Failure::output(error.into()))?;
        writeln!(self.out).map_err(Failure::output)
    }

    fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, value).map_err(|error| Failure::output(error.into()))?;
        writeln!(self.out).map_err(Failure::output)
    }

    fn yaml(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_saphyr::to_string(value).map_err(|error| Failure::output(io::Error::other(error)))?;
        self.out.write_all(text.as_bytes()).map_err(Failure::output)
    }
}

#[cfg(test)]
mod tests;
