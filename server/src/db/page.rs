//! Pages of a list: how many rows, and after which one.
//!
//! A page is cut by key, never by offset, so that its cost does not grow with its number and rows that come or go meanwhile
//! are neither doubled nor skipped.

use crate::app::{Error, Reason, Result};

const DEFAULT_SIZE: i32 = 100;
const MAX_SIZE: i32 = 1_000;

/// Which part of a list to read. `K` is the key the list is ordered by.
#[derive(Debug, Clone)]
pub struct PageRequest<K> {
    /// At most this many rows.
    pub size: i64,
    /// The last key of the page before.
    pub after: Option<K>,
}

/// A part of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Token of the next page. Empty on the last.
    pub next_token: String,
}

/// Reads what a list request says of pages.
///
/// # Errors
/// `Invalid` for a negative size, `PageTokenInvalid` for a token that is no key of this list.
pub fn request<K: std::str::FromStr>(size: i32, token: &str) -> Result<PageRequest<K>> {
    if size < 0 {
        return Err(Error::invalid("page_size", "must not be negative"));
    }
    let after = match token {
        "" => None,
        token => Some(token.parse().map_err(|_| {
            let message = "page_token must come from the previous page of the same list";
            Error::refused(Reason::PageTokenInvalid, message)
        })?),
    };
    let size = if size == 0 { DEFAULT_SIZE } else { size.min(MAX_SIZE) };
    Ok(PageRequest { size: i64::from(size), after })
}

impl<K> PageRequest<K> {
    /// Rows to read: one more than the page has, which tells whether another page follows.
    #[must_use]
    pub fn limit(&self) -> i64 {
        self.size + 1
    }

    /// Cuts the row too many off and makes the next page's token of the last one's key.
    pub fn cut<T>(&self, mut rows: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next_token = rows.last().filter(|_| more).map(key).unwrap_or_default();
        Page { rows, next_token }
    }
}
