//! Takes a TOML table apart key by key and notes every mistake instead of stopping at the first.

use std::path::PathBuf;
use std::time::Duration;

use ota_domain::PackageName;
use ota_domain::violation::Violations;
use serde::de::DeserializeOwned;

/// One table of the file. What is left in it at the end is unknown.
pub(super) struct Section<'a> {
    table: toml::Table,
    path: String,
    violations: &'a mut Violations,
}

impl<'a> Section<'a> {
    pub(super) fn new(table: toml::Table, path: String, violations: &'a mut Violations) -> Self {
        Self { table, path, violations }
    }

    /// Notes the keys that nobody took.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            self.violations.add(format!("{}{key}", self.path), "is not a setting");
        }
    }

    fn note(&mut self, key: &str, description: impl std::fmt::Display) {
        self.violations.add(format!("{}{key}", self.path), description);
    }

    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.table.remove(key)?;
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(key, error.message());
                None
            }
        }
    }

    pub(super) fn set<T: DeserializeOwned>(&mut self, key: &str, place: &mut T) {
        if let Some(value) = self.take(key) {
            *place = value;
        }
    }

    pub(super) fn take_positive(&mut self, key: &str) -> Option<u64> {
        let number = self.take(key)?;
        if number == 0 {
            self.note(key, "must be more than 0");
        }
        Some(number)
    }

    /// Spans are written as people do: `90s`, `5m`, `1h 30m`.
    pub(super) fn set_duration(&mut self, key: &str, place: &mut Duration) {
        let Some(text) = self.take::<String>(key) else { return };
        match humantime::parse_duration(&text) {
            Ok(Duration::ZERO) => self.note(key, "must be more than 0s"),
            Ok(duration) => *place = duration,
            Err(error) => self.note(key, format!("must be a time such as 90s or 5m: {error}")),
        }
    }

    pub(super) fn take_program(&mut self, key: &str) -> Option<PathBuf> {
        let program: PathBuf = self.take(key)?;
        if program.is_relative() {
            self.note(key, "must be an absolute path");
        }
        Some(program)
    }

    pub(super) fn take_file_name(&mut self, key: &str) -> Option<String> {
        let name: String = self.take(key)?;
        if name.is_empty() || name == "." || name == ".." || name.len() > 240 || name.contains(['/', '\0']) {
            self.note(key, "must be the name of a file, without a slash");
        }
        Some(name)
    }

    /// Reads a table of its own.
    pub(super) fn section(&mut self, key: &str, read: impl FnOnce(Section<'_>)) {
        if let Some(table) = self.take(key) {
            read(Section::new(table, format!("{}{key}.", self.path), self.violations));
        }
    }

    /// Reads a table of tables by package.
    pub(super) fn sections(&mut self, key: &str, mut read: impl FnMut(PackageName, Section<'_>)) {
        let Some(tables) = self.take::<toml::Table>(key) else { return };
        for (name, value) in tables {
            let path = format!("{}{key}.{name}", self.path);
            match (name.parse(), value) {
                (Ok(name), toml::Value::Table(table)) => {
                    read(name, Section::new(table, format!("{path}."), self.violations));
                }
                (Ok(_), _) => self.violations.add(path, "must be a table"),
                (Err(error), _) => self.violations.add(path, error),
            }
        }
    }
}
