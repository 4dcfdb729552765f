//! Selectors, as operators write them: what is understood is written back so that it means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ota_domain::{Labels, Selector, label};

fuzz_target!(|text: &str| {
    if let Ok(selector) = text.parse::<Selector>() {
        let labels = Labels::from([("ring".to_owned(), "canary".to_owned())]);
        let again = selector.to_string().parse::<Selector>().expect("a selector is written as one");
        assert_eq!(again.matches(&labels), selector.matches(&labels));
    }
    let _ = (label::is_key(text), label::is_value(text));
});
