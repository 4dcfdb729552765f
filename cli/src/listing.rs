//! Lists: all pages of them, and what changes in them.

use std::{collections::HashMap, time::Duration};

use clap::Args;

use crate::{
    error::{Failure, is_transient},
    output::{Resource, Widths},
    session::Session,
};

/// Entries asked for at a time. Keeps an answer small and a list of ten thousand devices at twenty calls.
const PAGE_SIZE: usize = 500;

/// Time between two looks at a watched list.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Options of every list.
#[derive(Debug, Clone, Args)]
pub struct ListOptions {
    /// Show at most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Keep looking, and show what changes, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

impl ListOptions {
    /// Options for all entries, once.
    pub const ALL: Self = Self { limit: None, watch: false };
}

/// Which page to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// At most this many entries.
    pub size: i32,
    /// Token of the page.
    pub token: String,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<R> {
    /// The entries.
    pub items: Vec<R>,
    /// Token of the next page. Empty on the last.
    pub next: String,
}

/// Fetches the list page by page.
pub async fn fetch_all<R>(
    limit: Option<u32>,
    fetch: impl AsyncFn(PageRequest) -> Result<Page<R>, tonic::Status>,
) -> Result<Vec<R>, tonic::Status> {
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let mut items = Vec::new();
    let mut token = String::new();
    while items.len() < limit {
        let size = PAGE_SIZE.min(limit - items.len());
        let request = PageRequest { size: i32::try_from(size).unwrap_or(i32::MAX), token };
        let page = fetch(request).await?;
        items.extend(page.items);
        token = page.next;
        if token.is_empty() {
            break;
        }
    }
    items.truncate(limit);
    Ok(items)
}

/// Shows a list, once or for as long as the person watches.
pub async fn show<R: Resource>(
    session: &mut Session,
    options: &ListOptions,
    fetch: impl AsyncFn(PageRequest) -> Result<Page<R>, tonic::Status>,
) -> Result<(), Failure> {
    let items = fetch_all(options.limit, &fetch).await?;
    if !options.watch {
        if items.is_empty() {
            session.messages.say(&format!("no {}", spaced(R::PLURAL)));
        }
        return session.printer.list(&items);
    }
    let mut seen = Seen::default();
    let mut widths = Widths::default();
    let mut items = Some(items);
    loop {
        if let Some(items) = items.take() {
            let changed = seen.changed(items, |item| session.printer.fingerprint(item));
            session.printer.stream(&changed, &mut widths)?;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
        match fetch_all(options.limit, &fetch).await {
            Ok(fresh) => items = Some(fresh),
            // A watch outlives a restart of the server.
            Err(status) if is_transient(&status) => {}
            Err(status) => return Err(status.into()),
        }
    }
}

/// What a watched list showed last.
#[derive(Default)]
struct Seen(HashMap<String, Vec<u8>>);

impl Seen {
    /// Returns the entries that are new or look different.
    fn changed<R: Resource>(&mut self, items: Vec<R>, fingerprint: impl Fn(&R) -> Vec<u8>) -> Vec<R> {
        let mut changed = Vec::new();
        for item in items {
            let print = fingerprint(&item);
            if self.0.get(item.name()) != Some(&print) {
                self.0.insert(item.name().to_owned(), print);
                changed.push(item);
            }
        }
        changed
    }
}

/// Turns `enrollTokens` into `enroll tokens`.
fn spaced(plural: &str) -> String {
    plural.chars().flat_map(|c| c.is_uppercase().then_some(' ').into_iter().chain(c.to_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use ota_proto::admin::v1::Package;

    use super::*;

    fn pages(total: usize) -> impl Fn(PageRequest) -> Page<usize> {
        move |request| {
            let start: usize = if request.token.is_empty() { 0 } else { request.token.parse().unwrap() };
            let end = total.min(start + request.size as usize);
            let next = if end < total { end.to_string() } else { String::new() };
            Page { items: (start..end).collect(), next }
        }
    }

    #[tokio::test]
    async fn all_pages_are_fetched() {
        let source = pages(1_234);
        let all = fetch_all(None, async |request| Ok(source(request))).await.unwrap();
        assert_eq!(all, (0..1_234).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_limit_asks_for_no_more_than_it_shows() {
        let source = pages(10_000);
        let sizes = RefCell::new(Vec::new());
        let some = fetch_all(Some(505), async |request: PageRequest| {
            sizes.borrow_mut().push(request.size);
            Ok(source(request))
        });
        assert_eq!(some.await.unwrap().len(), 505);
        assert_eq!(*sizes.borrow(), [500, 5]);
    }

    #[test]
    fn a_watch_shows_an_entry_again_only_when_it_changed() {
        let package = |name: &str, text: &str| Package {
            name: name.to_owned(),
            description: text.to_owned(),
            ..Package::default()
        };
        let print = |package: &Package| package.description.clone().into_bytes();
        let mut seen = Seen::default();
        assert_eq!(seen.changed(vec![package("a", "1"), package("b", "1")], print).len(), 2);
        assert_eq!(seen.changed(vec![package("a", "1"), package("b", "2")], print), [package("b", "2")]);
        assert_eq!(seen.changed(vec![package("a", "1"), package("b", "2")], print), []);
    }

    #[test]
    fn an_empty_list_is_named_in_words() {
        assert_eq!(spaced("enrollTokens"), "enroll tokens");
    }
}
